#!/usr/bin/env python3
"""Quality of sparse attention on small real models, in little: what must be exact is, and budgets are in order.

usage: tools/test tests/e2e/eval_test.py
"""
import json
import os
import subprocess
import tempfile
import unittest

import spind

# Trained to retrieve: tools/testbed/README.md.
TESTBED = os.path.join(spind.ROOT, "tools/testbed/model")
EVAL = os.environ.get("SPIN_EVAL", os.path.join(spind.ROOT, "bazel-bin/tools/spin_eval"))


def evaluate(*args, model=spind.SMOLLM2, status=0):
    """({label: result}, table) of a run; with another status the error text."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "result.json")
        run = subprocess.run([EVAL, "--model", model, "--json", path, *args], capture_output=True, text=True,
                             timeout=900, env=spind.environment())
        if run.returncode != status:
            raise AssertionError(run.stdout + run.stderr)
        if status != 0:
            return run.stderr
        with open(path) as f:
            results = json.load(f)["results"]
        return {result["name"] + (f" {result['budget']}" if result["budget"] else ""): result
                for result in results}, run.stdout


class SmolLM2Test(unittest.TestCase):
    def test_logits_and_attention(self):
        results, table = evaluate("--algorithms", "quest", "--measure", "kl,recall", "--context", "512",
                                  "--documents", "2", "--batch", "2", "--forced", "12", "--recall-steps", "2",
                                  "--budgets", "64,512")
        for label in ("quest exact", "quest 512", "window 512", "oracle 512"):
            self.assertLess(results[label]["kl"]["mean_kl"], 1e-9, table)
            self.assertEqual(results[label]["kl"]["top1_agreement"], 1, table)
            self.assertAlmostEqual(results[label]["recall"]["mass"], 1, places=4)
        small = {name: results[f"{name} 64"] for name in ("quest", "window", "oracle")}
        for name, result in small.items():
            self.assertGreater(result["kl"]["mean_kl"], 0, name)
            self.assertLessEqual(result["recall"]["mass"], result["recall"]["oracle_mass"] + 1e-6, name)
        self.assertLess(small["oracle"]["kl"]["mean_kl"], small["quest"]["kl"]["mean_kl"], table)
        self.assertLess(small["quest"]["kl"]["mean_kl"], 2, table)

    def test_a_needle_is_found_with_the_budget_for_it(self):
        results, table = evaluate("--algorithms", "quest", "--measure", "tasks", "--tasks", "niah_single_1",
                                  "--context", "400", "--samples", "2", "--batch", "2", "--budgets", "400",
                                  "--controls", "exact")
        self.assertEqual(results["dense"]["task_mean"], 1, table)
        self.assertEqual(results["quest exact"]["tasks"], results["dense"]["tasks"])
        self.assertEqual(results["quest 400"]["tasks"], results["dense"]["tasks"])

    def test_refusals_name_what_is_wrong(self):
        self.assertIn("--budgets", evaluate("--budgets", "few", status=2))
        self.assertIn("needle", evaluate("--measure", "tasks", "--tasks", "needle", status=2))


class TestbedTest(unittest.TestCase):
    def test_answers_are_right_where_their_place_is_attended_to(self):
        results, table = evaluate("--measure", "tasks,greedy", "--algorithms", "quest", "--context", "1024",
                                  "--samples", "2", "--documents", "2", "--greedy-tokens", "16", "--budgets",
                                  "64,2048", model=TESTBED)
        self.assertEqual(len(results["dense"]["tasks"]), 5)
        for label in ("dense", "quest exact", "quest 2048", "window 2048", "oracle 2048"):
            self.assertEqual(results[label]["task_mean"], 1, table)
            self.assertEqual(results[label]["greedy"]["identical"], 1, table)
        self.assertLess(results["window 64"]["task_mean"], 0.5, table)
        self.assertGreaterEqual(results["oracle 64"]["task_mean"], results["window 64"]["task_mean"], table)

    def test_default_budgets_are_within_a_point_of_dense(self):
        """The slice of docs/quality.md that a machine without a GPU can afford."""
        results, table = evaluate("--measure", "tasks", "--context", "8192", "--samples", "1",
                                  "--algorithms", "quest,shadowkv,seer,retroinfer", "--budgets", "auto",
                                  "--controls", "window", "--set", f"sparse.seer.gates={TESTBED}/gates.safetensors",
                                  model=TESTBED)
        self.assertEqual(results["dense"]["task_mean"], 1, table)
        names = {result["name"] for result in results.values()}
        self.assertEqual(names, {"dense", "quest", "shadowkv", "seer", "retroinfer", "window"}, table)
        for label, result in results.items():
            if result["name"] == "window":
                self.assertLess(result["task_mean"], 0.5, table)
            else:
                self.assertGreaterEqual(result["task_mean"], 0.99, label + table)


if __name__ == "__main__":
    unittest.main()
