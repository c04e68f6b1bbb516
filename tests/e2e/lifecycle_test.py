#!/usr/bin/env python3
"""The life of the process: health while loading, draining, stopping.

usage: tools/test tests/e2e/lifecycle_test.py
"""
import contextlib
import http.client
import json
import os
import signal
import tempfile
import time
import unittest

import spind

JSON_TYPE = {"Content-Type": "application/json"}
ONE_TOKEN = '{"prompt": [1], "max_tokens": 1}'


class LifecycleTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.model = spind.make_dummy_model(os.path.join(folder.name, "random"))

    def start(self, wait=True, **settings):
        server = spind.Spind(self.model, spind.POOLS | {"model.load_format": "dummy"} |
                             {key.replace("__", "."): value for key, value in settings.items()}, wait)
        self.addCleanup(server.stop)
        return server

    def stream(self, server, max_tokens):
        connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=60)
        self.addCleanup(connection.close)
        body = {"prompt": [5, 6, 7], "max_tokens": max_tokens, "ignore_eos": True, "stream": True}
        connection.request("POST", "/v1/completions", json.dumps(body), JSON_TYPE)
        response = connection.getresponse()
        self.assertTrue(response.readline().startswith(b"data: {"))
        return response

    def events_of(self, response):
        return [line[6:].decode().strip() for line in response.read().splitlines() if line.startswith(b"data: ")]

    def test_it_is_live_while_it_loads_and_then_ready(self):
        server = self.start(wait=False, server__http_port=spind.free_port(), server__grpc_port=spind.free_port())
        seen = []

        def poll():
            try:
                live, _, _ = server.request("GET", "/health/live")
                ready, headers, _ = server.request("GET", "/health/ready")
                status, _, body = server.request("POST", "/v1/completions", ONE_TOKEN, JSON_TYPE)
            except OSError:
                return False
            self.assertEqual(live, 200)
            if ready == 503:
                self.assertGreaterEqual(int(headers["retry-after"]), 1)
                if status == 503:
                    self.assertEqual(json.loads(body)["error"]["type"], "service_unavailable")
            seen.append(ready)
            return ready == 200
        spind.wait_until(poll, spind.START_SECONDS, "ready")
        self.assertEqual(sorted(set(seen)), [200, 503])
        self.assertEqual(seen, sorted(seen, reverse=True))  # never ready and then not
        content = server.wait_ready()
        self.assertEqual(content, {"http": server.http_port, "grpc": server.grpc_port, "pid": server.process.pid})

    def test_a_termination_lets_a_stream_finish_and_refuses_new_requests(self):
        server = self.start()
        response = self.stream(server, 300)
        idle = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=60)
        self.addCleanup(idle.close)
        server.signal()

        def refused():
            status, headers, body = server.request("POST", "/v1/completions", ONE_TOKEN, JSON_TYPE)
            return (headers, body) if status == 503 else None
        headers, body = spind.wait_until(refused, 5, "new requests are refused")
        self.assertGreaterEqual(int(headers["retry-after"]), 1)
        self.assertEqual(headers["connection"], "close")
        self.assertIn("shutting down", json.loads(body)["error"]["message"])
        self.assertEqual(server.request("GET", "/health/ready")[0], 503)
        self.assertEqual(server.request("GET", "/health")[0], 503)
        self.assertEqual(server.request("GET", "/health/live")[0], 200)
        self.assertEqual(server.request("GET", "/metrics")[0], 200)
        events = self.events_of(response)
        self.assertEqual(events[-1], "[DONE]")
        self.assertEqual(json.loads(events[-2])["choices"][0]["finish_reason"], "length")
        tokens = sum(len(json.loads(event)["choices"][0]["token_ids"]) for event in events[:-1])
        self.assertGreaterEqual(tokens, 290)  # the first event was read before
        self.assertEqual(server.wait(), 0)

    def test_an_idle_server_stops_at_once(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            server = self.start()
            begin = time.monotonic()
            server.signal(number)
            self.assertEqual(server.wait(), 0)
            self.assertLess(time.monotonic() - begin, 5)

    def test_a_second_termination_stops_at_once(self):
        server = self.start()
        response = self.stream(server, 15000)
        server.signal()
        spind.wait_until(lambda: server.request("GET", "/health/ready")[0] == 503, 5, "draining")
        begin = time.monotonic()
        server.signal()
        self.assertEqual(server.wait(), 0)
        self.assertLess(time.monotonic() - begin, 5)
        with contextlib.suppress(http.client.HTTPException, OSError):
            self.assertNotIn("length", str(self.events_of(response)[-2:]))

    def test_the_drain_time_ends_a_stream_with_an_error(self):
        server = self.start(server__drain_timeout="500ms")
        response = self.stream(server, 15000)
        server.signal()
        events = self.events_of(response)
        self.assertEqual(events[-1], "[DONE]")
        error = json.loads(events[-2])["error"]
        self.assertEqual(set(error), {"message", "type", "param", "code"})
        self.assertEqual(error["type"], "service_unavailable")
        self.assertEqual(server.wait(), 0)

    def test_a_termination_while_loading_ends_the_process(self):
        server = self.start(wait=False)
        time.sleep(0.1)
        server.signal()
        self.assertIn(server.wait(), (128 + signal.SIGTERM, 0, -signal.SIGTERM))

    def test_a_taken_port_is_an_error_that_says_so(self):
        server = self.start()
        for key, port in (("http_port", server.http_port), ("grpc_port", server.grpc_port)):
            ports = {"http_port": 0, "grpc_port": 0} | {key: port}
            status, _, error = spind.command_output(
                "--model", self.model, "--set", "model.load_format=dummy",
                *[word for name, value in ports.items() for word in ("--set", f"server.{name}={value}")])
            self.assertEqual(status, 1)
            self.assertIn(str(port), error.splitlines()[-1])


if __name__ == "__main__":
    unittest.main()
