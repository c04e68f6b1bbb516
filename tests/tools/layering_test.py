"""tools/layering.py finds each kind of forbidden include and dead files, on made-up targets."""
import os
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tools"))
import layering  # noqa: E402  (the path comes first)


def rule(srcs=(), hdrs=(), deps=()):
    return {"srcs": list(srcs), "hdrs": list(hdrs), "textual_hdrs": [], "deps": list(deps)}


class LayeringTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.addCleanup(setattr, layering, "ROOT", layering.ROOT)
        layering.ROOT = folder.name

    def write(self, path, text):
        full = os.path.join(layering.ROOT, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w") as f:
            f.write(text)

    def edges(self, path, include):
        self.write(path, f"#include {include}\n")
        return list(layering.forbidden_edges([path]))

    def test_looking_down_is_allowed_and_up_is_not(self):
        self.assertEqual(self.edges("memory/a.cc", '"kernels/ops.h"'), [])
        self.assertIn("may not include models/x.h", self.edges("memory/a.cc", '"models/x.h"')[0])
        self.assertIn("may not include kernels/ops.h", self.edges("engine/a.cc", '"kernels/ops.h"')[0])
        self.assertIn("may not include memory/x.h", self.edges("server/http/a.cc", '"memory/x.h"')[0])
        self.assertEqual(self.edges("server/app.cc", '"memory/x.h"'), [])

    def test_a_backend_is_seen_by_itself_alone(self):
        self.assertEqual(self.edges("kernels/backend_cpu.cc", '"kernels/cpu/families.h"'), [])
        self.assertIn("only kernels/cpu/", self.edges("memory/a.cc", '"kernels/cpu/families.h"')[0])

    def test_third_party_headers_stay_in_their_place(self):
        self.assertEqual(self.edges("common/logging.cc", "<spdlog/spdlog.h>"), [])
        self.assertIn("belongs to", self.edges("memory/a.cc", "<spdlog/spdlog.h>")[0])
        self.assertEqual(self.edges("models/a.cc", "<nlohmann/json.hpp>"), [])
        self.assertIn("belongs to", self.edges("models/a.h", "<nlohmann/json.hpp>")[0])
        self.assertEqual(self.edges("tests/a.cc", "<catch2/catch.hpp>"), [])
        self.assertIn("belongs to", self.edges("server/grpc/a.cc", "<nlohmann/json.hpp>")[0])

    def test_a_header_reached_through_another_target_is_found(self):
        self.write("memory/a.cc", '#include "common/math.h"\n')
        rules = {"//memory:a": rule(["//memory:a.cc"], deps=["//memory:b"]),
                 "//common:math": rule(hdrs=["//common:math.h"])}
        self.assertEqual(list(layering.unlisted_headers(rules)),
                         ["memory/a.cc:1: includes common/math.h, but //memory:a does not list //common:math in deps"])
        rules["//memory:a"]["deps"].append("//common:math")
        self.assertEqual(list(layering.unlisted_headers(rules)), [])

    def test_a_file_of_no_target_is_dead(self):
        rules = {"//memory:a": rule(["//memory:a.cc"])}
        self.assertEqual(list(layering.dead_files(rules, ["memory/a.cc", "memory/b.cc"])),
                         ["memory/b.cc: belongs to no target (dead code?)"])


if __name__ == "__main__":
    unittest.main()
