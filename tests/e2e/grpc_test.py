#!/usr/bin/env python3
"""gRPC with the real Python client; message types come from the server's own reflection.

usage: tools/test tests/e2e/grpc_test.py
"""
import contextlib
import os
import tempfile
import unittest

import grpc
from google.protobuf import message_factory
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

import spind

SERVICE = "spin.v1.Inference"
PROMPT = "The capital of France is"
SECONDS = 60


class Inference:
    """Client of spin.v1.Inference, built from the descriptors that the server tells."""

    def __init__(self, port):
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self.database = ProtoReflectionDescriptorDatabase(self.channel)
        self.pool = DescriptorPool(self.database)
        for method in self.pool.FindServiceByName(SERVICE).methods:
            kind = self.channel.unary_stream if method.server_streaming else self.channel.unary_unary
            response = message_factory.GetMessageClass(method.output_type)
            setattr(self, method.name, kind(f"/{SERVICE}/{method.name}", response_deserializer=response.FromString,
                                            request_serializer=lambda message: message.SerializeToString()))

    def message(self, name, **fields):
        return message_factory.GetMessageClass(self.pool.FindMessageTypeByName(f"spin.v1.{name}"))(**fields)

    def generate(self, **fields):
        """The running call; sampling and tokens are given as plain dictionaries and lists."""
        if "tokens" in fields:
            fields["tokens"] = {"ids": fields["tokens"]}
        fields["sampling"] = {"temperature": 0, "max_tokens": 8} | fields.get("sampling", {})
        return self.Generate(self.message("GenerateRequest", **fields), timeout=SECONDS)

    def health(self, service=""):
        return health_pb2_grpc.HealthStub(self.channel).Check(health_pb2.HealthCheckRequest(service=service),
                                                              timeout=SECONDS).status


def start(test, *args):
    server = spind.Spind(*args)
    test.addClassCleanup(server.stop)
    client = Inference(server.grpc_port)
    test.addClassCleanup(client.channel.close)
    return server, client


class GrpcTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server, cls.client = start(cls, spind.SMOLLM2, spind.POOLS)

    def refused(self, code, **fields):
        with self.assertRaises(grpc.RpcError) as caught:
            list(self.client.generate(**fields))
        self.assertEqual(caught.exception.code(), code)
        return caught.exception.details()

    def test_reflection_lists_the_services(self):
        self.assertLessEqual({SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"},
                             set(self.client.database.get_services()))

    def test_what_a_call_cost_is_in_its_last_message(self):
        messages = list(self.client.generate(text=PROMPT, sampling={"n": 2, "temperature": 1, "ignore_eos": True},
                                             spin_usage=True))
        last = messages[-1].usage.spin
        self.assertEqual(last.placement, "resident")
        self.assertEqual(last.context_tokens, 5 + 8)
        self.assertEqual(last.attended_tokens, 5 + 4)  # seven steps, of 6 to 12 tokens
        self.assertFalse(last.HasField("hit_ratio"))
        self.assertGreater(last.decode_ms, 0)
        self.assertFalse(any(message.usage.HasField("spin") for message in messages[:-1]))
        silent = list(self.client.generate(text=PROMPT))
        self.assertFalse(silent[-1].usage.HasField("spin"))

    def test_a_budget_of_its_own_is_refused_by_a_dense_server(self):
        details = self.refused(grpc.StatusCode.INVALID_ARGUMENT, text=PROMPT, sparse={"budget_tokens": 256})
        self.assertEqual(details, "sparse: this server attends to the whole context: there is no budget_tokens to "
                         "choose")
        details = self.refused(grpc.StatusCode.INVALID_ARGUMENT, text=PROMPT, sparse={"algorithm": "quest"})
        self.assertEqual(details, "sparse: algorithm 'quest' needs another layout of the cache than this server's "
                         "'dense'; a request may ask for that or for 'dense'")
        exact = list(self.client.generate(text=PROMPT, sparse={"exact": True}))
        plain = list(self.client.generate(text=PROMPT))
        self.assertEqual([message.text for message in exact], [message.text for message in plain])

    def test_health_is_serving(self):
        self.assertEqual(self.client.health(), health_pb2.HealthCheckResponse.SERVING)
        self.assertEqual(self.client.health(SERVICE), health_pb2.HealthCheckResponse.SERVING)
        with self.assertRaises(grpc.RpcError) as caught:
            self.client.health("no.such.Service")
        self.assertEqual(caught.exception.code(), grpc.StatusCode.NOT_FOUND)

    def test_the_model_is_described(self):
        info = self.client.GetModelInfo(self.client.message("GetModelInfoRequest"), timeout=SECONDS)
        self.assertEqual(list(info.served_names), ["smollm2-135m-instruct"])
        self.assertEqual((info.architecture, info.dtype, info.algorithm), ("LlamaForCausalLM", "bfloat16", "dense"))
        self.assertEqual((info.max_model_len, info.vocab_size, info.has_tokenizer), (8192, 49152, True))
        self.assertTrue(info.eos_token_ids)

    def test_text_streams_as_over_http(self):
        messages = list(self.client.generate(text=PROMPT))
        _, _, answer = self.server.post("/v1/completions", {"prompt": PROMPT, "max_tokens": 8, "temperature": 0,
                                                            "return_token_ids": True})
        self.assertEqual("".join(message.text for message in messages), answer["choices"][0]["text"])
        self.assertEqual([token.id for message in messages for token in message.tokens],
                         answer["choices"][0]["token_ids"])
        self.assertGreater(len(messages), 3)
        self.assertEqual([message.finish_reason for message in messages], [0] * (len(messages) - 1) + [2])
        usage = messages[-1].usage
        self.assertEqual((usage.prompt_tokens, usage.completion_tokens), (5, 8))

    def test_tokens_go_in_and_logprobs_come_out(self):
        ids = self.client.Tokenize(self.client.message("TokenizeRequest", text=PROMPT), timeout=SECONDS).ids
        self.assertEqual(list(ids), self.server.post("/tokenize", {"prompt": PROMPT})[2]["tokens"])
        messages = list(self.client.generate(tokens=list(ids), sampling={"logprobs": 2, "prompt_logprobs": 1}))
        tokens = [token for message in messages for token in message.tokens]
        self.assertEqual(len(tokens), 8)
        for token in tokens:
            self.assertEqual(len(token.top), 2)
            self.assertAlmostEqual(token.top[0].logprob, token.logprob, places=5)
            self.assertEqual(token.top[0].token, token.id)
        self.assertEqual([token.id for token in messages[0].prompt_tokens], list(ids))
        self.assertFalse(messages[0].prompt_tokens[0].HasField("logprob"))
        self.assertTrue(messages[0].prompt_tokens[1].HasField("logprob"))

    def test_n_sequences_end_each_for_itself(self):
        messages = list(self.client.generate(text=PROMPT, sampling={"n": 2, "temperature": 1.0, "seed": 3,
                                                                    "ignore_eos": True}))
        for index in (0, 1):
            own = [message for message in messages if message.index == index]
            self.assertEqual(sum(len(message.tokens) for message in own), 8)
            self.assertEqual(own[-1].finish_reason, 2)

    def test_a_stop_string_is_told(self):
        messages = list(self.client.generate(text="1, 2, 3, 4,", sampling={"max_tokens": 24, "stop": ["7, 8"]}))
        self.assertEqual(messages[-1].finish_reason, 1)
        self.assertEqual(messages[-1].stop_string, "7, 8")
        self.assertNotIn("7, 8", "".join(message.text for message in messages))

    def test_bad_requests_are_refused(self):
        invalid = grpc.StatusCode.INVALID_ARGUMENT
        self.assertIn("temperature", self.refused(invalid, text="x", sampling={"temperature": -1.0}))
        self.assertIn("top_p", self.refused(invalid, text="x", sampling={"top_p": 7.0}))
        self.assertIn("prompt", self.refused(invalid))
        self.assertIn("999999", self.refused(invalid, tokens=[999999]))
        self.assertIn("maximum context length is 8192 tokens", self.refused(invalid, tokens=[5] * 8200))

    def test_a_cancelled_call_frees_its_memory(self):
        call = self.client.generate(text="Once upon a time", sampling={"max_tokens": 4000, "ignore_eos": True})
        next(call)
        self.assertEqual(self.server.metric("spin:num_requests_running"), 1)
        call.cancel()
        self.server.wait_idle(seconds=1)
        with self.assertRaises(grpc.RpcError) as caught:
            list(call)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.CANCELLED)


class FullQueueTest(unittest.TestCase):
    def test_a_full_queue_is_exhausted_and_a_stopping_server_not_serving(self):
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            server = stack.enter_context(spind.Spind(
                spind.make_dummy_model(os.path.join(folder, "random")),
                spind.POOLS | {"model.load_format": "dummy", "server.max_queue": 1, "scheduler.max_num_seqs": 1}))
            client = Inference(server.grpc_port)
            stack.callback(client.channel.close)
            long = {"max_tokens": 10000, "ignore_eos": True}
            running = client.generate(tokens=[5], sampling=long)
            next(running)
            waiting = client.generate(tokens=[6], sampling=long)
            spind.wait_until(lambda: server.metric("spin:num_requests_waiting") == 1, 5, "a request waits")
            with self.assertRaises(grpc.RpcError) as caught:
                list(client.generate(tokens=[7]))
            self.assertEqual(caught.exception.code(), grpc.StatusCode.RESOURCE_EXHAUSTED)
            with self.assertRaises(grpc.RpcError) as caught:
                list(client.generate(text="words"))
            self.assertEqual(caught.exception.code(), grpc.StatusCode.UNIMPLEMENTED)
            self.assertIn("tokenizer", caught.exception.details())
            waiting.cancel()
            spind.wait_until(lambda: server.metric("spin:num_requests_waiting") == 0, 2, "the queue is empty")
            server.signal()
            not_serving = health_pb2.HealthCheckResponse.NOT_SERVING
            spind.wait_until(lambda: client.health() == not_serving, 5, "not serving")
            with self.assertRaises(grpc.RpcError) as caught:
                list(client.generate(tokens=[7]))
            self.assertEqual(caught.exception.code(), grpc.StatusCode.UNAVAILABLE)
            running.cancel()
            self.assertEqual(server.wait(), 0)


if __name__ == "__main__":
    unittest.main()
