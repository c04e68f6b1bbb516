"""Training sequences of the testbed: the sentences of tasks.py, many of them in each sequence.

One sequence of the evaluation asks once; here up to a few hundred keys are bound and asked for, so that nearly every
sequence teaches at nearly every length. What may follow what is exactly what tasks.py makes.

Positions jump ahead at random sentences: a sequence of 512 tokens then spans the distances of a much longer one, and
the rotary embedding meets every distance long before the curriculum reaches the length.
"""
from dataclasses import dataclass

import numpy as np

from tasks import MULTI_QUERIES, MULTI_VALUES, link_statement, record_statement
from vocabulary import (ALL, ANS, ASK, BOS, END, KEY_BASE, NUM_KEYS, NUM_VALUES, ORDINAL_BASE, VALUE_BASE, Random,
                        filler_text)

# What an answer token is graded as; 0: no answer token.
KINDS = ("", "single", "multi_value", "multi_query", "tracking")
SINGLE, MULTI_VALUE, MULTI_QUERY, TRACKING = 1, 2, 3, 4
# How often a sequence begins an entity of each kind, when it mixes them.
MIXTURE = (0.3, 0.2, 0.2, 0.3)
ONE_KIND_SEQUENCES = 0.3
UNASKED = 0.1
JUMPING_SEQUENCES = 0.7
MAX_JUMPS = 8
# No more of a sequence than this is sentences.
MAX_DENSITY = 0.85
FILLER_POOL = 1 << 20


@dataclass
class Batch:
    tokens: np.ndarray     # [sequences, length] int16
    positions: np.ndarray  # [sequences, length] int32, ascending
    kinds: np.ndarray      # [sequences, length] int8: KINDS of each token that answers a question


def filler_pool(seed):
    """A long filler text; runs of filler are cut out of it."""
    return np.array(filler_text(Random(seed), FILLER_POOL), dtype=np.int16)


class Draws:
    """Uniform draws in Python's own floats, many at a time: sentences are made token by token."""

    def __init__(self, rng):
        self._rng, self._values = rng, []

    def uniform(self):
        if not self._values:
            self._values = self._rng.random(1024).tolist()
        return self._values.pop()

    def below(self, n):
        return int(self.uniform() * n)

    def value(self):
        return VALUE_BASE + self.below(NUM_VALUES)


def single_entity(draws, keys):
    key, first, second = keys.pop(), draws.value(), draws.value()
    return [record_statement(key, first, second)], [ASK, key, ANS], [key, first, second]


def multi_value_entity(draws, keys):
    key = keys.pop()
    made = [(key, ORDINAL_BASE + i, draws.value()) for i in range(MULTI_VALUES)]
    return [record_statement(*r) for r in made], [ALL, key, ANS], [token for r in made for token in r]


def multi_query_entity(draws, keys):
    made = [(keys.pop(), draws.value(), draws.value()) for _ in range(MULTI_QUERIES)]
    question = [token for r in made for token in (ASK, r[0])] + [ANS]
    order = sorted(made, key=lambda _: draws.uniform())
    return [record_statement(*r) for r in order], question, [token for r in made for token in r]


def tracking_entity(draws, keys):
    hops = 4 if draws.uniform() < 0.6 else 1 + draws.below(4)
    chain, value = [keys.pop() for _ in range(hops + 1)], [draws.value(), draws.value()]
    statements = [link_statement(a, b) for a, b in zip(chain, chain[1:])] + [record_statement(chain[-1], *value)]
    return statements, [ASK, chain[0], ANS], chain + value


ENTITIES = {SINGLE: single_entity, MULTI_VALUE: multi_value_entity, MULTI_QUERY: multi_query_entity,
            TRACKING: tracking_entity}
MAX_ENTITY_KEYS = 5


def sentences(rng, draws, length):
    """[(time, tokens, offset of the first answer token, kind)], by time; statements have kind 0."""
    keys = (KEY_BASE + rng.permutation(NUM_KEYS)).tolist()
    room = int(length * MAX_DENSITY)
    target = room * (0.1 + 0.9 * draws.uniform())
    one_kind = 1 + draws.below(4) if draws.uniform() < ONE_KIND_SEQUENCES else 0
    kinds = rng.choice(4, size=NUM_KEYS, p=MIXTURE) + 1
    items, used = [], 0
    for kind in kinds.tolist():
        kind = one_kind or kind
        if used >= target or len(keys) < MAX_ENTITY_KEYS:
            break
        statements, question, answer = ENTITIES[kind](draws, keys)
        size = sum(map(len, statements)) + len(question) + len(answer) + 1
        if used + size > room:
            break
        used += size
        last = 0.0
        for statement in statements:
            time = draws.uniform() * 0.95
            last = max(last, time)
            items.append((time, statement, 0, 0))
        if draws.uniform() >= UNASKED:
            time = last + (1 - last) * draws.uniform() ** 0.5
            items.append((time, question + answer + [END], len(question), kind))
    items.sort(key=lambda item: item[0])
    return items


def jumping_positions(rng, length, starts, max_position):
    """Positions of a sequence: 0, 1, ... with jumps at some of `starts`."""
    positions = np.arange(length, dtype=np.int32)
    if not len(starts) or rng.random() >= JUMPING_SEQUENCES or max_position <= length:
        return positions
    places = rng.choice(starts, size=min(len(starts), 1 + rng.integers(MAX_JUMPS)), replace=False)
    shares = rng.random(len(places))
    total = rng.random() * (max_position - length)
    jumps = np.zeros(length, dtype=np.int64)
    jumps[places] = shares / shares.sum() * total
    return positions + np.cumsum(jumps).astype(np.int32)


def sequence(rng, length, max_position, pool):
    """Tokens, positions and kinds of one sequence."""
    items = sentences(rng, Draws(rng), length)
    sizes = np.array([len(item[1]) for item in items], dtype=np.int64)
    num_filler = length - 1 - int(sizes.sum())
    begin = rng.integers(len(pool) - length)
    cuts = np.sort(rng.integers(0, num_filler + 1, size=len(items)))
    starts = 1 + cuts + np.cumsum(sizes) - sizes
    where = np.repeat(starts - (np.cumsum(sizes) - sizes), sizes) + np.arange(int(sizes.sum()))
    tokens, kinds = np.empty(length, np.int16), np.zeros(length, np.int8)
    is_filler = np.ones(length, bool)
    is_filler[0] = is_filler[where] = False
    tokens[0] = BOS
    tokens[where] = [token for item in items for token in item[1]]
    tokens[is_filler] = pool[begin:begin + num_filler]
    for start, (_, text, answer, kind) in zip(starts.tolist(), items):
        if kind:
            kinds[start + answer:start + len(text)] = kind
    return tokens, jumping_positions(rng, length, starts, max_position), kinds


def make_batch(seed, index, num_sequences, length, max_position, pool):
    """Batch `index` of a length: the same for the same arguments."""
    rng = np.random.default_rng([seed, index, length])
    rows = [sequence(rng, length, max_position, pool) for _ in range(num_sequences)]
    return Batch(*(np.stack(column) for column in zip(*rows)))
