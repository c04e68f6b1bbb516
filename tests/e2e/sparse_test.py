#!/usr/bin/env python3
"""Sparse attention and the two tiers from outside, in float32, where the identities are bit for bit.

usage: tools/test tests/e2e/sparse_test.py
"""
import unittest

import spind

QUEST = {"sparse.algorithm": "quest", "sparse.budget_tokens": 256}
SHADOWKV = {"sparse.algorithm": "shadowkv", "sparse.shadowkv.outlier_pages": 8}
TIERED = {"memory.placement": "tiered"}
RESIDENT = {"memory.placement": "resident"}
EXACT = {"sparse.exact": "true"}

LONG, SHORT = spind.token_prompt(2000), spind.token_prompt(200, seed=2)
OUTPUT = 48


def ask(model, settings, *prompts, pools=spind.SMALL_POOLS, output=OUTPUT):
    """(what was computed for each prompt, retrieve counters)"""
    with spind.Spind(model, pools | {"model.dtype": "float32"} | settings) as server:
        answers = [spind.what_was_computed(server.complete(prompt, output)) for prompt in prompts]
        server.wait_idle()
        names = ("hits", "misses", "bytes")
        return answers, {name: server.metric(f"spin:retrieve_{name}_total") for name in names} | {
            "evictions": server.metric("spin:evictions_total")}


class SmallModelTest(unittest.TestCase):
    MODEL = spind.TINY_LLAMA
    SPARSE = QUEST

    @classmethod
    def setUpClass(cls):
        (cls.dense_long, cls.dense_short), counters = ask(cls.MODEL, RESIDENT, LONG, SHORT)
        assert not any(counters.values()), counters
        (cls.sparse_long, cls.sparse_short), counters = ask(cls.MODEL, cls.SPARSE | RESIDENT, LONG, SHORT)
        assert not any(counters.values()), counters

    def test_a_sparse_step_leaves_something_out(self):
        self.assertNotEqual(self.sparse_long, self.dense_long)

    def test_a_prompt_within_the_budget_equals_dense(self):
        self.assertEqual(self.sparse_short, self.dense_short)

    def test_tiered_equals_resident_and_fetches_pages(self):
        (long, short), counters = ask(self.MODEL, self.SPARSE | TIERED, LONG, SHORT)
        self.assertEqual(long, self.sparse_long)
        self.assertEqual(short, self.dense_short)
        for name, value in counters.items():
            self.assertGreater(value, 0, name)
        self.assertGreater(counters["hits"], counters["misses"])

    def test_a_smaller_buffer_and_other_evictions_change_traffic_but_no_answer(self):
        _, kept = ask(self.MODEL, self.SPARSE | TIERED, LONG)
        for settings in ({"memory.min_buffer_ratio": 0}, {"memory.eviction": "last_step"}, {"memory.eviction": "none"}):
            with self.subTest(settings=settings):
                (long,), counters = ask(self.MODEL, self.SPARSE | TIERED | settings, LONG)
                self.assertEqual(long, self.sparse_long)
                self.assertGreaterEqual(counters["misses"], kept["misses"])

    def test_exact_mode_equals_dense_in_both_tiers(self):
        for placement in (RESIDENT, TIERED):
            (long, short), _ = ask(self.MODEL, self.SPARSE | EXACT | placement, LONG, SHORT)
            self.assertEqual(long, self.dense_long)
            self.assertEqual(short, self.dense_short)

    def test_dense_in_the_host_tier_equals_dense(self):
        (long, short), _ = ask(self.MODEL, TIERED, LONG, SHORT)
        self.assertEqual(long, self.dense_long)
        self.assertEqual(short, self.dense_short)

    def test_dense_layers_are_dense(self):
        (long,), _ = ask(self.MODEL, self.SPARSE | {"sparse.quest.dense_layers": 3}, LONG)
        self.assertEqual(long, self.dense_long)
        (long,), _ = ask(self.MODEL, self.SPARSE | {"sparse.quest.dense_layers": 1}, LONG)
        self.assertNotIn(long, (self.dense_long, self.sparse_long))


class SmallQwen3Test(SmallModelTest):
    MODEL = spind.TINY_QWEN3

    def test_dense_layers_are_dense(self):
        (long,), _ = ask(self.MODEL, self.SPARSE | {"sparse.quest.dense_layers": 2}, LONG)
        self.assertEqual(long, self.dense_long)


class SmallShadowKvTest(SmallModelTest):
    SPARSE = SHADOWKV
    test_dense_layers_are_dense = None  # it has none


class RealModelTest(unittest.TestCase):
    def test_tiered_equals_resident_on_text(self):
        text = "".join(f"Item {i}: the {colour} box holds {i * 7 % 31} {thing}. " for i, (colour, thing) in enumerate(
            (colour, thing) for colour in ("red", "green", "blue", "grey", "black") for thing in (
                "coins", "keys", "pens", "nails", "cups", "books", "maps", "rings", "shells", "stones")))
        prompt = text * 2 + "\nThe red box holds"
        for sparse in (QUEST, SHADOWKV):
            with self.subTest(sparse=sparse):
                (resident,), counters = ask(spind.SMOLLM2, sparse | RESIDENT, prompt, pools=spind.POOLS, output=16)
                self.assertEqual(counters["misses"], 0)
                (tiered,), counters = ask(spind.SMOLLM2, sparse | TIERED, prompt, pools=spind.POOLS, output=16)
                self.assertEqual(tiered, resident)
                self.assertGreater(counters["misses"], 0)
                self.assertGreater(counters["hits"], 0)


if __name__ == "__main__":
    unittest.main()
