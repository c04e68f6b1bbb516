#!/usr/bin/env python3
"""What a running server tells of itself: stages, bytes and placement in /metrics, and a request's own summary.

usage: tools/test tests/e2e/observe_test.py
"""
import json
import os
import re
import unittest

import openai

import spind

QUEST = {"sparse.algorithm": "quest", "sparse.budget_tokens": 256}
TIERED = {"memory.placement": "tiered", "memory.max_buffer_ratio": 2}
RETROINFER = {"sparse.algorithm": "retroinfer", "sparse.budget_tokens": "auto"}
SAMPLED = {"observability.stage_sample_period": 4}
STAGES = ("index", "select", "lookup", "append", "gather", "attention", "rest")

PROMPT, OUTPUT = spind.token_prompt(2000), 48
LAYERS, KV_HEADS, HEAD_DIM, PAGE = 3, 2, 64, 16  # of TINY_LLAMA under Quest, in bfloat16
PAGE_BYTES = 2 * PAGE * HEAD_DIM * 2


def start(test, **settings):
    server = spind.Spind(spind.TINY_LLAMA, spind.SMALL_POOLS | QUEST | settings)
    test.addCleanup(server.stop)
    return server


def attended(length, budget_pages=256 // PAGE):
    """Tokens that a KV head attends to in a step of a sequence of `length`, the new one among them."""
    pages = -(-length // PAGE)
    return min(pages, budget_pages) * PAGE - (pages * PAGE - length)


def moved_bytes(server, before=None):
    """By stage, since `before`."""
    names = ("index", "select", "estimate", "retrieve", "attention", "offload", "spill")
    return {name: server.metric(f"spin:{name}_bytes_total") - (before[name] if before else 0) for name in names}


class MetricsTest(unittest.TestCase):
    def test_stages_of_sampled_steps_are_timed(self):
        server = start(self, **TIERED, **SAMPLED)
        steps, batches = (server.metric("spin:stage_samples_total", phase=phase) for phase in ("decode", "prefill"))
        server.complete(PROMPT, OUTPUT)
        server.wait_idle()
        self.assertAlmostEqual(server.metric("spin:stage_samples_total", phase="decode") - steps, OUTPUT / 4, delta=1)
        self.assertEqual(server.metric("spin:stage_samples_total", phase="prefill") - batches, 1)
        for stage in STAGES:
            self.assertGreater(server.metric("spin:stage_seconds_total", phase="decode", stage=stage), 0, stage)
        for stage in ("index", "offload"):
            self.assertGreater(server.metric("spin:stage_seconds_total", phase="prefill", stage=stage), 0, stage)

    def test_sampling_changes_no_answer_and_may_be_off(self):
        answers = []
        for settings in (SAMPLED, {"observability.stage_sample_period": 0}):
            server = start(self, **TIERED, **settings)
            answers.append(spind.what_was_computed(server.complete(PROMPT, OUTPUT)))
        self.assertEqual(*answers)
        self.assertEqual(server.metric("spin:stage_samples_total"), 0)

    def test_bytes_are_what_lengths_and_lookups_say(self):
        server = start(self, **TIERED)
        before = moved_bytes(server)
        misses = server.metric("spin:retrieve_misses_total")
        server.complete(PROMPT, OUTPUT)
        server.wait_idle()
        moved = moved_bytes(server, before)
        lengths = range(len(PROMPT) + 1, len(PROMPT) + OUTPUT)
        token_bytes = LAYERS * KV_HEADS * PAGE_BYTES / PAGE
        summary_bytes = LAYERS * KV_HEADS * 2 * HEAD_DIM * 2
        self.assertEqual(moved["attention"], token_bytes * sum(attended(length) for length in lengths))
        self.assertEqual(moved["select"], summary_bytes * sum(-(-length // PAGE) for length in lengths))
        self.assertEqual(moved["estimate"], 0)
        self.assertEqual(moved["index"], summary_bytes * (-(-len(PROMPT) // PAGE) + len(lengths)))
        self.assertEqual(moved["offload"], token_bytes * (len(PROMPT) + len(lengths)))
        self.assertEqual(moved["spill"], 0)
        self.assertEqual(moved["retrieve"], (server.metric("spin:retrieve_misses_total") - misses) * PAGE_BYTES)

    def test_of_clusters_their_mean_size_and_their_centroids_count(self):
        server = start(self, **TIERED, **RETROINFER)
        before = moved_bytes(server)
        spin = server.complete(PROMPT, OUTPUT, spin_usage=True)["usage"]["spin"]
        server.wait_idle()
        lengths = range(len(PROMPT) + 1, len(PROMPT) + OUTPUT)
        self.assertTrue(all((length - 64) // 512 == 3 for length in lengths))
        # 96 clusters of 1,536 tokens, the first page not among them: 92 (2,048 tokens less 584, in 16s) are retrieved.
        attended = [length - 1528 + 92 * 1528 // 96 for length in lengths]
        self.assertAlmostEqual(spin["attended_tokens"], sum(attended) / len(lengths), places=9)
        moved = moved_bytes(server, before)
        streams, key = LAYERS * KV_HEADS, HEAD_DIM * 2
        record = 2 * key + 8
        self.assertEqual(moved["attention"], streams * sum(attended) * 2 * key)
        self.assertEqual(moved["select"], streams * len(lengths) * 96 * key)
        self.assertEqual(moved["estimate"], streams * len(lengths) * 4 * record)
        self.assertEqual(moved["index"], streams * 96 * record)

    def test_every_family_is_documented_and_nothing_else(self):
        server = start(self, **TIERED)
        exported = set(re.findall(r"^# TYPE (\S+) ", server.metrics_text(), re.MULTILINE))
        with open(os.path.join(spind.ROOT, "docs/metrics.md")) as f:
            page = f.read()
        shared = re.search(r"under both prefixes.*?Names", page, re.DOTALL)[0]
        documented = set(re.findall(r"`((?:spin|vllm):\w+)`", page))
        for name in re.findall(r"`(\w+)`", shared):
            documented |= {"spin:" + name, "vllm:" + name}
        self.assertEqual(exported, documented)

    def test_placement_and_slots_of_what_runs(self):
        server = start(self, **TIERED)
        with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as client:
            stream = client.completions.create(model="llama_gqa3_llama3rope", prompt=PROMPT, max_tokens=4000,
                                               temperature=0, stream=True, extra_body={"ignore_eos": True})
            for _ in zip(range(3), stream):
                pass
            self.assertEqual(server.metric("spin:sequences", placement="tiered"), 1)
            self.assertGreater(server.metric("spin:sequence_tokens", placement="tiered"), len(PROMPT))
            self.assertEqual(server.metric("spin:sequence_tokens", placement="resident"), 0)
            # The budget, and twice what is chosen by score: all but the first and the last page.
            self.assertEqual(server.metric("spin:tiered_slots", use="mandatory"), LAYERS * KV_HEADS * 16)
            self.assertEqual(server.metric("spin:tiered_slots", use="buffering"), LAYERS * KV_HEADS * 28)
            stream.close()
        server.wait_idle()
        self.assertEqual(server.metric("spin:tiered_slots"), 0)


class SummaryTest(unittest.TestCase):
    def test_a_tiered_request_tells_what_it_was_served_from(self):
        server = start(self, **TIERED)
        before = {name: server.metric(f"spin:retrieve_{name}_total") for name in ("hits", "misses", "bytes")}
        usage = server.complete(PROMPT, OUTPUT, spin_usage=True)["usage"]
        server.wait_idle()
        counted = {name: server.metric(f"spin:retrieve_{name}_total") - was for name, was in before.items()}
        self.assertEqual(usage["completion_tokens"], OUTPUT)
        spin = usage["spin"]
        self.assertEqual(spin["placement"], "tiered")
        self.assertEqual(spin["demotions"], 0)
        self.assertEqual(spin["context_tokens"], len(PROMPT) + OUTPUT)
        self.assertEqual(spin["fetched_bytes"], counted["bytes"])
        self.assertAlmostEqual(spin["hit_ratio"], counted["hits"] / (counted["hits"] + counted["misses"]), places=9)
        lengths = range(len(PROMPT) + 1, len(PROMPT) + OUTPUT)
        self.assertAlmostEqual(spin["attended_tokens"], sum(map(attended, lengths)) / len(lengths), places=9)
        for name in ("queue_ms", "prefill_ms", "decode_ms"):
            self.assertGreaterEqual(spin[name], 0, name)
        self.assertGreater(spin["decode_ms"], 0)

    def test_requests_side_by_side_are_told_apart(self):
        server = start(self, **TIERED)
        alone = server.complete(PROMPT, OUTPUT, spin_usage=True)["usage"]["spin"]
        both = server.complete([PROMPT, spind.token_prompt(1000, seed=5)], OUTPUT, spin_usage=True)["usage"]["spin"]
        again = server.complete(PROMPT, OUTPUT, spin_usage=True)["usage"]["spin"]
        for name in ("fetched_bytes", "hit_ratio", "attended_tokens", "context_tokens"):
            self.assertEqual(again[name], alone[name], name)
        self.assertGreater(both["fetched_bytes"], alone["fetched_bytes"])
        self.assertEqual(both["context_tokens"], alone["context_tokens"])

    def test_a_resident_stream_ends_with_it(self):
        server = start(self)
        with openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0) as client:
            chunks = list(client.completions.create(
                model="llama_gqa3_llama3rope", prompt=PROMPT, max_tokens=8, temperature=0, stream=True,
                extra_body={"ignore_eos": True, "spin_usage": True}))
        self.assertEqual(chunks[-1].choices, [])
        spin = chunks[-1].usage.spin
        self.assertEqual(spin["placement"], "resident")
        self.assertIsNone(spin["hit_ratio"])
        self.assertEqual(spin["fetched_bytes"], 0)
        self.assertTrue(all(chunk.usage is None for chunk in chunks[:-1]))

    def test_without_asking_there_is_none(self):
        usage = start(self).complete(PROMPT, 4)["usage"]
        self.assertNotIn("spin", usage)

    def test_it_is_asked_by_a_boolean(self):
        status, _, answer = start(self).post("/v1/completions", {"prompt": [1, 2], "spin_usage": "yes"})
        self.assertEqual(status, 400)
        self.assertEqual(answer["error"]["param"], "spin_usage", json.dumps(answer))


if __name__ == "__main__":
    unittest.main()
