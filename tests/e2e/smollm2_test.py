#!/usr/bin/env python3
"""The real SmolLM2-135M-Instruct against transformers: log-probabilities of real text, and what it writes next.

Through the server: tokenizer, prefill, decode. testdata/make_smollm2_golden.py records what is expected. Standard
library alone, so that tools/gpu/run can bring it to a machine with a GPU.

usage: tools/test tests/e2e/smollm2_test.py
Environment: SPIN_TEST_DEVICE (cpu), SPIN_MODEL_DIR (where the model is).
"""
import json
import os
import sys
import unittest

import spind

DEVICE = os.environ.get("SPIN_TEST_DEVICE", "cpu")
DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "testdata/smollm2")
# On a GPU the budget is the whole process's.
POOLS = spind.POOLS if DEVICE == "cpu" else {"memory.hbm_budget": "6GiB", "memory.host_pool": "1GiB"}


def golden_cases():
    with open(os.path.join(DATA, "golden.json")) as f:
        golden = json.load(f)
    for name, case in golden.items():
        with open(os.path.join(DATA, name + ".txt"), encoding="utf-8") as f:
            yield name, f.read(), case


class SmolLm2Test(unittest.TestCase):
    def check(self, dtype, tolerance):
        """`tolerance` of a recorded bfloat16 error: how far the worst and the mean log-probability may be."""
        with spind.Spind(spind.SMOLLM2, POOLS | {"model.dtype": dtype, "backend.device": DEVICE}) as server:
            for name, text, case in golden_cases():
                with self.subTest(dtype=dtype, text=name):
                    answer = server.complete(text, len(case["greedy"]["tokens"]), prompt_logprobs=20)["choices"][0]
                    self.assertEqual(answer["prompt_token_ids"], case["tokens"])
                    self.check_prompt(f"{dtype}, {name}", answer["prompt_logprobs"], case, tolerance)
                    self.check_top(answer["prompt_logprobs"], case, tolerance)
                    self.check_greedy(answer, case["greedy"], tolerance(case["bf16_error"])[0])

    def check_prompt(self, name, given, case, tolerance):
        """Each token of the text after the first."""
        self.assertEqual(len(given), len(case["tokens"]))
        errors = [abs(given[i + 1][str(token)]["logprob"] - wanted)
                  for i, (token, wanted) in enumerate(zip(case["tokens"][1:], case["logprobs"]))]
        worst, mean = max(errors), sum(errors) / len(errors)
        print(f"{name}: {len(errors)} tokens, worst error {worst:.5f}, mean {mean:.6f} "
              f"(bfloat16 of transformers: {case['bf16_error']['worst']:.5f}, {case['bf16_error']['mean']:.6f})",
              file=sys.stderr)
        most, most_mean = tolerance(case["bf16_error"])
        self.assertLessEqual(worst, most)
        self.assertLessEqual(mean, most_mean)

    def check_top(self, given, case, tolerance):
        """The 20 most probable tokens at some places. Near the twentieth, others may take a place."""
        most, most_mean = tolerance(case["top_bf16_error"])
        errors = []
        for place, tokens, logprobs in zip(case["top_places"], case["top_tokens"], case["top_logprobs"]):
            for token, wanted in zip(tokens, logprobs):
                entry = given[place + 1].get(str(token))
                if entry is None:
                    self.assertLess(wanted, logprobs[-1] + 2 * most, f"place {place}: token {token} is missing")
                else:
                    errors.append(abs(entry["logprob"] - wanted))
        self.assertGreater(len(errors), 19 * len(case["top_places"]))
        self.assertLessEqual(max(errors), most)
        self.assertLessEqual(sum(errors) / len(errors), most_mean)

    def check_greedy(self, answer, greedy, tolerance):
        """Equal tokens as long as the best two differ by more than two errors; after a tie the texts may part."""
        for i, token in enumerate(greedy["tokens"]):
            if answer["token_ids"][i] != token:
                self.assertLessEqual(greedy["gaps"][i], 2 * tolerance, f"token {i}")
                return
            self.assertLessEqual(abs(answer["logprobs"]["token_logprobs"][i] - greedy["logprobs"][i]), tolerance)

    def test_float32(self):
        self.check("float32", lambda _: (1e-3, 1e-4))

    def test_bfloat16(self):
        self.check("bfloat16", lambda error: (max(0.03, error["worst"]), max(0.01, error["mean"])))


if __name__ == "__main__":
    unittest.main()
