#!/usr/bin/env python3
"""The retrieval tasks of the testbed: prompts of an exact length, and the tokens that a right greedy answer has.

usage: tasks.py --fixtures FILE         (writes the examples that other implementations are tested against)

A statement binds a key to its record; a question names one key or more and is answered by their records, each behind
its key. README.md is the specification, down to the order of the random draws.
"""
import argparse
import json
from dataclasses import dataclass

from vocabulary import (ALL, ANS, ASK, BOS, END, KEY_BASE, NUM_KEYS, NUM_VALUES, ORDINAL_BASE, SET, VALUE_BASE, Random,
                        filler_text)

TASKS = ("needle", "multi_key", "multi_value", "multi_query", "tracking")
MULTI_VALUES = 4   # values of one key
MULTI_QUERIES = 4  # keys of one question
HOPS = 4           # links of a chain before its value

FIXTURE_LENGTHS = (256, 1024)
FIXTURE_EXAMPLES = 2


@dataclass
class Example:
    task: str
    prompt: list
    answer: list


def clamp(value, low, high):
    return max(low, min(high, value))


def draw_keys(random, count):
    """`count` different keys: the start of a Fisher-Yates shuffle."""
    pool = list(range(NUM_KEYS))
    for i in range(count):
        j = i + random.below(NUM_KEYS - i)
        pool[i], pool[j] = pool[j], pool[i]
    return [KEY_BASE + key for key in pool[:count]]


def draw_value(random):
    return VALUE_BASE + random.below(NUM_VALUES)


def record_statement(key, first, second):
    return [SET, key, first, second, END]


def link_statement(key, target):
    return [SET, key, target, END]


def records(random, count):
    """`count` keys with a value of two tokens each: [(key, first, second)]."""
    return [(key, draw_value(random), draw_value(random)) for key in draw_keys(random, count)]


# Each of the following returns (statements in the order they were made, question, answer).


def single(random, count):
    made = records(random, count)
    return [record_statement(*r) for r in made], [ASK, made[0][0], ANS], list(made[0])


def needle(random, _):
    return single(random, 1)


def multi_key(random, length):
    return single(random, clamp(length // 64, 4, 128))


def multi_query(random, length):
    made = records(random, clamp(length // 64, MULTI_QUERIES, 128))
    asked = made[:MULTI_QUERIES]
    question = [token for r in asked for token in (ASK, r[0])] + [ANS]
    return [record_statement(*r) for r in made], question, [token for r in asked for token in r]


def multi_value(random, length):
    keys = draw_keys(random, clamp(length // 256, 1, 32))
    made = [(key, ORDINAL_BASE + i, draw_value(random)) for key in keys for i in range(MULTI_VALUES)]
    answer = [token for r in made[:MULTI_VALUES] for token in r]
    return [record_statement(*r) for r in made], [ALL, keys[0], ANS], answer


def tracking(random, length):
    chains = clamp(length // 512, 1, 16)
    keys = draw_keys(random, chains * (HOPS + 1))
    statements, answer = [], None
    for c in range(chains):
        chain = keys[c * (HOPS + 1):(c + 1) * (HOPS + 1)]
        value = [draw_value(random), draw_value(random)]
        statements += [link_statement(a, b) for a, b in zip(chain, chain[1:])] + [record_statement(chain[-1], *value)]
        answer = answer or chain + value
    return statements, [ASK, keys[0], ANS], answer


MAKERS = {"needle": needle, "multi_key": multi_key, "multi_value": multi_value, "multi_query": multi_query,
          "tracking": tracking}


def spread(random, statements, room):
    """The statements in random order, at random places of `room` tokens of filler and statements."""
    order = list(range(len(statements)))
    for i in range(len(order) - 1, 0, -1):
        j = random.below(i + 1)
        order[i], order[j] = order[j], order[i]
    num_filler = room - sum(map(len, statements))
    cuts = sorted(random.below(num_filler + 1) for _ in statements)
    filler, text, begin = filler_text(random, num_filler), [], 0
    for cut, index in zip(cuts, order):
        text += filler[begin:cut] + statements[index]
        begin = cut
    return text + filler[begin:]


def example(task, length, seed, index):
    """Example `index` of a task, its prompt of exactly `length` tokens (256 <= length < 2^20, index < 2^16)."""
    random = Random(seed << 40 | TASKS.index(task) << 36 | length << 16 | index)
    statements, question, answer = MAKERS[task](random, length)
    prompt = [BOS] + spread(random, statements, length - 1 - len(question)) + question
    return Example(task, prompt, answer)


def question_of(prompt):
    """The question at a prompt's end: markers and keys behind the last filler token or statement."""
    begin = len(prompt)
    while prompt[begin - 1] in (ASK, ALL, ANS) or KEY_BASE <= prompt[begin - 1] < KEY_BASE + NUM_KEYS:
        begin -= 1
    return prompt[begin:]


def answer_by_reading(prompt):
    """Answers a prompt by looking its question up in its text: what a perfect model does."""
    facts = {}
    for i, token in enumerate(prompt):
        if token == SET:
            facts.setdefault(prompt[i + 1], []).append(prompt[i + 2:prompt.index(END, i)])
    question, answer = question_of(prompt), []
    for key in (token for token in question if token not in (ASK, ALL, ANS)):
        if question[0] == ALL:
            answer += [token for fact in sorted(facts[key]) for token in [key] + fact]
            continue
        answer.append(key)
        while len(facts[key][0]) == 1:
            key = facts[key][0][0]
            answer.append(key)
        answer += facts[key][0]
    return answer


def fixtures(seed=1):
    rows = []
    for task in TASKS:
        for length in FIXTURE_LENGTHS:
            for index in range(FIXTURE_EXAMPLES):
                made = example(task, length, seed, index)
                rows.append({"task": task, "length": length, "seed": seed, "index": index, "prompt": made.prompt,
                             "answer": made.answer})
    return {"examples": rows}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--fixtures", required=True)
    args = parser.parse_args()
    rows = [json.dumps(row, separators=(",", ":")) for row in fixtures()["examples"]]
    with open(args.fixtures, "w") as f:
        f.write('{"examples":[\n' + ",\n".join(rows) + "\n]}\n")


if __name__ == "__main__":
    main()
