#!/usr/bin/env python3
"""The engine from outside: answers do not depend on the batch, a client that leaves frees its memory, limits refuse.

usage: tools/test tests/e2e/engine_test.py
"""
import concurrent.futures
import contextlib
import http.client
import json
import os
import tempfile
import unittest

import openai

import spind

FLOAT32 = {"model.dtype": "float32"}
JSON_TYPE = {"Content-Type": "application/json"}


def open_stream(server, max_tokens, prompt=(5, 6, 7)):
    """An HTTP connection in the middle of a streamed completion: its first event has been read."""
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=60)
    body = {"prompt": list(prompt), "max_tokens": max_tokens, "ignore_eos": True, "stream": True, "temperature": 0}
    connection.request("POST", "/v1/completions", json.dumps(body), JSON_TYPE)
    response = connection.getresponse()
    assert response.status == 200, response.status
    assert response.readline().startswith(b"data: {")
    return connection, response


class BatchIndependenceTest(unittest.TestCase):
    def check(self, server, prompts, max_tokens):
        alone = [spind.what_was_computed(server.complete(prompt, max_tokens)) for prompt in prompts]
        self.assertGreater(len({str(tokens) for tokens, _, _ in alone}), 1)
        with concurrent.futures.ThreadPoolExecutor(len(prompts)) as pool:
            together = list(pool.map(lambda p: spind.what_was_computed(server.complete(p, max_tokens)), prompts))
        for i, (one, other) in enumerate(zip(alone, together)):
            self.assertEqual(one, other, f"prompt {i}")
        server.wait_idle()

    def test_small_models_bit_for_bit(self):
        for model in (spind.TINY_LLAMA, spind.TINY_QWEN3):
            with self.subTest(model=os.path.basename(model)), spind.Spind(model, spind.SMALL_POOLS | FLOAT32) as server:
                self.check(server, [spind.token_prompt(length, seed=length) for length in
                                    (1, 7, 16, 64, 65, 130, 700, 1500)], 24)

    def test_a_real_model_bit_for_bit(self):
        with spind.Spind(spind.SMOLLM2, spind.POOLS | FLOAT32) as server:
            self.check(server, [f"{text} is" for text in (
                "The capital of France", "Water", "1, 2, 3, 4, 5 and so on", "A", "My favourite colour", "Python",
                "The Moon", "Snow")], 10)
            # The same tokens, once generated and once as a prompt.
            said = server.complete("The capital of France", 4)["choices"][0]
            tokens = said["prompt_token_ids"] + said["token_ids"]
            scored = server.complete(tokens, 0, echo=True)["choices"][0]["logprobs"]
            self.assertEqual(scored["tokens"][-4:], said["logprobs"]["tokens"])
            for one, other in zip(scored["token_logprobs"][-4:], said["logprobs"]["token_logprobs"]):
                self.assertAlmostEqual(one, other, delta=1e-3)

    def test_samples_with_a_seed_do_not_depend_on_the_batch_either(self):
        with spind.Spind(spind.TINY_LLAMA, spind.SMALL_POOLS | FLOAT32) as server:
            prompt = spind.token_prompt(40)

            def sample(seed):
                return spind.what_was_computed(server.complete(prompt, 32, temperature=1, seed=seed))
            alone = [sample(seed) for seed in range(6)]
            with concurrent.futures.ThreadPoolExecutor(6) as pool:
                self.assertEqual(list(pool.map(sample, range(6))), alone)
            self.assertEqual(len({str(tokens) for tokens, _, _ in alone}), 6)


