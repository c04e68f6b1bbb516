#!/usr/bin/env python3
"""Writes tests/models/testdata/tokenizers/*.json: small tokenizers of the three families' shapes, and what Hugging
Face `tokenizers` makes of a few hundred strings with them.

    pip install tokenizers==0.23.3
    python3 tests/models/testdata/make_tokenizer_fixtures.py

FAMILY.tokenizer.json is a tokenizer.json of 2,000 tokens; FAMILY.cases.json is a list of
{"text", "ids", "special_ids", "decoded", "skipped"}: encoded without and with special tokens, and special_ids decoded
with special tokens kept and skipped (each left out when it equals the text).
"""

import json
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../tokenizer"))

from diverse_texts import diverse_texts  # noqa: E402
from tokenizers import (Regex, Tokenizer, decoders, models, normalizers,  # noqa: E402
                        pre_tokenizers, processors, trainers)

VOCAB = 2000
SEED = 20240607
QWEN3_PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
                 r"|\s*[\r\n]+|\s+(?!\S)|\s+")
LLAMA_PATTERN = QWEN3_PATTERN.replace(r"\p{N}|", r"\p{N}{1,3}|")


def token(content, ident, **options):
    return {"id": ident, "content": content, "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": False, "special": True, **options}


def split(pattern):
    return pre_tokenizers.Split(Regex(pattern), "isolated", invert=False)


def byte_level(use_regex):
    return pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=use_regex)


def trained(normalizer, pre_tokenizer):
    tokenizer = Tokenizer(models.BPE())
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=VOCAB, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(diverse_texts(6000, SEED), trainer)
    return json.loads(tokenizer.to_str())


def qwen3():
    file = trained(normalizers.NFC(), pre_tokenizers.Sequence([split(QWEN3_PATTERN), byte_level(False)]))
    size = len(file["model"]["vocab"])
    file["added_tokens"] = [
        token("<|endoftext|>", size), token("<|im_start|>", size + 1), token("<|im_end|>", size + 2),
        token("<tool_call>", size + 3, special=False), token("<think>", size + 4, special=False),
        token("</think>", size + 5, special=False),
        # Shapes that the real file does not have.
        token("\u212bngstr\u00f6m", size + 6, special=False, normalized=True),
        token("left", size + 7, special=False, lstrip=True), token("right", size + 8, special=False, rstrip=True),
        token("word", size + 9, special=False, single_word=True), token("two words", size + 10, special=False),
        token("\u00e9t\u00e9", size + 11, special=False), token("<|im", size + 12, special=False),
    ]
    file["model"]["merges"] = [m if isinstance(m, list) else m.split(" ") for m in file["model"]["merges"]]
    return file


def llama31():
    file = trained(None, pre_tokenizers.Sequence([split(LLAMA_PATTERN), byte_level(False)]))
    model = file["model"]
    model["ignore_merges"] = True
    # Tokens that no merge makes: only ignore_merges finds them.
    for word in ["\u0120Sphinx", "quartz", "judge", "\u0120vow", "\u00e6\u0137\u0131\u00e6\u012f\u00b7"]:
        model["vocab"].setdefault(word, len(model["vocab"]))
    size = len(model["vocab"])
    names = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    names += [f"<|reserved_special_token_{i}|>" for i in range(8)]
    file["added_tokens"] = [token(name, size + i) for i, name in enumerate(names)]
    file["post_processor"] = {"type": "Sequence", "processors": [
        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
        {"type": "TemplateProcessing",
         "single": [{"SpecialToken": {"id": names[0], "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
         "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
         "special_tokens": {names[0]: {"id": names[0], "ids": [size], "tokens": [names[0]]}}}]}
    model["merges"] = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    return file


def smollm2():
    file = trained(None, pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level(True)]))
    # Here the special tokens are part of the model's own vocabulary, in front, as in the real file.
    names = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<jupyter_code>"]
    vocab = sorted(file["model"]["vocab"].items(), key=lambda item: item[1])
    file["model"]["vocab"] = {content: i for i, content in enumerate(names + [content for content, _ in vocab])}
    file["added_tokens"] = [token(name, i) for i, name in enumerate(names)]
    file["model"]["merges"] = [m if isinstance(m, str) else " ".join(m) for m in file["model"]["merges"]]
    return file


def texts(added):
    extra = ["Sphinx of black quartz, judge my vow 敏捷", "to the left of a word, words, sword word",
        " left  \n right \t x",
             "two words été \u0065\u0301t\u0065\u0301 A\u030angstro\u0308m \u00c5ngstr\u00f6m",
             "<|im<|im_start|><|im_start<|im_end|>"]
    return extra + [text for text in diverse_texts(430, SEED + 1, added) if len(text) <= 400]


def cases(path):
    tokenizer = Tokenizer.from_file(path)
    added = [added.content for added in tokenizer.get_added_tokens_decoder().values()]
    for text in texts(added):
        full = tokenizer.encode(text, add_special_tokens=True).ids
        case = {"text": text, "ids": tokenizer.encode(text, add_special_tokens=False).ids, "special_ids": full,
                "decoded": tokenizer.decode(full, skip_special_tokens=False),
                "skipped": tokenizer.decode(full, skip_special_tokens=True)}
        yield {key: value for key, value in case.items() if key == "text" or value != text}


def write(path, value):
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=True, separators=(",", ":"))
        file.write("\n")
    print(f"{path}: {os.path.getsize(path)} bytes")


def main():
    folder = os.path.join(HERE, "tokenizers")
    os.makedirs(folder, exist_ok=True)
    for family in (qwen3, llama31, smollm2):
        path = os.path.join(folder, family.__name__ + ".tokenizer.json")
        write(path, family())
        write(os.path.join(folder, family.__name__ + ".cases.json"), list(cases(path)))


if __name__ == "__main__":
    main()
