#!/usr/bin/env python3
"""Accuracy of a testbed model by task and length.

usage: evaluate.py FOLDER [--lengths 1024,4096] [--examples 64] [--seed 1] [--device cuda]

An answer is right when a greedy decode gives every token of it. One forward pass over prompt and answer shows that: as
long as the guesses before a token are right, the decode sees the answer's own tokens.
"""
import argparse
import json

import numpy as np
import torch

from model import load
from tasks import TASKS, example

TOKENS_PER_BATCH = 1 << 17


def examples_of(task, length, seed, count):
    """(tokens [count, length + answer - 1] int64, answers [count, answer] int64)."""
    made = [example(task, length, seed, index) for index in range(count)]
    return (np.array([e.prompt + e.answer[:-1] for e in made], dtype=np.int64),
            np.array([e.answer for e in made], dtype=np.int64))


def examples_job(args):
    return args[:2], examples_of(*args)


@torch.no_grad()
def right_answers(model, tokens, answers, device):
    """Which of the examples a greedy decode answers right: bool [count]."""
    length, size = tokens.shape[1], answers.shape[1]
    step = max(1, TOKENS_PER_BATCH // length)
    right = []
    for begin in range(0, len(tokens), step):
        part = torch.from_numpy(tokens[begin:begin + step]).to(device)
        positions = torch.arange(length, device=device).expand(part.shape[0], -1)
        last = torch.arange(length - size, length, device=device)
        where = (torch.arange(part.shape[0], device=device)[:, None] * length + last).reshape(-1)
        guesses = model.logits(part, positions, where).argmax(-1).view(-1, size).cpu().numpy()
        right.append((guesses == answers[begin:begin + step]).all(1))
    return np.concatenate(right)


def accuracies(model, sets, device):
    """{(task, length): accuracy} over {(task, length): (tokens, answers)}."""
    return {key: float(right_answers(model, *made, device).mean()) for key, made in sets.items()}


def table(results):
    """One line a length, one column a task."""
    lengths = sorted({length for _, length in results})
    rows = ["  length " + " ".join(f"{task:>12}" for task in TASKS)]
    for length in lengths:
        rows.append(f"{length:8d} " + " ".join(f"{results[task, length]:12.3f}" for task in TASKS))
    return "\n".join(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder")
    parser.add_argument("--lengths", default="1024,4096,8192,16384")
    parser.add_argument("--examples", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", help="file for the accuracies")
    args = parser.parse_args()
    model = load(args.folder, torch.bfloat16).to(args.device)
    sets = {(task, int(length)): examples_of(task, int(length), args.seed, args.examples)
            for length in args.lengths.split(",") for task in TASKS}
    results = accuracies(model, sets, args.device)
    print(table(results))
    if args.json:
        with open(args.json, "w") as f:
            json.dump([{"task": t, "length": n, "accuracy": a} for (t, n), a in results.items()], f, indent=1)


if __name__ == "__main__":
    main()
