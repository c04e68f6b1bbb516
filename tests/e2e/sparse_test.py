#!/usr/bin/env python3
"""Sparse attention and the two tiers from outside, in float32, where the identities are bit for bit.

usage: tools/test tests/e2e/sparse_test.py
"""
import array
import concurrent.futures
import json
import math
import os
import random
import tempfile
import unittest

import openai

import spind

QUEST = {"sparse.algorithm": "quest", "sparse.budget_tokens": 256}
SHADOWKV = {"sparse.algorithm": "shadowkv", "sparse.shadowkv.outlier_pages": 8,
            "sparse.shadowkv.min_budget_tokens": 256}
# Gates of SmolLM2.
SEER = {"sparse.algorithm": "seer", "sparse.budget_tokens": 256,
        "sparse.seer.gates": os.path.join(spind.ROOT, "configs/gates/smollm2-135m-instruct.safetensors")}
RETROINFER = {"sparse.algorithm": "retroinfer", "sparse.retroinfer.min_budget_tokens": 0}
TIERED = {"memory.placement": "tiered", "memory.max_buffer_ratio": 2}  # no more slots than it starts with
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


def write_random_gates(path, layers, kv_heads, group, d, block):
    """A file as tools/testbed/gates.py writes it, float32."""
    rng, header, data = random.Random(1), {}, bytearray()
    for layer in range(layers):
        shapes = {"wq": [kv_heads, group, d, d], "wk": [kv_heads, 3 * d, d], "q_norm": [d], "k_norm": [d]}
        for name, shape in shapes.items():
            center = 1 if name.endswith("norm") else 0
            values = array.array("f", (center + 0.1 * rng.uniform(-1, 1) for _ in range(math.prod(shape))))
            begin = len(data)
            data += values.tobytes()
            header[f"layers.{layer}.{name}"] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, len(data)]}
    header["__metadata__"] = {"format": "seer_attention_gates", "block": str(block), "gate_dim": str(d),
                              "use_norm": "true"}
    text = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text + data)


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
        for settings in ({"memory.min_buffer_ratio": 0, "memory.max_buffer_ratio": 0},
                         {"memory.eviction": "last_step"}, {"memory.eviction": "none"}):
            with self.subTest(settings=settings):
                (long,), counters = ask(self.MODEL, self.SPARSE | TIERED | settings, LONG)
                self.assertEqual(long, self.sparse_long)
                self.assertGreaterEqual(counters["misses"], kept["misses"])

    def test_slots_that_are_lent_change_traffic_but_no_answer(self):
        _, kept = ask(self.MODEL, self.SPARSE | TIERED, LONG)
        (long,), counters = ask(self.MODEL, self.SPARSE | TIERED | {"memory.max_buffer_ratio": 64}, LONG)
        self.assertEqual(long, self.sparse_long)
        self.assertLess(counters["evictions"], kept["evictions"])
        self.assertLessEqual(counters["misses"], kept["misses"])

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


