#!/usr/bin/env python3
"""Compares our tokenizer with Hugging Face `tokenizers` on diverse strings, for real tokenizer.json files.

    bazel build //tests/models/tokenizer:tokenize_driver
    pip install tokenizers
    python3 tests/models/tokenizer/compare_tokenizers.py [--count 10000] [--seed 1] TOKENIZER_JSON...

Compared: ids with and without special tokens, text decoded with and without special tokens, and the text of the
incremental decoder. Exits with 1 when anything differs.
"""

import argparse
import os
import struct
import subprocess
import sys
import tempfile

from tokenizers import Tokenizer

from diverse_texts import diverse_texts

DRIVER = os.path.join(os.path.dirname(__file__), "../../../bazel-bin/tests/models/tokenizer/tokenize_driver")


class Reader:
    def __init__(self, data):
        self.data = data
        self.at = 0

    def take(self, count):
        self.at += count
        return self.data[self.at - count:self.at]

    def ids(self):
        count = struct.unpack("=I", self.take(4))[0]
        return list(struct.unpack(f"={count}i", self.take(4 * count)))

    def text(self):
        return self.take(struct.unpack("=I", self.take(4))[0]).decode("utf-8")


def run_driver(driver, path, texts):
    with tempfile.TemporaryFile() as stdin:
        for text in texts:
            data = text.encode("utf-8")
            stdin.write(struct.pack("=I", len(data)) + data)
        stdin.seek(0)
        reader = Reader(subprocess.run([driver, path], stdin=stdin, stdout=subprocess.PIPE, check=True).stdout)
    return [(reader.ids(), reader.ids(), reader.text(), reader.text(), reader.text()) for _ in texts]


def reference(tokenizer, text):
    plain = tokenizer.encode(text, add_special_tokens=False).ids
    full = tokenizer.encode(text, add_special_tokens=True).ids
    kept = tokenizer.decode(full, skip_special_tokens=False)
    return plain, full, tokenizer.decode(full, skip_special_tokens=True), kept, kept


def compare(driver, path, count, seed, show):
    tokenizer = Tokenizer.from_file(path)
    added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    texts = diverse_texts(count, seed, added)
    names = ["ids", "ids with special tokens", "decoded, special tokens skipped", "decoded", "decoded in steps"]
    different = 0
    for text, ours in zip(texts, run_driver(driver, path, texts)):
        theirs = reference(tokenizer, text)
        wrong = [name for name, a, b in zip(names, ours, theirs) if a != b]
        different += bool(wrong)
        if wrong and different <= show:
            at = names.index(wrong[0])
            print(f"  {wrong} of {ascii(text)}\n    ours   {ours[at]!r:.500}\n    theirs {theirs[at]!r:.500}")
    print(f"{path}: {len(texts)} strings, {sum(len(t.encode()) for t in texts)} bytes, {different} differ")
    return different


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="TOKENIZER_JSON")
    parser.add_argument("--count", type=int, default=10000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", type=int, default=5, help="print this many differences of each file")
    parser.add_argument("--driver", default=DRIVER)
    args = parser.parse_args()
    sys.exit(any([compare(args.driver, path, args.count, args.seed, args.show) for path in args.files]))


if __name__ == "__main__":
    main()
