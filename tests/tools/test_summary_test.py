"""tools/test_summary.py adds up Bazel's events and other counts, and never calls a broken build green."""
import json
import os
import subprocess
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
XML = """<testsuites><testsuite><testcase name="a"/><testcase name="b">{}</testcase></testsuite></testsuites>"""


class TestSummaryTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def path(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "w") as f:
            f.write(text)
        return path

    def summary(self, events, counts=""):
        events = self.path("events.json", "".join(json.dumps(event) + "\n" for event in events))
        run = subprocess.run([sys.executable, os.path.join(ROOT, "tools/test_summary.py"),
                              self.path("counts.txt", counts), events], stdout=subprocess.PIPE, text=True)
        return run.returncode, run.stdout.splitlines()

    def target_result(self, status="PASSED", inside_b=""):
        output = {"name": "test.xml", "uri": "file://" + self.path(f"{status}.xml", XML.format(inside_b))}
        return {"id": {"testResult": {"label": "//t:x"}},
                "testResult": {"status": status, "testActionOutput": [output]}}

    @staticmethod
    def finished(name):
        return {"id": {}, "finished": {"exitCode": {"name": name}}}

    def test_passes_add_up(self):
        status, lines = self.summary([self.target_result(), self.finished("SUCCESS")], "1 0 0\n5 0 2\n")
        self.assertEqual((status, lines[-1]), (0, "8 passed, 0 failed, 2 skipped"))

    def test_failures_are_named(self):
        status, lines = self.summary([self.target_result("FAILED", "<failure/>"), self.finished("TESTS_FAILED")])
        self.assertEqual((status, lines), (1, ["FAILED //t:x: b", "1 passed, 1 failed, 0 skipped"]))

    def test_a_crash_after_passing_cases_is_a_failure(self):
        status, lines = self.summary([self.target_result("TIMEOUT"), self.finished("TESTS_FAILED")])
        self.assertEqual((status, lines[-1]), (1, "2 passed, 1 failed, 0 skipped"))

    def test_a_target_that_does_not_build_is_a_failure(self):
        broken = {"id": {"targetCompleted": {"label": "//t:y"}}, "completed": {}}
        status, lines = self.summary([self.target_result(), broken, self.finished("BUILD_FAILURE")])
        self.assertEqual((status, lines), (1, ["FAILED //t:y: does not build", "2 passed, 1 failed, 0 skipped"]))

    def test_a_bazel_that_stopped_is_a_failure(self):
        status, lines = self.summary([self.target_result()])
        self.assertEqual((status, lines[-1]), (1, "2 passed, 1 failed, 0 skipped"))

    def test_nothing_ran_is_a_failure(self):
        self.assertEqual(self.summary([self.finished("SUCCESS")])[0], 1)


if __name__ == "__main__":
    unittest.main()
