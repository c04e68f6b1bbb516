#!/usr/bin/env python3
"""HTTP beyond the openai client: protocol errors, server-sent events byte by byte, metrics, text services.

usage: tools/test tests/e2e/http_test.py
"""
import contextlib
import http.client
import json
import unittest

import spind

SERVER = None
JSON_TYPE = {"Content-Type": "application/json"}


def setUpModule():
    global SERVER
    SERVER = spind.Spind(spind.SMOLLM2, spind.POOLS | {"server.max_body": "64KiB", "model.served_name": "small,alias"})
    unittest.addModuleCleanup(SERVER.stop)


def error_of(body):
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}, error
    return error


class ProtocolTest(unittest.TestCase):
    def test_bad_json_is_refused_with_the_position(self):
        for body, place in [('{"prompt": }', "column 12"), ('{"prompt":\n "x",, }', "line 2"), ("", "column 1")]:
            with self.subTest(body=body):
                status, _, answer = SERVER.request("POST", "/v1/completions", body, JSON_TYPE)
                self.assertEqual(status, 400)
                self.assertEqual(error_of(answer)["type"], "invalid_request_error")
                self.assertIn(place, error_of(answer)["message"])
        status, _, answer = SERVER.request("POST", "/v1/completions", "[1]", JSON_TYPE)
        self.assertEqual(status, 400)
        self.assertIn("object", error_of(answer)["message"])

    def test_missing_fields_are_named(self):
        for path, field in [("/v1/completions", "prompt"), ("/v1/chat/completions", "messages"),
                            ("/tokenize", "prompt"), ("/detokenize", "tokens")]:
            status, _, answer = SERVER.request("POST", path, "{}", JSON_TYPE)
            self.assertEqual((status, error_of(answer)["param"]), (400, field))
            self.assertEqual(error_of(answer)["code"], "missing_required_parameter")

    def test_unknown_paths_methods_and_types(self):
        status, _, body = SERVER.request("GET", "/v2/nothing")
        self.assertEqual(status, 404)
        self.assertIn("/v2/nothing", error_of(body)["message"])
        status, headers, body = SERVER.request("GET", "/v1/chat/completions")
        self.assertEqual((status, headers["allow"]), (405, "POST"))
        error_of(body)
        status, headers, _ = SERVER.request("DELETE", "/metrics")
        self.assertEqual((status, headers["allow"]), (405, "GET, HEAD"))
        status, _, body = SERVER.request("POST", "/v1/completions", "{}", {"Content-Type": "text/plain"})
        self.assertEqual(status, 415)
        error_of(body)
        status, _, _ = SERVER.request("POST", "/tokenize", '{"prompt": "x"}',
                                      {"Content-Type": "application/json; charset=utf-8"})
        self.assertEqual(status, 200)

    def test_a_body_over_the_limit_is_refused(self):
        status, _, body = SERVER.request("POST", "/v1/completions", json.dumps({"prompt": "x" * 70000}), JSON_TYPE)
        self.assertEqual(status, 413)
        self.assertIn("65536", error_of(body)["message"])

    def test_one_connection_serves_many_requests(self):
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", SERVER.http_port, timeout=60)) as connection:
            connection.connect()
            socket = connection.sock
            for _ in range(3):
                connection.request("POST", "/v1/completions", '{"prompt": "x", "max_tokens": 1}', JSON_TYPE)
                self.assertEqual(connection.getresponse().read()[:1], b"{")
            connection.request("POST", "/v1/completions", '{"prompt": "x", "max_tokens": 2, "stream": true}', JSON_TYPE)
            self.assertTrue(connection.getresponse().read().endswith(b"data: [DONE]\n\n"))
            connection.request("GET", "/version")
            self.assertEqual(connection.getresponse().status, 200)
            self.assertIs(connection.sock, socket)

    def test_chunked_bodies_are_read(self):
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", SERVER.http_port, timeout=60)) as connection:
            connection.request("POST", "/tokenize", iter([b'{"prom', b'pt": "x"}']), JSON_TYPE, encode_chunked=True)
            self.assertEqual(json.loads(connection.getresponse().read())["count"], 1)

    def test_request_ids_are_echoed_when_they_are_sane(self):
        for given, echoed in [("abc-1", True), ("x" * 500, False), ("a b\"c", False)]:
            _, headers, _ = SERVER.request("GET", "/health", headers={"X-Request-Id": given})
            self.assertEqual(headers["x-request-id"] == given, echoed, given)
            self.assertTrue(headers["x-request-id"])


