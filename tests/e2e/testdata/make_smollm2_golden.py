#!/usr/bin/env python3
"""Records what transformers computes on real text with SmolLM2-135M-Instruct, for tests/e2e/smollm2_test.py.

usage: make_smollm2_golden.py MODEL_FOLDER      (needs torch and transformers; the folder: tools/convert_smollm2.py)

Reads testdata/smollm2/*.txt beside this file and writes smollm2/golden.json: for each text its tokens, the float32
log-probability of each token after the first, the 20 most probable tokens at every 16th place, and a greedy continuation
with its log-probabilities and the gap to the second best. Beside them the errors of transformers' own bfloat16, worst and
mean, over the same tokens.
"""
import contextlib
import json
import pathlib
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, DynamicCache

TOP = 20
EVERY = 16
GREEDY_TOKENS = 32
FOLDER = pathlib.Path(__file__).parent / "smollm2"


def logprobs_of(model, tokens):
    """[len(tokens), vocabulary], float32."""
    with torch.no_grad():
        return torch.log_softmax(model(torch.tensor([tokens])).logits[0].float(), -1)


@contextlib.contextmanager
def products_in_float32():
    """Products of bfloat16 summed in float32 and rounded once, as units for bfloat16 do; without one, torch takes hours."""
    linear, matmul = torch.nn.functional.linear, torch.matmul
    torch.nn.functional.linear = lambda x, w, b=None: linear(x.float(), w.float(), b).to(x.dtype)
    torch.matmul = lambda x, y: matmul(x.float(), y.float()).to(x.dtype)
    yield
    torch.nn.functional.linear, torch.matmul = linear, matmul


def rounded(values):
    return [round(float(value), 5) for value in values]


def greedy(model, tokens):
    out, cache = {"tokens": [], "logprobs": [], "gaps": []}, DynamicCache()
    for _ in range(GREEDY_TOKENS):
        new = (tokens + out["tokens"])[cache.get_seq_length():]
        with torch.no_grad():
            logits = model(torch.tensor([new]), past_key_values=cache).logits[0, -1]
        best = torch.topk(torch.log_softmax(logits, -1), 2)
        out["tokens"].append(int(best.indices[0]))
        out["logprobs"] += rounded(best.values[:1])
        out["gaps"] += rounded(best.values[:1] - best.values[1:])
    return out


def errors(wanted, got):
    difference = (wanted - got).abs()
    return {"worst": round(float(difference.max()), 5), "mean": round(float(difference.mean()), 5)}


def record(text, tokenizer, full, half):
    tokens = tokenizer(text)["input_ids"]
    wanted = logprobs_of(full, tokens)
    with products_in_float32():
        got = logprobs_of(half, tokens)
    following = torch.tensor(tokens[1:])[:, None]
    places = list(range(0, len(tokens) - 1, EVERY))
    top = torch.topk(wanted[places], TOP)
    return {"tokens": tokens, "logprobs": rounded(wanted[:-1].gather(1, following)[:, 0]),
            "bf16_error": errors(wanted[:-1].gather(1, following), got[:-1].gather(1, following)),
            "top_places": places, "top_tokens": top.indices.tolist(), "top_logprobs": [rounded(row) for row in top.values],
            "top_bf16_error": errors(top.values, got[places].gather(1, top.indices)),
            "greedy": greedy(full, tokens)}


def main():
    torch.manual_seed(0)
    folder = sys.argv[1]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    full = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    half = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, attn_implementation="eager").eval()
    golden = {}
    for path in sorted(FOLDER.glob("*.txt")):
        golden[path.stem] = case = record(path.read_text(), tokenizer, full, half)
        print(path.stem, len(case["tokens"]), case["bf16_error"], case["top_bf16_error"],
              repr(tokenizer.decode(case["greedy"]["tokens"])))
    lines = ",\n".join(f" {json.dumps(name)}: {json.dumps(case, separators=(',', ':'))}" for name, case in golden.items())
    (FOLDER / "golden.json").write_text("{\n" + lines + "\n}\n")


if __name__ == "__main__":
    main()
