"""tools/tidy.py finds each kind of breach in a small repository, and nothing in a clean one."""
import os
import subprocess
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class TidyTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        subprocess.run(["git", "init", "-q"], cwd=self.folder.name, check=True)

    def tidy(self, files):
        for path, text in files.items():
            full = os.path.join(self.folder.name, path)
            os.makedirs(os.path.dirname(full), exist_ok=True)
            with open(full, "w") as f:
                f.write(text)
        run = subprocess.run([sys.executable, os.path.join(ROOT, "tools/tidy.py"), "--root", self.folder.name],
                             stdout=subprocess.PIPE, text=True)
        return run.returncode, run.stdout

    def assert_found(self, text, files):
        status, out = self.tidy(files)
        self.assertEqual(status, 1, out)
        self.assertIn(text, out)

    def test_clean_code_passes(self):
        status, out = self.tidy({"memory/a.h": "#pragma once\nint F();\n",
                                 "memory/a.cc": '#include "memory/a.h"\nint F() {\n  return 1;\n}\n'})
        self.assertEqual((status, out), (0, "0 tidy errors\n"))

    def test_long_line(self):
        self.assert_found("a.h:1: 124 columns", {"memory/a.h": "//" + " " * 121 + "x\n"})

    def test_long_function_and_long_method(self):
        body = "  g();\n" * 70
        self.assert_found("a.cc:1: function of 72 lines",
                          {"memory/a.cc": "void F(int x) {\n" + body + "}\n"})
        self.assert_found("a.h:2: function of 72 lines", {
            "memory/a.h": "class A final : public B {\n  void F() const override {\n" + body + "}\n};\n"})

    def test_braces_in_literals_do_not_confuse(self):
        status, out = self.tidy({"memory/a.cc": "char F() {\n  return '{';\n}\n" + "int x;\n" * 50})
        self.assertEqual(status, 0, out)

    def test_long_file(self):
        self.assert_found("a.h: 501 lines", {"memory/a.h": "int x;\n" * 501})

    def test_banned_word(self):
        self.assert_found("banned word", {"memory/a.h": "// TO" + "DO: later\n"})

    def test_path_of_a_machine(self):
        self.assert_found("path of a machine", {"README.md": "see /home" + "/me/x\n"})

    def test_backend_ifdef_above_kernels(self):
        self.assert_found("backend #ifdef", {"memory/a.h": "#ifdef SPIN_CUDA\n#endif\n"})

    def test_missing_test(self):
        self.assert_found("no a_test.cc", {"memory/a.cc": "int x;\n" * 61})

    def test_a_test_by_name_or_by_header_is_enough(self):
        source = "int x;\n" * 61
        self.assertEqual(self.tidy({"memory/a.cc": source, "tests/memory/a_test.cc": "int x;\n"})[0], 0)
        self.assert_found("no b_test.cc", {"memory/b.cc": source})
        self.assertEqual(self.tidy({"tests/memory/c_test.cc": '#include "memory/b.h"\n'})[0], 0)


if __name__ == "__main__":
    unittest.main()