class SeerTest(unittest.TestCase):
    """SeerAttention-R with random gates: the identities that hold whatever the gates choose."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        gates = os.path.join(cls.folder.name, "gates.safetensors")
        write_random_gates(gates, layers=3, kv_heads=2, group=3, d=64, block=32)
        cls.settings = {"sparse.algorithm": "seer", "sparse.seer.gates": gates, "sparse.budget_tokens": 256}
        (cls.dense_long, cls.dense_short), _ = ask(spind.TINY_LLAMA, RESIDENT, LONG, SHORT)
        (cls.seer_long, cls.seer_short), _ = ask(spind.TINY_LLAMA, cls.settings | RESIDENT, LONG, SHORT)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def test_a_sparse_step_leaves_something_out_but_not_within_the_budget(self):
        self.assertNotEqual(self.seer_long, self.dense_long)
        self.assertEqual(self.seer_short, self.dense_short)

    def test_tiered_equals_resident_and_fetches_pages(self):
        (long, short), counters = ask(spind.TINY_LLAMA, self.settings | TIERED, LONG, SHORT)
        self.assertEqual((long, short), (self.seer_long, self.seer_short))
        self.assertGreater(counters["hits"], 0)
        self.assertGreater(counters["misses"], 0)

    def test_exact_mode_equals_dense(self):
        (long, short), _ = ask(spind.TINY_LLAMA, self.settings | EXACT | TIERED, LONG, SHORT)
        self.assertEqual((long, short), (self.dense_long, self.dense_short))

    def test_a_threshold_spares_what_the_budget_has_room_for(self):
        computed, spared = {}, {}
        for placement in ("resident", "tiered"):
            with spind.Spind(spind.TINY_LLAMA, spind.SMALL_POOLS | self.settings | {
                    "model.dtype": "float32", "sparse.seer.threshold": 0.05,
                    "memory.placement": placement}) as server:
                answer = server.complete(LONG, OUTPUT, spin_usage=True)
                server.wait_idle()
                computed[placement] = spind.what_was_computed(answer)
                spared[placement] = server.metric("spin:spared_pages_total")
            # Of 8 blocks of 32, in 3 layers of 2 heads; the tail is as full as it is.
            steps = range(len(LONG) + 1, len(LONG) + OUTPUT)
            most = sum(7 * 32 + (length - 1) % 32 + 1 for length in steps) / len(steps)
            self.assertAlmostEqual(answer["usage"]["spin"]["attended_tokens"],
                                   most - spared[placement] * 32 / (6 * len(steps)), places=6)
            self.assertTrue(0 < spared[placement] < 6 * 6 * len(steps), spared)
        self.assertEqual(computed["tiered"], computed["resident"])
        self.assertEqual(spared["tiered"], spared["resident"])
        self.assertNotEqual(computed["tiered"], self.seer_long)


class RetroInferTest(unittest.TestCase):
    """It stores tokens in another order: its exact mode equals dense within rounding (tests/models)."""

    @classmethod
    def setUpClass(cls):
        (cls.dense_long, cls.dense_short), _ = ask(spind.TINY_LLAMA, RESIDENT, LONG, SHORT)
        (cls.retro_long, cls.retro_short), _ = ask(spind.TINY_LLAMA, RETROINFER | RESIDENT, LONG, SHORT)

    def test_a_sparse_step_leaves_something_out_but_not_what_is_in_no_cluster(self):
        self.assertNotEqual(self.retro_long, self.dense_long)
        self.assertEqual(self.retro_short, self.dense_short)

    def test_tiered_equals_resident_and_fetches_pages(self):
        (long, short), counters = ask(spind.TINY_LLAMA, RETROINFER | TIERED, LONG, SHORT)
        self.assertEqual((long, short), (self.retro_long, self.retro_short))
        self.assertGreater(counters["hits"], counters["misses"])
        self.assertGreater(counters["misses"], 0)

    def test_a_request_may_be_exact_but_has_no_budget_of_its_own(self):
        settings = spind.SMALL_POOLS | RETROINFER | {"sparse.max_budget_tokens": 4096}
        with spind.Spind(spind.TINY_LLAMA, settings) as server:
            status, _, answer = server.post("/v1/completions", {"prompt": SHORT, "sparse": {"budget_tokens": 512}})
            self.assertEqual(status, 400)
            self.assertEqual(answer["error"]["message"],
                             "sparse: this server's algorithm has one budget, the same for all requests, or exact, "
                             "which attends to everything")
            exact = [spind.what_was_computed(server.complete(LONG, OUTPUT, sparse=sparse))
                     for sparse in ({"exact": True}, {"algorithm": "dense"})]
        with spind.Spind(spind.TINY_LLAMA, spind.SMALL_POOLS | RETROINFER | EXACT) as server:
            self.assertEqual(exact, 2 * [spind.what_was_computed(server.complete(LONG, OUTPUT))])


class OwnBudgetTest(unittest.TestCase):
    """Requests that say themselves how much they attend to, beside others that do not."""
    ROOM = {"sparse.max_budget_tokens": 4096}

    def answers(self, settings, **more):
        with spind.Spind(spind.TINY_LLAMA, spind.SMALL_POOLS | {"model.dtype": "float32"} | settings) as server:
            return spind.what_was_computed(server.complete(LONG, OUTPUT, **more))

    def refused(self, server, sparse, **more):
        status, _, answer = server.post("/v1/completions", {"prompt": LONG, "max_tokens": 8, "sparse": sparse} | more)
        self.assertEqual(status, 400)
        self.assertEqual(answer["error"]["param"], "sparse")
        self.assertEqual(answer["error"]["type"], "invalid_request_error")
        return answer["error"]["message"]

    def test_a_request_equals_a_server_with_its_budget(self):
        wanted = {None: self.answers(QUEST)} | {
            budget: self.answers(QUEST | {"sparse.budget_tokens": budget}) for budget in (128, 1024)}
        dense = self.answers({})
        for placement in (RESIDENT, TIERED):
            settings = spind.SMALL_POOLS | {"model.dtype": "float32"} | QUEST | self.ROOM | placement
            with self.subTest(placement=placement), spind.Spind(spind.TINY_LLAMA, settings) as server:
                with concurrent.futures.ThreadPoolExecutor() as threads:
                    ask = lambda **more: threads.submit(server.complete, LONG, OUTPUT, **more)
                    running = {budget: ask(sparse={"budget_tokens": budget} if budget else None) for budget in wanted}
                    exact, by_name = ask(sparse={"exact": True}), ask(sparse={"algorithm": "dense"})
                    for budget, answer in running.items():
                        self.assertEqual(spind.what_was_computed(answer.result()), wanted[budget], budget)
                    self.assertEqual(spind.what_was_computed(exact.result()), dense)
                    self.assertEqual(spind.what_was_computed(by_name.result()), dense)

    def test_the_openai_client_sends_it_and_the_summary_shows_it(self):
        with spind.Spind(spind.TINY_LLAMA, spind.SMALL_POOLS | QUEST | self.ROOM | TIERED) as server, openai.OpenAI(
                base_url=server.url + "/v1", api_key="none", max_retries=0) as client:
            spin = {}
            for budget in (64, 1024):
                spin[budget] = client.completions.create(
                    model="llama_gqa3_llama3rope", prompt=LONG, max_tokens=16, extra_body={
                        "ignore_eos": True, "spin_usage": True, "sparse": {"budget_tokens": budget}}).usage.spin
                # The tail page is as full as it is.
                self.assertTrue(budget - 16 < spin[budget]["attended_tokens"] <= budget, spin[budget])
            with self.assertRaises(openai.BadRequestError) as caught:
                client.completions.create(model="llama_gqa3_llama3rope", prompt=LONG, max_tokens=16,
                                          extra_body={"sparse": {"budget_tokens": 8192}})
            self.assertEqual(caught.exception.param, "sparse")

    def test_refusals_name_the_limit(self):
        with spind.Spind(spind.TINY_LLAMA, spind.SMALL_POOLS | QUEST) as server:
            self.assertEqual(
                self.refused(server, {"budget_tokens": 512}),
                "sparse: budget_tokens must be between 48 and 256 (sparse.max_budget_tokens), not 512")
            self.assertEqual(
                self.refused(server, {"exact": True}),
                "sparse: exact needs a budget for all 2008 tokens of prompt and output; this server's goes to 256 "
                "(sparse.max_budget_tokens)")
            self.assertEqual(
                self.refused(server, {"algorithm": "shadowkv"}),
                "sparse: algorithm 'shadowkv' needs another layout of the cache than this server's 'quest'; a request "
                "may ask for that or for 'dense'")
            self.assertEqual(self.refused(server, {"exact": True, "budget_tokens": 64}),
                             "sparse: exact attention has no budget_tokens; give one of the two")
            self.assertEqual(self.refused(server, 256), "Invalid 'sparse': it must be an object.")
            server.complete(SHORT, 8, sparse={"exact": True})  # within the server's own budget
        with spind.Spind(spind.TINY_LLAMA, spind.SMALL_POOLS) as server:
            self.assertEqual(self.refused(server, {"budget_tokens": 256}), "sparse: this server attends to the whole "
                             "context: there is no budget_tokens to choose")
            server.complete(SHORT, 8, sparse={"exact": True})

    def test_a_limit_below_the_servers_own_budget_is_refused_at_start(self):
        status, _, errors = spind.command_output("--model", spind.TINY_LLAMA, "--check-config", "--set",
                                                 "sparse.algorithm=quest", "--set", "sparse.max_budget_tokens=512")
        self.assertNotEqual(status, 0)
        self.assertIn("sparse.max_budget_tokens: 512 is less than the 2048 that a step selects by itself", errors)


class RealModelTest(unittest.TestCase):
    def test_tiered_equals_resident_on_text(self):
        text = "".join(f"Item {i}: the {colour} box holds {i * 7 % 31} {thing}. " for i, (colour, thing) in enumerate(
            (colour, thing) for colour in ("red", "green", "blue", "grey", "black") for thing in (
                "coins", "keys", "pens", "nails", "cups", "books", "maps", "rings", "shells", "stones")))
        prompt = text * 2 + "\nThe red box holds"
        for sparse in (QUEST, SHADOWKV, SEER, RETROINFER):
            with self.subTest(sparse=sparse):
                (resident,), counters = ask(spind.SMOLLM2, sparse | RESIDENT, prompt, pools=spind.POOLS, output=16)
                self.assertEqual(counters["misses"], 0)
                (tiered,), counters = ask(spind.SMOLLM2, sparse | TIERED, prompt, pools=spind.POOLS, output=16)
                self.assertEqual(tiered, resident)
                self.assertGreater(counters["misses"], 0)
                self.assertGreater(counters["hits"], 0)


if __name__ == "__main__":
    unittest.main()