class StreamTest(unittest.TestCase):
    def events(self, path, body):
        status, headers, data = SERVER.request("POST", path, json.dumps(body | {"stream": True}), JSON_TYPE)
        self.assertEqual(status, 200)
        self.assertEqual(headers["content-type"], "text/event-stream; charset=utf-8")
        self.assertEqual(headers["cache-control"], "no-cache")
        self.assertEqual(headers["x-accel-buffering"], "no")
        events = data.decode().split("\n\n")
        self.assertEqual(events[-2:], ["data: [DONE]", ""])
        for event in events[:-1]:
            self.assertTrue(event.startswith("data: ") and "\n" not in event, event)
        return [json.loads(event[6:]) for event in events[:-2]]

    def test_chunks_have_the_required_keys(self):
        for chunk in self.events("/v1/completions", {"prompt": "Hello", "max_tokens": 4}):
            self.assertLessEqual({"id", "object", "created", "model", "choices"}, set(chunk))
            self.assertLessEqual({"index", "text", "logprobs", "finish_reason"}, set(chunk["choices"][0]))
        chunks = self.events("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4})
        for chunk in chunks:
            self.assertLessEqual({"index", "delta", "finish_reason"}, set(chunk["choices"][0]))
        self.assertEqual(chunks[0]["choices"][0]["delta"], {"role": "assistant", "content": ""})
        self.assertEqual(chunks[0]["model"], "small")

    def test_characters_are_never_split(self):
        _, _, tokens = SERVER.post("/tokenize", {"prompt": "\N{SNAKE}"})
        self.assertGreater(tokens["count"], 1)  # the character's bytes are several tokens
        first = tokens["tokens"][0]
        body = {"prompt": "x", "max_tokens": 3, "temperature": 0, "logit_bias": {str(first): 100}}
        _, _, whole = SERVER.post("/v1/completions", body)
        text = whole["choices"][0]["text"]
        self.assertIn("\N{REPLACEMENT CHARACTER}", text)
        streamed = "".join(chunk["choices"][0]["text"] for chunk in self.events("/v1/completions", body))
        self.assertEqual(streamed, text)
        body = {"prompt": "\N{SNAKE}" * 20, "max_tokens": 12, "temperature": 0, "ignore_eos": True}
        _, _, whole = SERVER.post("/v1/completions", body)
        streamed = "".join(chunk["choices"][0]["text"] for chunk in self.events("/v1/completions", body))
        self.assertEqual(streamed, whole["choices"][0]["text"])

    def test_running_usage_is_on_each_chunk_when_asked(self):
        options = {"include_usage": True, "continuous_usage_stats": True}
        chunks = self.events("/v1/completions", {"prompt": "Hello", "max_tokens": 4, "ignore_eos": True,
                                                 "stream_options": options})
        counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
        self.assertEqual(counts, sorted(counts))
        self.assertEqual(counts[-1], 4)


class TextServiceTest(unittest.TestCase):
    def test_tokens_turn_back_into_the_text(self):
        for text in ["Hello world", "  spaces\n\ttabs ", "caf\u00e9 \u4f60\u597d \N{SNAKE}", "<|im_start|>user"]:
            _, _, answer = SERVER.post("/tokenize", {"model": "alias", "prompt": text, "return_token_strs": True})
            self.assertEqual(answer["count"], len(answer["tokens"]))
            self.assertEqual(len(answer["token_strs"]), answer["count"])
            self.assertEqual(answer["max_model_len"], 8192)
            _, _, back = SERVER.post("/detokenize", {"tokens": answer["tokens"]})
            self.assertEqual(back["prompt"], text)

    def test_messages_are_rendered_by_the_chat_template(self):
        _, _, answer = SERVER.post("/tokenize", {"messages": [{"role": "user", "content": "Hi"}]})
        _, _, text = SERVER.post("/detokenize", {"tokens": answer["tokens"]})
        self.assertTrue(text["prompt"].endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"), text)
        _, _, chat = SERVER.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}],
                                                          "max_tokens": 1, "return_token_ids": True})
        self.assertEqual(chat["prompt_token_ids"], answer["tokens"])

    def test_health_and_version(self):
        for path in ("/health", "/health/live", "/health/ready"):
            self.assertEqual(SERVER.request("GET", path)[0], 200)
        status, headers, body = SERVER.request("HEAD", "/health")
        self.assertEqual((status, body), (200, b""))
        self.assertGreater(int(headers["content-length"]), 0)
        _, _, body = SERVER.request("GET", "/version")
        self.assertRegex(json.loads(body)["version"], r"^\d+\.\d+\.\d+$")


