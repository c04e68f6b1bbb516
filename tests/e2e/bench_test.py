#!/usr/bin/env python3
"""The load client against a real server without tokenizer: both protocols, exact lengths, report, figure.

usage: tools/test tests/e2e/bench_test.py
"""
import json
import os
import subprocess
import sys
import tempfile
import unittest

import spind

BENCH = os.environ.get("SPIN_BENCH", os.path.join(spind.ROOT, "bazel-bin/tools/spin_bench"))
PLOT = os.path.join(spind.ROOT, "tools/bench/plot.py")
IDS = ["--token-ids", "--min-token-id", "3", "--max-token-id", "320", "--ignore-eos"]


class BenchTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = spind.Spind(spind.TINY_LLAMA, spind.POOLS)
        cls.addClassCleanup(cls.server.stop)

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def serve(self, *args, grpc=False, name="result.json", status=0):
        """(result, table, standard error)"""
        path = os.path.join(self.folder, name)
        address = ["--grpc", f"127.0.0.1:{self.server.grpc_port}"] if grpc else ["--url", self.server.url]
        run = subprocess.run([BENCH, "serve", *address, *IDS, "--output-json", path, *args], capture_output=True,
                             text=True, timeout=120)
        self.assertEqual(run.returncode, status, run.stdout + run.stderr)
        with open(path) as f:
            return json.load(f), run.stdout, run.stderr

    def test_both_protocols_send_and_receive_exactly_what_was_asked_for(self):
        for grpc in (False, True):
            with self.subTest(grpc=grpc):
                result, table, _ = self.serve("--input-len", "70", "--output-len", "9", "--num-prompts", "6",
                                              "--save-detailed", grpc=grpc)
                self.assertEqual(result["backend"], "grpc" if grpc else "openai")
                self.assertEqual((result["completed"], result["failed"]), (6, 0))
                self.assertEqual(result["input_lens"], [70] * 6)
                self.assertEqual(result["output_lens"], [9] * 6)
                self.assertEqual((result["total_input_tokens"], result["total_output_tokens"]), (420, 54))
                for start, ttft, gaps, e2e in zip(result["start_times"], result["ttfts"], result["itls"],
                                                  result["e2els"]):
                    self.assertGreater(ttft, 0)
                    self.assertLessEqual(len(gaps), 8)
                    self.assertAlmostEqual(ttft + sum(gaps), e2e)
                    self.assertLessEqual(start + e2e, result["duration"] + 1e-3)
                self.assertIn("Mean input tokens:                       70.00", table)

    def test_both_protocols_load_the_server_alike(self):
        before = self.server.metric("spin:prompt_tokens_total")
        lengths = [self.serve("--input-len", "lognormal:20-200,mean=60", "--output-len", "2-9", "--seed", "4",
                              "--num-warmups", "0", "--save-detailed", grpc=grpc)[0]
                   for grpc in (False, True)]
        self.assertEqual(lengths[0]["input_lens"], lengths[1]["input_lens"])
        self.assertEqual(lengths[0]["output_lens"], lengths[1]["output_lens"])
        self.assertGreater(len(set(lengths[0]["input_lens"])), 10)
        sent = sum(sum(result["input_lens"]) for result in lengths)
        self.assertEqual(self.server.metric("spin:prompt_tokens_total") - before, sent)

    def test_a_preset_is_scaled_and_cut_to_the_context(self):
        result, _, _ = self.serve("--preset", "longbench-v2", "--scale", "0.002", "--num-prompts", "12",
                                  "--max-model-len", "150", "--save-detailed")
        self.assertEqual(result["completed"], 12)
        for input_len, output_len in zip(result["input_lens"], result["output_lens"]):
            self.assertTrue(64 <= input_len <= 149)
            self.assertLessEqual(input_len + output_len, 150)

    def test_all_at_once_bursts_and_goodput(self):
        result, table, _ = self.serve("--request-rate", "inf", "--num-prompts", "10", "--input-len", "8",
                                      "--output-len", "4", "--goodput", "ttft:1e6", "--goodput", "e2el:1e6")
        self.assertEqual(result["max_concurrent_requests"], 10)
        self.assertEqual(result["goodput_share"], 1)
        self.assertAlmostEqual(result["request_goodput"], result["request_throughput"])
        self.assertIn("Request goodput (req/s):", table)
        result, _, _ = self.serve("--request-rate", "200", "--burstiness", "0.2", "--num-prompts", "10",
                                  "--input-len", "8", "--output-len", "4", "--goodput", "ttft:0", grpc=True)
        self.assertEqual((result["completed"], result["goodput_share"]), (10, 0))

    def test_what_the_server_refuses_is_counted_and_told(self):
        for grpc in (False, True):
            with self.subTest(grpc=grpc):
                result, _, error = self.serve("--input-len", "9000", "--num-prompts", "2", "--num-warmups", "0",
                                              status=1, grpc=grpc)
                self.assertEqual((result["completed"], result["failed"]), (0, 2))
                self.assertIn("first error: " + ("gRPC INVALID_ARGUMENT" if grpc else "HTTP 400"), error)

    def test_figures_are_drawn_from_the_results(self):
        paths = []
        for concurrency in (1, 4):
            self.serve("--concurrency", str(concurrency), "--num-prompts", "8", "--input-len", "20", "--output-len",
                       "6", "--save-detailed", name=f"{concurrency}.json")
            paths.append(os.path.join(self.folder, f"{concurrency}.json"))
        for results in (paths, paths[:1]):
            figure = os.path.join(self.folder, "figure.svg")
            subprocess.run([sys.executable, PLOT, "--output", figure, *results], check=True)
            with open(figure) as f:
                self.assertIn("20 tokens in, 6 out", f.read())


if __name__ == "__main__":
    unittest.main()
