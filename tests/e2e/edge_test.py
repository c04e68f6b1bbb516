#!/usr/bin/env python3
"""Seeded random requests at the edge of both budgets: every answer is right, and memory is as before.

Clients that leave at any moment, n > 1, streams, prompts up to the whole context and far beyond it, more requests at
once than either tier holds. Standard library alone, so that tools/gpu/run can bring it to a machine with a GPU.

usage: tools/test tests/e2e/edge_test.py
Environment: SPIN_TEST_DEVICE (cpu), SPIN_EDGE_REQUESTS (1,000), SPIN_EDGE_ARGUMENTS (more arguments of the server).
"""
import concurrent.futures
import contextlib
import http.client
import json
import os
import random
import shlex
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import spind

DEVICE = os.environ.get("SPIN_TEST_DEVICE", "cpu")
REQUESTS = int(os.environ.get("SPIN_EDGE_REQUESTS", 1000))
ARGUMENTS = shlex.split(os.environ.get("SPIN_EDGE_ARGUMENTS", ""))
CLIENTS = 24
GPU_GROWTH_MIB = 16  # what the driver may take for graphs; a leak of one page a request would be more
VOCAB = 320
MAX_N = 4

# Where HBM is the host's memory, the budget is the cache's alone; on a GPU weights, workspace and a reserve as well.
if DEVICE == "cpu":
    CONTEXT = 4096
    MODEL = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2,
             "num_key_value_heads": 1, "vocab_size": VOCAB}
    POOLS = {"memory.hbm_budget": "2500KiB", "memory.host_pool": "3MiB"}
else:
    CONTEXT = 16384
    MODEL = {"hidden_size": 1024, "intermediate_size": 2048, "num_hidden_layers": 8, "num_attention_heads": 8,
             "num_key_value_heads": 8, "head_dim": 128, "vocab_size": VOCAB}
    POOLS = {"memory.hbm_budget": "3GiB", "memory.host_pool": "2GiB"}
