"""Token ids of the testbed language, its random numbers and its filler text.

Everything here is mirrored by C++ (tools/eval) bit by bit; README.md is the specification.
"""
import numpy as np

VOCAB_SIZE = 1024
PAD, BOS, EOS = 0, 1, 2
SET, END, ASK, ALL, ANS = 3, 4, 5, 6, 7
ORDINAL_BASE, NUM_ORDINALS = 8, 4
KEY_BASE, NUM_KEYS = 32, 256
VALUE_BASE, NUM_VALUES = 288, 256
FILLER_BASE, NUM_FILLER = 544, 480
NUM_SUCCESSORS = 16
FILLER_SEED = 0x7E57BED

_MASK = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)


def philox(key, counters):
    """Philox4x32-10 (Salmon et al., SC'11) of a 64-bit key and 64-bit counters: uint32 draws, four a counter."""
    counters = np.asarray(counters, dtype=np.uint64)
    c = [counters & _MASK, counters >> _SHIFT, np.zeros_like(counters), np.zeros_like(counters)]
    k0, k1 = key & 0xFFFFFFFF, key >> 32
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(p1 >> _SHIFT) ^ c[1] ^ np.uint64(k0), p1 & _MASK,
             (p0 >> _SHIFT) ^ c[3] ^ np.uint64(k1), p0 & _MASK]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack(c, axis=-1).reshape(-1)


class Random:
    """The draws of spin::Random (common/random.h): Philox blocks 0, 1, ... of one key, a 32-bit draw after another."""

    BLOCKS = 1024

    def __init__(self, seed):
        self._seed, self._block, self._draws, self._at = seed, 0, np.empty(0, np.uint64), 0

    def draws(self, count):
        """The next `count` 32-bit draws."""
        while len(self._draws) - self._at < count:
            more = philox(self._seed, np.arange(self._block, self._block + self.BLOCKS))
            self._draws, self._at = np.concatenate([self._draws[self._at:], more]), 0
            self._block += self.BLOCKS
        self._at += count
        return self._draws[self._at - count:self._at]

    def below(self, n):
        """Uniform in [0, n)."""
        return int(self.draws(1)[0]) * n >> 32

    def below_many(self, n, count):
        return ((self.draws(count) * np.uint64(n)) >> _SHIFT).astype(np.int64)


def _successor_table():
    return Random(FILLER_SEED).below_many(NUM_FILLER, NUM_FILLER * NUM_SUCCESSORS).tolist()


# Row f: the filler tokens (less FILLER_BASE) that may follow filler token f, each as likely as the others.
SUCCESSORS = _successor_table()


def filler_text(random, count):
    """`count` filler tokens: an order-1 Markov chain, its first state uniform."""
    if count == 0:
        return []
    state = random.below(NUM_FILLER)
    tokens = [FILLER_BASE + state]
    for choice in random.below_many(NUM_SUCCESSORS, count - 1).tolist():
        state = SUCCESSORS[state * NUM_SUCCESSORS + choice]
        tokens.append(FILLER_BASE + state)
    return tokens