class MetricsTest(unittest.TestCase):
    def test_every_line_is_prometheus_text(self):
        status, headers, _ = SERVER.request("GET", "/metrics")
        self.assertEqual(status, 200)
        self.assertTrue(headers["content-type"].startswith("text/plain; version=0.0.4"))
        types, seen = {}, set()
        for line in SERVER.metrics_text().splitlines():
            if line.startswith("# TYPE "):
                _, _, name, kind = line.split(" ")
                self.assertNotIn(name, types, "declared twice")
                self.assertIn(kind, ("counter", "gauge", "histogram"))
                types[name] = kind
            if line.startswith("#"):
                continue
            match = spind.SAMPLE_LINE.fullmatch(line)
            self.assertTrue(match, line)
            float(match[3])
            if match[2]:
                self.assertRegex(match[2], spind.LABELS)
            self.assertNotIn(match[1] + (match[2] or ""), seen, "the same sample twice")
            seen.add(match[1] + (match[2] or ""))
            base = match[1]
            for suffix in ("_bucket", "_sum", "_count"):
                if base.removesuffix(suffix) in types and types[base.removesuffix(suffix)] == "histogram":
                    base = base.removesuffix(suffix)
            self.assertIn(base, types, line)

    def test_the_names_that_routers_and_dashboards_read_are_there(self):
        text = SERVER.metrics_text()
        for name in ["vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc",
                     "vllm:gpu_cache_usage_perc", "vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total",
                     "vllm:gpu_prefix_cache_queries_total", "vllm:gpu_prefix_cache_hits_total",
                     "vllm:time_to_first_token_seconds_bucket", "vllm:e2e_request_latency_seconds_bucket",
                     "vllm:prompt_tokens_total", "vllm:generation_tokens_total", "vllm:request_success_total",
                     "vllm:num_preemptions_total", "spin:retrieve_hits_total", "spin:retrieve_misses_total",
                     "spin:retrieve_bytes_total", "spin:evictions_total"]:
            self.assertTrue(f"\n{name}{{" in text, name)
        for path in ("hbm", "host_to_device", "device_to_host"):
            self.assertGreater(SERVER.metric("spin:selftest_copy_bytes_per_second", path=path), 1e6)
        for page in (2048, 4096, 8192, 16384, 32768):
            self.assertGreater(SERVER.metric("spin:selftest_gather_bytes_per_second", page_bytes=page), 1e6)
        self.assertRegex(text, r'\nvllm:cache_config_info\{[^}]*block_size="\d+"[^}]*num_gpu_blocks="\d+"')
        self.assertIn('model_name="small"', text)

    def test_requests_are_counted(self):
        def counts():
            return [SERVER.metric(name) for name in ("vllm:prompt_tokens_total", "vllm:generation_tokens_total",
                                                     "vllm:time_to_first_token_seconds_count")] + [
                SERVER.metric("vllm:request_success_total", finished_reason="length")]
        before = counts()
        SERVER.complete([5, 6, 7], max_tokens=4)
        SERVER.wait_idle()
        self.assertEqual([b - a for a, b in zip(before, counts())], [3, 4, 1, 1])


if __name__ == "__main__":
    unittest.main()