SETTINGS = POOLS | {"backend.device": DEVICE, "model.load_format": "dummy", "model.max_model_len": CONTEXT,
                    "scheduler.max_num_seqs": 16, "sparse.budget_tokens": CONTEXT // 16}

GAUGES = [("spin:free_extents", {"pool": pool}) for pool in ("slots", "host", "summaries", "meta")] + [
    ("spin:sequences", {"placement": placement}) for placement in ("resident", "tiered", "suspended")]


def device_memory():
    """MiB in use on the GPU, by all its processes; None without nvidia-smi."""
    with contextlib.suppress(OSError, subprocess.CalledProcessError, ValueError):
        out = subprocess.run(["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"], check=True,
                             stdout=subprocess.PIPE, text=True).stdout
        return int(out.split()[0])
    return None


class Plan:
    """One request: its body, when its client leaves (None: it stays), whether it fits the context."""

    def __init__(self, seed):
        r = random.Random(seed)
        kind = r.choices(("short", "middle", "open", "long", "whole", "beyond", "far_beyond"),
                         (35, 37, 4, 14, 3, 3, 4))[0]
        self.max_tokens = r.choice((1, 2, 5, 16, 40))
        if kind == "short":
            length = r.randint(1, 64)
        elif kind in ("middle", "open"):
            length = r.randint(65, CONTEXT // 4)
        elif kind == "long":
            length = r.randint(CONTEXT // 4, CONTEXT - self.max_tokens)
        else:
            length = {"whole": CONTEXT - self.max_tokens, "beyond": CONTEXT - self.max_tokens + 1,
                      "far_beyond": 10 * CONTEXT}[kind]
        self.leaves = r.choice(("while_it_sends", "at_once", "later")) if r.random() < 0.2 else None
        self.stream = r.random() < 0.5
        self.delay = r.random() * 0.05
        self.events = r.randint(1, 3)
        if kind == "open":  # holds all of a context, and gives it up half way
            self.max_tokens, self.stream, self.leaves, self.events = CONTEXT - length, True, "later", r.randint(1, 300)
        self.length = length
        self.fits = length + self.max_tokens <= CONTEXT
        # What can never run beside itself would be refused: together at most one context.
        self.n = max(1, min(r.choice((1, 1, 1, 2, 3, MAX_N)), CONTEXT // (length + self.max_tokens + 512)))
        self.body = {"prompt": spind.token_prompt(length, seed, VOCAB), "max_tokens": self.max_tokens, "n": self.n,
                     "stream": self.stream, "ignore_eos": True, "temperature": r.choice((0, 1)), "seed": seed,
                     "logprobs": r.choice((None, 0, 5))}
        if self.stream:
            self.body["stream_options"] = {"include_usage": True}

    def refusal(self):
        """The answer that clients of this API recognise, word for word."""
        message = f"This model's maximum context length is {CONTEXT} tokens. However, "
        if self.length >= CONTEXT:
            message += f"your prompt resulted in {self.length} tokens. Please reduce the length of the prompt."
        else:
            message += (f"you requested {self.length + self.max_tokens} tokens ({self.length} in the prompt, "
                        f"{self.max_tokens} in the completion). Please reduce the length of the prompt or completion.")
        return {"error": {"message": message, "type": "invalid_request_error", "param": "prompt",
                          "code": "context_length_exceeded"}}


def answer_of(plan, response):
    """Checks the whole answer; returns what it was."""
    data = response.read()
    if not plan.fits:
        assert response.status == 400, (response.status, data)
        assert json.loads(data) == plan.refusal(), data
        return "refused"
    assert response.status == 200, (response.status, data)
    if plan.stream:
        events = [line[6:] for line in data.decode().splitlines() if line.startswith("data: ")]
        assert events[-1] == "[DONE]", events[-1]
        chunks = [json.loads(event) for event in events[:-1]]
        reasons = sorted((choice["index"], choice["finish_reason"]) for chunk in chunks for choice in chunk["choices"]
                         if choice["finish_reason"])
        usage = chunks[-1]["usage"]
    else:
        answer = json.loads(data)
        reasons = [(choice["index"], choice["finish_reason"]) for choice in answer["choices"]]
        usage = answer["usage"]
    assert reasons == [(i, "length") for i in range(plan.n)], reasons
    assert usage["prompt_tokens"] == plan.length, usage
    assert usage["completion_tokens"] == plan.n * plan.max_tokens, usage
    return "answered"


def send(server, plan):
    """One client with one request, from its connection to the end; returns what came of it."""
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=120)
    with contextlib.closing(connection):
        body = json.dumps(plan.body).encode()
        if plan.leaves == "while_it_sends":
            connection.putrequest("POST", "/v1/completions")
            connection.putheader("Content-Type", "application/json")
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body[:len(body) // 2])
            return "left"
        connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
        if plan.leaves == "at_once":
            time.sleep(plan.delay)
            return "left"
        with contextlib.closing(connection.getresponse()) as response:
            if plan.leaves and plan.fits:
                assert response.status == 200, (response.status, response.read())
                for _ in range(2 * plan.events):  # each is followed by an empty line
                    response.readline()
                return "left"
            return answer_of(plan, response)


class Watch(threading.Thread):
    """The fullest that the server says its memory was, until stopped."""

    def __init__(self, server):
        super().__init__()
        self.server, self.most, self.waiting, self.end = server, 0.0, 0.0, threading.Event()

    def run(self):
        while not self.end.wait(0.05):
            self.most = max(self.most, self.server.metric("spin:kv_cache_usage_perc"))
            self.waiting = max(self.waiting, self.server.metric("spin:num_requests_waiting"))

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.end.set()
        self.join()


class EdgeTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.model = spind.make_dummy_model(os.path.join(folder.name, "edge"), **MODEL)

    def run_requests(self, name, first_seed, share, settings, moves=()):
        """`share` of the requests against one server; `moves`: counters that must have counted."""
        begin, empty = time.monotonic(), device_memory()
        with spind.Spind(self.model, SETTINGS | settings, arguments=ARGUMENTS) as server:
            def gauges():
                return {(metric, *labels.values()): server.metric(metric, **labels) for metric, labels in GAUGES}
            server.wait_idle()
            before, used_before = gauges(), device_memory()
            failed = server.metric("spin:request_success_total", finished_reason="error")
            plans = [Plan(first_seed + i) for i in range(round(REQUESTS * share))]
            with Watch(server) as watch, concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
                outcomes = list(pool.map(lambda plan: send(server, plan), plans))
            server.wait_idle()
            self.assertEqual(gauges(), before)
            self.assertEqual(server.metric("spin:request_success_total", finished_reason="error"), failed)
            self.assertIsNone(server.process.poll(), server.log())
            for outcome in ("answered", "refused", "left"):
                self.assertGreater(outcomes.count(outcome), 0, outcome)
            self.assertGreater(watch.most, 0.8)
            self.assertGreater(watch.waiting, 0)
            moved = {move: server.metric(move) for move in moves}
            for move, count in moved.items():
                self.assertGreater(count, 0, move)
            print(f"{name}: {len(plans)} requests, " + ", ".join(
                f"{outcomes.count(outcome)} {outcome}" for outcome in sorted(set(outcomes))) +
                f"; memory {100 * watch.most:.0f} % full at most" +
                "".join(f", {count:.0f} {move.removeprefix('spin:')}" for move, count in moved.items()) +
                f"; {time.monotonic() - begin:.0f} s", file=sys.stderr)
            if DEVICE != "cpu" and empty is not None:
                used_after = device_memory()
                print(f"{name}: MiB in use on the GPU: {empty} without the server, {used_before} before the requests, "
                      f"{used_after} after them", file=sys.stderr)
                self.assertLessEqual(used_after, used_before + GPU_GROWTH_MIB)

    def test_dense_in_hbm(self):
        self.run_requests("dense", 1, 0.3, {})

    def test_dense_in_the_host_tier(self):
        self.run_requests("dense, tiered", 100001, 0.2, {"memory.placement": "tiered"}, ["spin:retrieve_misses_total"])

    def test_quest_in_both_tiers(self):
        self.run_requests("quest", 200001, 0.5, {"sparse.algorithm": "quest"},
                          ["spin:demotions_total", "spin:retrieve_misses_total"])


if __name__ == "__main__":
    unittest.main()
