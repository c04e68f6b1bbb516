"""Starts spind for a test and stops it afterwards; models to serve; what its /metrics say."""
import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SPIND = os.environ.get("SPIN_SPIND", os.path.join(ROOT, "bazel-bin/server/spind"))
SMOLLM2 = os.environ.get("SPIN_MODEL_DIR", os.path.join(ROOT, ".cache/models/smollm2-135m-instruct"))
GOLDEN = os.path.join(ROOT, "tests/models/testdata/golden")
# Small random checkpoints whose attention matters; no tokenizer; context 8192, 320 tokens.
TINY_LLAMA = os.path.join(GOLDEN, "llama_gqa3_llama3rope")
TINY_QWEN3 = os.path.join(GOLDEN, "qwen3_gqa5_tied_f32")

START_SECONDS = 120
REQUEST_SECONDS = 180  # a scored prompt of 2,000 tokens on a busy machine
STOP_SECONDS = 60
POOLS = {"memory.hbm_budget": "256MiB", "memory.host_pool": "256MiB"}
SMALL_POOLS = {"memory.hbm_budget": "64MiB", "memory.host_pool": "64MiB"}

SAMPLE_LINE = re.compile(r'([A-Za-z_:][A-Za-z0-9_:]*)(\{.*\})? (\S+)')
LABELS = re.compile(r'\{(?:[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\]|\\.)*",?)*\}')


def make_dummy_model(folder, **changes):
    """A Llama config.json without weights or tokenizer, for load_format dummy: a few milliseconds a token, so
    that a long answer is surely still running when a test looks at it."""
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 512, "intermediate_size": 1536,
        "num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 64,
        "vocab_size": 32000, "max_position_embeddings": 16384, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "tie_word_embeddings": True, "torch_dtype": "bfloat16", "hidden_act": "silu", "bos_token_id": 1,
        "eos_token_id": 2,
    }
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "config.json"), "w") as f:
        json.dump(config | changes, f)
    return folder


def environment():
    """The test's own environment without what would configure spind."""
    return {name: value for name, value in os.environ.items()
            if not name.startswith("SPIN_")}


def command_output(*args, env=None):
    """(exit status, standard output, standard error) of a spind command that ends by itself."""
    done = subprocess.run([SPIND, *args], capture_output=True, text=True, timeout=START_SECONDS,
                          env=environment() | (env or {}))
    return done.returncode, done.stdout, done.stderr


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_until(condition, seconds=10, what="the condition"):
    """Polls until `condition()` is true and returns its value."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.005)
    raise AssertionError(f"{what}: not within {seconds} s")


class Spind:
    """A running server. `settings` are configuration keys; ports are free ones unless given. `arguments` come last."""

    def __init__(self, model, settings=None, wait=True, arguments=()):
        self.folder = tempfile.TemporaryDirectory(prefix="spind-e2e-")
        self.ready_file = os.path.join(self.folder.name, "ready.json")
        self.log_file = os.path.join(self.folder.name, "log")
        values = {"server.http_port": 0, "server.grpc_port": 0} | (settings or {})
        command = [SPIND, "--model", model, "--ready-file", self.ready_file]
        for key, value in values.items():
            command += ["--set", f"{key}={value}"]
        command += arguments
        self.http_port = values["server.http_port"]
        self.grpc_port = values["server.grpc_port"]
        with open(self.log_file, "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env=environment())
        if wait:
            try:
                self.wait_ready()
            except BaseException:
                self.stop()
                raise

    def log(self):
        with open(self.log_file, errors="replace") as f:
            return f.read()

    def wait_ready(self):
        """Returns the ready file's content."""
        def ready():
            if self.process.poll() is not None:
                raise AssertionError(f"spind ended with status {self.process.returncode}:\n{self.log()}")
            return os.path.exists(self.ready_file)
        wait_until(ready, START_SECONDS, "spind is ready")
        with open(self.ready_file) as f:
            content = json.load(f)
        self.http_port, self.grpc_port = content["http"], content["grpc"]
        return content

    @property
    def url(self):
        return f"http://127.0.0.1:{self.http_port}"

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def wait(self, seconds=STOP_SECONDS):
        """The exit status."""
        return self.process.wait(timeout=seconds)

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=STOP_SECONDS)
        self.folder.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    # ---- HTTP ----

    def request(self, method, path, body=None, headers=None):
        """(status, headers in lower case, body) of one request on its own connection."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.http_port,
                                                           timeout=REQUEST_SECONDS)) as connection:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()

    def post(self, path, body):
        """(status, headers, decoded JSON) of a POST of `body` as JSON."""
        status, headers, data = self.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        return status, headers, json.loads(data)

    def complete(self, prompt, max_tokens=16, **more):
        """The answer to a greedy completion that must succeed."""
        body = {"prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True, "logprobs": 2,
                "return_token_ids": True} | more
        status, _, answer = self.post("/v1/completions", body)
        if status != 200:
            raise AssertionError(f"status {status}: {answer}")
        return answer

    # ---- Metrics ----

    def metrics_text(self):
        status, _, body = self.request("GET", "/metrics")
        assert status == 200, status
        return body.decode()

    def metric(self, name, **labels):
        """The sum of the samples of that name whose labels include `labels`."""
        total, found = 0.0, False
        for line in self.metrics_text().splitlines():
            match = SAMPLE_LINE.fullmatch(line)
            if not match or match[1] != name:
                continue
            if all(f'{key}="{value}"' in (match[2] or "") for key, value in labels.items()):
                total, found = total + float(match[3]), True
        if not found:
            raise AssertionError(f"no metric {name} {labels}")
        return total

    def wait_idle(self, seconds=10):
        wait_until(lambda: self.metric("spin:num_requests_running") == 0 and
                   self.metric("spin:num_requests_waiting") == 0 and
                   self.metric("spin:kv_cache_usage_perc") == 0, seconds, "the server is idle")


def what_was_computed(answer, choice=0):
    """Tokens and log-probabilities of a completion: equal exactly when the arithmetic was."""
    chosen = answer["choices"][choice]
    return chosen["token_ids"], chosen["logprobs"]["token_logprobs"], chosen["logprobs"]["top_logprobs"]


def token_prompt(length, seed=1, vocab_size=320):
    """A prompt of random token ids, none of them special."""
    state, tokens = seed, []
    for _ in range(length):
        state = (state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        tokens.append(3 + (state >> 33) % (vocab_size - 3))
    return tokens
