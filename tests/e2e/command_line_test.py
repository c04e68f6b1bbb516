#!/usr/bin/env python3
"""spind's commands that end by themselves, and what keeps it from starting.

usage: tools/test tests/e2e/command_line_test.py
"""
import json
import os
import re
import shutil
import tempfile
import unittest

import spind

MODEL = spind.TINY_LLAMA
SMALL = ["--set", "memory.hbm_budget=64MiB", "--set", "memory.host_pool=64MiB"]


class CommandLineTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def write(self, name, text):
        path = os.path.join(self.folder, name)
        with open(path, "w") as f:
            f.write(text)
        return path

    def runs(self, *args, env=None):
        status, output, error = spind.command_output(*args, env=env)
        self.assertEqual(status, 0, error)
        return output

    def refused(self, *args, env=None):
        """The one-line reason."""
        status, output, error = spind.command_output(*args, env=env)
        self.assertEqual(status, 1, output + error)
        line = error.strip().splitlines()[-1]
        self.assertTrue(line.startswith("spind: "), error)
        return line

    def copy_of_model(self):
        path = os.path.join(self.folder, "model")
        shutil.copytree(MODEL, path)
        return path

    def test_help_names_the_flags_and_keys(self):
        text = self.runs("--help")
        for flag in ("--model", "--config", "--set", "--ready-file", "--check-config", "--print-config",
                     "--help-config"):
            self.assertIn(flag, text)
        text = self.runs("--help-config")
        for section in ("model", "server", "memory", "sparse", "scheduler", "backend", "log"):
            self.assertIn(f"\n{section}:\n", text)
        self.assertIn("SPIN_SPARSE_QUEST_DENSE_LAYERS", text)
        self.assertRegex(self.runs("--version"), r"^spind \d+\.\d+\.\d+\n$")

    def test_values_come_from_file_environment_and_flags_in_that_order(self):
        path = self.write("a.yaml", "log:\n  level: warning\n"
                                    "server:\n  http_port: 7000\n  grpc_port: 7001\n  max_queue: 9\n")
        text = self.runs("--config", path, "--set", "server.http_port=7002", "--print-config",
                         env={"SPIN_SERVER_HTTP_PORT": "7003", "SPIN_SERVER_GRPC_PORT": "7004"})
        for line in (r"http_port: 7002 +# --set", r"grpc_port: 7004 +# SPIN_SERVER_GRPC_PORT",
                     r"max_queue: 9 +# .*a\.yaml:6", r"level: warning +# .*a\.yaml:2", r"max_body: 32MiB +# default"):
            self.assertRegex(text, line)
        again = self.runs("--config", self.write("b.yaml", text), "--print-config")

        def values(printed):
            return re.sub(r" *#.*", "", printed)
        self.assertEqual(values(again), values(text))

    def test_a_host_pool_beyond_the_machine_is_refused_before_weights_are_read(self):
        shape = os.path.join(spind.ROOT, "configs/models/qwen3-8b")
        pool = ["--set", "memory.hbm_budget=64GiB", "--set", "memory.host_pool=4TiB"]
        line = self.refused("--model", shape, "--check-config", *pool)
        self.assertIn("memory.host_pool: 4.00 TiB, but the process may use", line)

    def test_check_config_prints_the_plan(self):
        text = self.runs("--model", MODEL, "--check-config", *SMALL)
        self.assertIn("LlamaForCausalLM", text)
        self.assertRegex(text, r"memory\.hbm_budget +64\.0 MiB")
        self.assertRegex(text, r"memory\.host_pool +64\.0 MiB")
        self.assertRegex(text, r"\d+ tokens in all")

    def test_auto_takes_host_memory_only_where_something_can_be_tiered(self):
        for settings, pinned in [([], False), (["memory.placement=tiered"], True), (["sparse.algorithm=quest"], True),
                                 (["sparse.algorithm=quest", "memory.placement=resident"], False),
                                 (["sparse.algorithm=quest", "sparse.exact=true"], False)]:
            with self.subTest(settings=settings):
                text = self.runs("--model", MODEL, "--check-config", "--set", "memory.hbm_budget=1GiB",
                                 *(part for setting in settings for part in ("--set", setting)))
                self.assertEqual(re.search(r"memory\.host_pool +(.*)", text)[1] != "0 B  off: no sequence is Tiered",
                                 pinned, text)

    def test_mistakes_in_the_file_are_told_with_line_and_key(self):
        for text, parts in [
                ("server:\n  http_port: high\n", ("bad.yaml:2", "server.http_port", "0..65535")),
                ("sparse:\n  algoritm: quest\n", ("bad.yaml:2", "sparse.algoritm", "did you mean 'sparse.algorithm'")),
                ("memory:\n  hbm_budget: 12parsecs\n", ("bad.yaml:2", "memory.hbm_budget")),
                ("sparse:\n  algorithm: qest\n", ("bad.yaml:2", "sparse.algorithm", "'qest'", "quest")),
                ("log:\n  level: info\nlog:\n  level: debug\n", ("bad.yaml:4", "log.level", "twice")),
                ("server:\n  - a\n", ("bad.yaml:1", "server")),
                ("server: {http_port: 1\n", ("bad.yaml:", "YAML")),
        ]:
            with self.subTest(text=text):
                reason = self.refused("--config", self.write("bad.yaml", text), "--print-config")
                for part in parts:
                    self.assertIn(part, reason)

    def test_mistakes_on_the_command_line_are_named(self):
        for args, part in [(["--sett", "a=b"], "--sett"), (["serve"], "serve"), (["--model"], "--model"),
                           (["--set", "a"], "KEY=VALUE"), (["--set", "memory.placment=auto"], "memory.placement"),
                           (["--set", "memory.placement=cloud"], "auto, resident, tiered"),
                           (["--config", os.path.join(self.folder, "none.yaml")], "none.yaml")]:
            with self.subTest(args=args):
                self.assertIn(part, self.refused(*args))
        self.assertIn("SPIN_LOG_LEVEL", self.refused("--print-config", env={"SPIN_LOG_LEVEL": "loud"}))

    def test_values_that_do_not_fit_the_model_are_told_with_their_place(self):
        path = self.write("small.yaml", "model:\n  max_model_len: 9000\n")
        reason = self.refused("--model", MODEL, "--config", path, "--check-config")
        self.assertIn("small.yaml:2: model.max_model_len: 9000", reason)
        reason = self.refused("--model", MODEL, "--set", "memory.hbm_budget=1KiB")
        self.assertIn("--set: memory.hbm_budget: ", reason)

    def test_what_cannot_be_served_is_refused_before_it_listens(self):
        self.assertIn("--model", self.refused())
        self.assertIn("config.json", self.refused("--model", self.folder))
        self.assertIn("cuda", self.refused("--model", MODEL, "--set", "backend.device=cuda").lower())
        self.assertIn("sparse.algorithm", self.refused("--model", MODEL, "--set", "sparse.algorithm=magic"))
        self.assertIn("memory.hbm_budget", self.refused("--model", MODEL, "--set", "memory.hbm_budget=1KiB"))
        self.assertIn("max_model_len", self.refused("--model", MODEL, "--set", "model.max_model_len=9000"))

    def test_defaults_that_no_request_could_use_are_refused(self):
        model = self.copy_of_model()
        for defaults, part in [({"temperature": 100}, "temperature"), ({"top_p": 0}, "top_p"),
                               ({"repetition_penalty": -1}, "repetition_penalty")]:
            with self.subTest(defaults=defaults):
                self.write("model/generation_config.json", json.dumps(defaults))
                reason = self.refused("--model", model, "--check-config", *SMALL)
                self.assertIn("generation_config.json", reason)
                self.assertIn(part, reason)
                self.runs("--model", model, "--check-config", "--set", "model.generation_config=none", *SMALL)

    def test_broken_model_files_are_refused_by_name(self):
        model = self.copy_of_model()
        common = ["--model", model, "--set", "server.http_port=0", "--set", "server.grpc_port=0", *SMALL]
        with open(os.path.join(model, "tokenizer.json"), "w") as f:
            f.write('{"model": {"type": "BPE", "vocab": ')
        self.assertIn("tokenizer.json", self.refused(*common))
        os.remove(os.path.join(model, "tokenizer.json"))
        weights = os.path.join(model, "model.safetensors")
        os.truncate(weights, os.path.getsize(weights) // 2)
        self.assertIn("model.safetensors", self.refused(*common))
        os.remove(weights)
        self.assertIn("safetensors", self.refused(*common))
        with open(os.path.join(model, "config.json")) as f:
            config = json.load(f)
        for change, part in [({"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2"}, "GPT2LMHeadModel"),
                             ({"hidden_size": -1}, "hidden_size"), ({"num_key_value_heads": 5}, "heads")]:
            self.write("model/config.json", json.dumps(config | change))
            self.assertIn(part, self.refused(*common))
        self.write("model/config.json", "{")
        self.assertIn("config.json", self.refused(*common))


if __name__ == "__main__":
    unittest.main()