class SlowModelTest(unittest.TestCase):
    """Random weights, large enough that answers take a while; no tokenizer."""

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.server = spind.Spind(spind.make_dummy_model(os.path.join(folder.name, "random")), spind.POOLS | {
            "model.load_format": "dummy", "server.max_queue": 1, "scheduler.max_num_seqs": 1})
        cls.addClassCleanup(cls.server.stop)

    def setUp(self):
        self.server.wait_idle()

    def test_a_client_that_leaves_frees_its_memory_within_a_second(self):
        for max_tokens in (10000, 12000):
            connection, response = open_stream(self.server, max_tokens)
            self.assertEqual(self.server.metric("vllm:num_requests_running"), 1)
            self.assertGreater(self.server.metric("spin:kv_cache_usage_perc"), 0)
            aborted = self.server.metric("spin:request_success_total", finished_reason="abort")
            response.close()
            connection.close()
            self.server.wait_idle(seconds=1)
            self.assertEqual(self.server.metric("spin:request_success_total", finished_reason="abort"), aborted + 1)

    def test_a_client_that_leaves_while_it_waits_in_the_queue_leaves_the_queue(self):
        with contextlib.ExitStack() as stack:
            connection, response = open_stream(self.server, 10000)
            stack.callback(connection.close)
            stack.callback(response.close)
            waiting = http.client.HTTPConnection("127.0.0.1", self.server.http_port, timeout=60)
            waiting.request("POST", "/v1/completions", '{"prompt": [1, 2], "max_tokens": 4}', JSON_TYPE)
            spind.wait_until(lambda: self.server.metric("spin:num_requests_waiting") == 1, 5, "a request waits")
            waiting.close()
            spind.wait_until(lambda: self.server.metric("spin:num_requests_waiting") == 0, 1, "the queue is empty")
            self.assertEqual(self.server.metric("spin:num_requests_running"), 1)

    def test_a_full_queue_refuses_with_retry_after(self):
        client = openai.OpenAI(base_url=self.server.url + "/v1", api_key="none", max_retries=0, timeout=60)
        with contextlib.ExitStack() as stack:
            running = client.completions.create(model="random", prompt=[5, 6], max_tokens=10000, stream=True,
                                                extra_body={"ignore_eos": True})
            stack.callback(running.close)
            next(iter(running))
            waiting = http.client.HTTPConnection("127.0.0.1", self.server.http_port, timeout=60)
            stack.callback(waiting.close)
            waiting.request("POST", "/v1/completions", '{"prompt": [1, 2], "max_tokens": 4}', JSON_TYPE)
            spind.wait_until(lambda: self.server.metric("spin:num_requests_waiting") == 1, 5, "a request waits")
            for stream in (False, True):
                with self.assertRaises(openai.RateLimitError) as caught:
                    client.completions.create(model="random", prompt=[7], max_tokens=1, stream=stream)
                self.assertEqual(caught.exception.code, "rate_limit_exceeded")
                self.assertEqual(caught.exception.type, "rate_limit_error")
                self.assertGreaterEqual(int(caught.exception.response.headers["retry-after"]), 1)
            running.close()
            answer = json.loads(waiting.getresponse().read())  # its turn has come
            self.assertEqual(answer["usage"]["prompt_tokens"], 2)

    def test_a_client_that_retries_gets_through(self):
        connection, response = open_stream(self.server, 10000)
        waiting = http.client.HTTPConnection("127.0.0.1", self.server.http_port, timeout=60)
        waiting.request("POST", "/v1/completions", '{"prompt": [1, 2], "max_tokens": 4}', JSON_TYPE)
        spind.wait_until(lambda: self.server.metric("spin:num_requests_waiting") == 1, 5, "a request waits")
        client = openai.OpenAI(base_url=self.server.url + "/v1", api_key="none", max_retries=2, timeout=60)
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            answer = pool.submit(client.completions.create, model="random", prompt=[7], max_tokens=1)
            response.close()
            connection.close()
            self.assertEqual(answer.result(timeout=30).usage.completion_tokens, 1)
        waiting.close()

    def test_without_a_tokenizer_token_ids_are_served_and_text_is_refused(self):
        answer = self.server.complete([5, 6, 7], 4)
        self.assertEqual(len(answer["choices"][0]["token_ids"]), 4)
        self.assertEqual(answer["choices"][0]["text"], "")
        for path, body in [("/v1/completions", {"prompt": "text"}), ("/tokenize", {"prompt": "text"}),
                           ("/v1/completions", {"prompt": [1], "stop": "x"}), ("/detokenize", {"tokens": [1]}),
                           ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]})]:
            status, _, answer = self.server.post(path, body)
            self.assertEqual(status, 400, path)
            self.assertIn("tokenizer", answer["error"]["message"])

    def test_what_can_never_fit_is_refused_at_once(self):
        status, _, answer = self.server.post("/v1/completions", {"prompt": [5], "max_tokens": 16384})
        self.assertEqual((status, answer["error"]["code"]), (400, "context_length_exceeded"))
        status, _, answer = self.server.post("/v1/completions", {"prompt": [5], "max_tokens": 4, "n": 2})
        self.assertEqual((status, answer["error"]["param"]), (400, "n"))


class SmallPoolsTest(unittest.TestCase):
    def test_requests_wait_for_room_and_all_finish(self):
        settings = {"memory.hbm_budget": "6MiB", "memory.host_pool": "0", "model.dtype": "float32"}
        with spind.Spind(spind.TINY_LLAMA, settings) as server:
            status, _, answer = server.post("/v1/completions", {"prompt": [5] * 100, "max_tokens": 8000})
            self.assertEqual((status, answer["error"]["type"]), (400, "invalid_request_error"))
            prompts = [spind.token_prompt(400, seed=seed) for seed in range(10)]
            alone = [spind.what_was_computed(server.complete(prompt, 40)) for prompt in prompts]
            with concurrent.futures.ThreadPoolExecutor(10) as pool:
                together = list(pool.map(lambda p: spind.what_was_computed(server.complete(p, 40)), prompts))
            self.assertEqual(alone, together)
            server.wait_idle()


if __name__ == "__main__":
    unittest.main()
