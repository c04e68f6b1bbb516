#!/usr/bin/env python3
"""Makes the small random checkpoints of tests/models/golden_test.cc and records what transformers computes on them.

usage: make_golden_models.py OUTPUT_FOLDER      (needs torch, transformers and safetensors)

A model is a folder as Hugging Face writes it, plus golden.json: prompts (seeded token ids), the float32 log-probability of
each prompt token after the first, transformers' own bfloat16 error on them, and a greedy continuation with the gap between
its two best log-probabilities at each token. The script refuses weights that prove nothing: logits must have a standard
deviation >= 2, and leaving out the rotary embedding must move log-probabilities by more than 0.1.
"""
import json
import pathlib
import sys

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, LlamaForCausalLM, Qwen3ForCausalLM

VOCAB = 320
GREEDY_TOKENS = 16

# name -> (class, config.json, type of the stored tensors, shards, prompt lengths)
BASE = dict(vocab_size=VOCAB, hidden_act="silu", max_position_embeddings=8192, rms_norm_eps=1e-6, initializer_range=0.02,
            bos_token_id=1, eos_token_id=2, attention_bias=False, use_cache=True)
MODELS = {
    "llama_gqa3_llama3rope": (LlamaForCausalLM, dict(
        BASE, architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=96, intermediate_size=160, num_hidden_layers=3,
        num_attention_heads=6, num_key_value_heads=2, head_dim=64, tie_word_embeddings=True, torch_dtype="bfloat16",
        rope_theta=500000.0, rope_scaling=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                               original_max_position_embeddings=1024)),
        torch.bfloat16, 1, [1, 2, 15, 16, 17, 64, 65, 511, 513, 4000]),
    "qwen3_d128_yarn_sharded": (Qwen3ForCausalLM, dict(
        BASE, architectures=["Qwen3ForCausalLM"], model_type="qwen3", hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=1, head_dim=128, tie_word_embeddings=False, dtype="bfloat16",
        rope_parameters=dict(rope_type="yarn", rope_theta=1000000.0, factor=4.0, original_max_position_embeddings=2048)),
        torch.bfloat16, 3, [1, 33, 700, 3000]),
    "qwen3_gqa5_tied_f32": (Qwen3ForCausalLM, dict(
        BASE, architectures=["Qwen3ForCausalLM"], model_type="qwen3", hidden_size=80, intermediate_size=112, num_hidden_layers=2,
        num_attention_heads=5, num_key_value_heads=1, head_dim=64, tie_word_embeddings=True, torch_dtype="float32",
        rope_theta=1000000.0, rope_scaling=None), torch.float32, 1, [3, 129, 1000]),
    "llama_gqa8_f16": (LlamaForCausalLM, dict(
        BASE, architectures=["LlamaForCausalLM"], model_type="llama", hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=8, num_key_value_heads=1, tie_word_embeddings=False, torch_dtype="float16",
        rope_theta=10000.0, head_dim=64), torch.float16, 1, [5, 257]),
}


def scale_weights(model, generator):
    """Normal weights whose logits and attention scores are far from flat."""
    for name, p in model.named_parameters():
        with torch.no_grad():
            p.normal_(0, 1, generator=generator)
            if p.dim() == 1:
                p.mul_(0.2).add_(1)
            elif "embed" in name or "lm_head" in name:
                p.mul_(2.6 / p.shape[1] ** 0.5)
            elif "q_proj" in name or "k_proj" in name:
                p.mul_(1.0 / p.shape[1] ** 0.5)
            else:
                p.mul_(1.0 / p.shape[1] ** 0.5)


def logprobs(model, ids, **kwargs):
    with torch.no_grad():
        return torch.log_softmax(model(ids.unsqueeze(0), **kwargs).logits[0].float(), -1)


def greedy(model, ids):
    tokens, gaps = [], []
    for _ in range(GREEDY_TOKENS):
        last = logprobs(model, torch.tensor(ids + tokens))[-1]
        top = torch.topk(last, 2)
        tokens.append(int(top.indices[0]))
        gaps.append(float(top.values[0] - top.values[1]))
    return tokens, gaps


def write_sharded(folder, tensors, shards):
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names, index = sorted(tensors), {}
    for s in range(shards):
        file = f"model-{s + 1:05d}-of-{shards:05d}.safetensors"
        part = {n: tensors[n] for n in names[s::shards]}
        save_file(part, folder / file, metadata={"format": "pt"})
        index.update({n: file for n in part})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}, indent=1))


def make(out, name, seed):
    cls, config, stored, shards, lengths = MODELS[name]
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    hf_config = AutoConfig.from_pretrained(folder)
    hf_config._attn_implementation = "eager"
    model = cls(hf_config).float().eval()
    generator = torch.Generator().manual_seed(seed)
    scale_weights(model, generator)
    for p in model.parameters():
        p.data = p.data.to(stored).float()
    tensors = {n: p.data.to(stored).contiguous() for n, p in model.named_parameters()}
    write_sharded(folder, tensors, shards)
    half = cls(hf_config).eval().bfloat16()
    half.load_state_dict({n: p.bfloat16() for n, p in model.state_dict().items()})
    cases = []
    for length in lengths:
        ids = torch.randint(0, VOCAB, (length,), generator=generator)
        full = logprobs(model, ids)
        case = {"tokens": ids.tolist(), "logprobs": [], "bf16_max_error": 0.0}
        if length > 1:
            pick = lambda lp: lp[:-1].gather(1, ids[1:, None])[:, 0]
            case["logprobs"] = [round(float(x), 6) for x in pick(full)]
            case["bf16_max_error"] = float((pick(full) - pick(logprobs(half, ids))).abs().max())
        if 16 < length < 1000:
            flat = logprobs(model, ids, position_ids=torch.zeros(1, length, dtype=torch.long))
            moved, spread = float((flat - full).abs().mean()), float(model(ids[None]).logits.std())
            print(f"{name} {length}: without rotation log-probabilities move {moved:.3f}, logits' deviation {spread:.2f}")
            assert moved > 0.1 and spread >= 2, (moved, spread)
        if length <= 1000:
            case["greedy"], case["gaps"] = greedy(model, ids.tolist())
        cases.append(case)
        print(f"{name} {length}: bf16 error {case['bf16_max_error']:.4f}")
    (folder / "golden.json").write_text(json.dumps({"cases": cases}, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    torch.manual_seed(0)
    for i, name in enumerate(MODELS):
        make(pathlib.Path(sys.argv[1]), name, 1000 + i)
