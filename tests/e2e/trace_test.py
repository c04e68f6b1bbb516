#!/usr/bin/env python3
"""spin_bench trace and spin_bench step --selection, as their users call them.

usage: tools/test tests/e2e/trace_test.py
"""
import json
import os
import re
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree as ET

import spind

BENCH = os.environ.get("SPIN_BENCH", os.path.join(spind.ROOT, "bazel-bin/tools/spin_bench"))
PLOT = os.path.join(spind.ROOT, "tools/bench/plot_trace.py")
TRACE = os.path.join(spind.ROOT, "tools/bench/traces/smollm2-quest-8k.trace")
MODEL = ["--model", spind.TINY_LLAMA, "--set", "model.max_model_len=4096", "--set", "sparse.algorithm=quest",
         "--set", "sparse.budget_tokens=160", "--set", "memory.hbm_budget=64MiB", "--set", "memory.host_pool=48MiB",
         "--set", "memory.placement=tiered", "--set", "memory.min_buffer_ratio=1", "--set", "scheduler.max_num_seqs=4"]


def bench(*args):
    return subprocess.run([BENCH, *args], capture_output=True, text=True, timeout=300)


class TraceTest(unittest.TestCase):
    def test_a_replay_is_printed_and_drawn(self):
        with tempfile.TemporaryDirectory() as folder:
            result, figure = os.path.join(folder, "hits.json"), os.path.join(folder, "hits.svg")
            run = bench("trace", "replay", TRACE, "--buffer-ratio=1,2", "--warmup=100", f"--output-json={result}")
            self.assertEqual(run.returncode, 0, run.stderr)
            with open(result) as f:
                points = {(p["policy"], p["buffer_ratio"]): p for p in json.load(f)["points"]}
            subprocess.run([sys.executable, PLOT, "--output", figure, result], check=True)
            self.assertEqual(ET.parse(figure).getroot().tag, "{http://www.w3.org/2000/svg}svg")
        self.assertEqual(len(points), 10)
        rows = re.findall(r"^ +([12]) +(\d+) +([\d.]+) +([\d.]+) +([\d.]+) +([\d.]+) +([\d.]+)$", run.stdout, re.M)
        self.assertEqual([row[:2] for row in rows], [("1", "32"), ("2", "62")])
        for row in rows:
            for policy, shown in zip(("none", "last_step", "bucketed", "exact_lru", "belady"), row[2:]):
                self.assertEqual(shown, f"{100 * points[policy, float(row[0])]['hit_ratio']:.2f}")
        # One selection's slots hold one selection; twice as many serve better, and the future best.
        self.assertEqual(len({points[policy, 1]["hits"] for policy in ("last_step", "bucketed", "belady")}), 1)
        hits = [points[policy, 2]["hits"] for policy in ("none", "last_step", "bucketed", "exact_lru", "belady")]
        self.assertEqual(hits, sorted(hits))

    def test_wrong_arguments_are_explained(self):
        for args, part in [(["replay"], "needs a trace"), (["replay", TRACE, "--buffer-ratio=0.5"], "'0.5'"),
                           (["replay", TRACE, "--warmup=512"], "none of 512 steps"), (["play"], "no command 'play'"),
                           (["replay", __file__], "no selection trace"), (["record", "--text=x"], "--output=TRACE"),
                           (["record", f"--text={__file__}", "--output=/dev/null", *MODEL], "no tokenizer")]:
            with self.subTest(args=args):
                run = bench("trace", *args)
                self.assertEqual(run.returncode, 1)
                self.assertIn(part, run.stderr)

    def test_steps_side_by_side(self):
        run = bench("step", "--context=1000", "--batches=1,2", "--steps=20", "--warmup=20", "--selection=model,random",
                    *MODEL)
        self.assertEqual(run.returncode, 0, run.stderr)
        rows = re.findall(r"^ +(\d) +([\d.]+) +([\d.]+) +[\d.]+ +[\d.]+ +0 +(\d)  (\w+)$", run.stdout, re.M)
        self.assertEqual([(row[0], row[3], row[4]) for row in rows],
                         [("1", "1", "model"), ("1", "1", "random"), ("2", "2", "model"), ("2", "2", "random")])
        for model, random in (rows[:2], rows[2:]):
            # Ten of 62 pages at random: 18 slots seldom hold them.
            self.assertLess(float(random[1]), 60)
            self.assertLess(float(random[1]), float(model[1]))
            self.assertGreater(float(random[2]), float(model[2]))

    def test_selections_that_do_not_fit_are_refused(self):
        for args, part in [(["--selection=own"], "cannot read it"), (["--context=4090"], "model.max_model_len: 4096"),
                           (["--context=1000", f"--selection=trace:{TRACE}"], "fewer pages than the 512 of the trace"),
                           (["--context=200", "--selection=random"], "every page of 200 tokens")]:
            with self.subTest(args=args):
                run = bench("step", *args, *MODEL)
                self.assertNotEqual(run.returncode, 0)
                self.assertIn(part, run.stderr)


if __name__ == "__main__":
    unittest.main()
