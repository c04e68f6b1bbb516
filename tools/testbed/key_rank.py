#!/usr/bin/env python3
"""What a rank keeps of a model's keys: factored behind the key norm, or before it and normed again.

usage: key_rank.py [MODEL_FOLDER] [--length TOKENS] [--ranks 20,32,64,96]

For each layer, over one prompt of each task: the error of the keys that attention multiplies (Frobenius, relative), and
the mean error of the last 16 queries' logits. Both subspaces are the best there are for the prompt (eigenvectors of the
Gram matrix of all KV heads together). Needs numpy alone.
"""
import argparse
import json
import pathlib
import struct

import numpy as np

import tasks

QUERIES = 16
ROWS = 1024  # of attention at a time


class Weights:
    def __init__(self, folder):
        self.config = json.loads((folder / "config.json").read_text())
        with open(folder / "model.safetensors", "rb") as file:
            size = struct.unpack("<Q", file.read(8))[0]
            self.header = json.loads(file.read(size))
            self.data = file.read()

    def __call__(self, name):
        entry = self.header[name]
        begin, end = entry["data_offsets"]
        bits = np.frombuffer(self.data[begin:end], dtype=np.uint16).astype(np.uint32) << 16
        return bits.view(np.float32).reshape(entry["shape"])


def rms_norm(x, weight, eps):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * weight


def rotation(length, dim, theta):
    angles = np.arange(length)[:, None, None] * theta ** (-np.arange(dim // 2) * 2.0 / dim)
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)

    def rotate(x):
        low, high = x[..., :dim // 2], x[..., dim // 2:]
        return np.concatenate([low * cos - high * sin, high * cos + low * sin], -1)
    return rotate


def of_rank(keys, rank):
    """The best approximation of keys [tokens, heads, d] by `rank` vectors over all heads."""
    flat = keys.reshape(len(keys), -1)
    basis = np.linalg.eigh((flat.T @ flat).astype(np.float64))[1][:, -rank:].astype(np.float32)
    return (flat @ basis @ basis.T).reshape(keys.shape)


def attend(q, k, v):
    """Causal attention; q [tokens, query heads, d], k and v [tokens, KV heads, d]."""
    out, group, scale = np.empty_like(q), q.shape[1] // k.shape[1], q.shape[2] ** -0.5
    for head in range(q.shape[1]):
        for begin in range(0, len(q), ROWS):
            end = min(begin + ROWS, len(q))
            logits = q[begin:end, head] @ k[:end, head // group].T * scale
            logits[np.arange(begin, end)[:, None] < np.arange(end)] = -np.inf
            weights = np.exp(logits - logits.max(-1, keepdims=True))
            out[begin:end, head] = weights / weights.sum(-1, keepdims=True) @ v[:end, head // group]
    return out


def measure(weights, prompt, ranks, errors):
    """Adds (error of keys, error of logits) to errors[layer, rank, way]."""
    c = weights.config
    heads, kv_heads = c["num_attention_heads"], c["num_key_value_heads"]
    dim, eps = c["head_dim"], c["rms_norm_eps"]
    rotate = rotation(len(prompt), dim, c["rope_theta"])
    x = weights("model.embed_tokens.weight")[prompt]
    for layer in range(c["num_hidden_layers"]):
        def part(name, layer=layer):
            return weights(f"model.layers.{layer}.{name}.weight")
        y = rms_norm(x, part("input_layernorm"), eps)
        q, raw, v = ((y @ part(f"self_attn.{name}_proj").T).reshape(len(x), -1, dim) for name in "qkv")
        norm = part("self_attn.k_norm")
        q, k = rotate(rms_norm(q, part("self_attn.q_norm"), eps)), rms_norm(raw, norm, eps)
        last = q[-QUERIES:].reshape(QUERIES, kv_heads, heads // kv_heads, dim)
        for rank in ranks:
            for way, rebuilt in (("behind", of_rank(k, rank)), ("before", rms_norm(of_rank(raw, rank), norm, eps))):
                logits = np.einsum("qhgd,thd->qhgt", last, rotate(rebuilt - k)) * dim ** -0.5
                errors.setdefault((layer, rank, way), []).append(
                    (np.linalg.norm(rebuilt - k) / np.linalg.norm(k), np.abs(logits).mean()))
        x = x + attend(q, rotate(k), v).reshape(len(x), -1) @ part("self_attn.o_proj").T
        y = rms_norm(x, part("post_attention_layernorm"), eps)
        gate = y @ part("mlp.gate_proj").T
        x = x + (gate / (1 + np.exp(-gate)) * (y @ part("mlp.up_proj").T)) @ part("mlp.down_proj").T


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=pathlib.Path, default=pathlib.Path(__file__).parent / "model")
    parser.add_argument("--length", type=int, default=8192)
    parser.add_argument("--ranks", default="20,32,48,64,96")
    arguments = parser.parse_args()
    weights, errors = Weights(arguments.folder), {}
    ranks = [int(rank) for rank in arguments.ranks.split(",")]
    for task in tasks.TASKS:
        measure(weights, np.array(tasks.example(task, arguments.length, 1, 0).prompt), ranks, errors)
    print("layer  rank   keys: behind  before   logits: behind  before")
    for layer, rank in sorted({key[:2] for key in errors}):
        behind, before = (np.mean(errors[layer, rank, way], axis=0) for way in ("behind", "before"))
        print(f"{layer:5d} {rank:5d} {behind[0]:14.3f} {before[0]:7.3f} {behind[1]:16.3f} {before[1]:7.3f}")


if __name__ == "__main__":
    main()
