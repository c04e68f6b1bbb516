"""The testbed's language: examples are what README.md says, their answers can be read off, training asks the same."""
import json
import os
import sys
import unittest

import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tools/testbed"))

import batches  # noqa: E402
import tasks  # noqa: E402
import vocabulary as v  # noqa: E402

FIXTURES = os.path.join(ROOT, "tests/tools/testdata/testbed_examples.json")


def is_key(token):
    return v.KEY_BASE <= token < v.KEY_BASE + v.NUM_KEYS


class RandomTest(unittest.TestCase):
    def test_philox_gives_the_published_vectors(self):
        # kat_vectors of the authors' Random123: counter and key of zeros.
        self.assertEqual([int(x) for x in v.philox(0, [0])], [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8])

    def test_draws_do_not_depend_on_how_many_are_taken_at_once(self):
        one, many = v.Random(5), v.Random(5)
        count = 4 * v.Random.BLOCKS + 3
        self.assertEqual([int(one.draws(1)[0]) for _ in range(count)], many.draws(count).tolist())


class TasksTest(unittest.TestCase):
    def test_examples_are_the_recorded_ones(self):
        with open(FIXTURES) as f:
            self.assertEqual(json.load(f), tasks.fixtures())

    def test_answers_can_be_read_off_the_prompt(self):
        for task in tasks.TASKS:
            for length in (256, 1000, 16384):
                for index in range(3):
                    with self.subTest(task=task, length=length, index=index):
                        made = tasks.example(task, length, 3, index)
                        self.assertEqual(len(made.prompt), length)
                        self.assertEqual(tasks.answer_by_reading(made.prompt), made.answer)
                        self.assertTrue(is_key(made.answer[0]))

    def test_examples_differ(self):
        prompts = {tuple(tasks.example(task, 512, seed, index).prompt)
                   for task in tasks.TASKS for seed in (1, 2) for index in range(4)}
        self.assertEqual(len(prompts), 40)


class BatchesTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.pool = batches.filler_pool(7)

    def batch(self, length, count, index=0, max_position=32768):
        return batches.make_batch(1, index, count, length, max_position, self.pool)

    def questions(self, tokens, kinds):
        """(begin of the question, begin and end of its answer) of each question of a sequence."""
        answers = np.flatnonzero(np.diff(np.concatenate([[0], (kinds > 0).astype(int), [0]])))
        for begin, end in answers.reshape(-1, 2):
            question = begin - len(tasks.question_of(tokens[:begin].tolist()))
            yield question, begin, end

    def test_every_answer_follows_from_the_statements_before_it(self):
        seen = set()
        for length in (256, 2048):
            batch = self.batch(length, 24)
            for tokens, kinds in zip(batch.tokens, batch.kinds):
                for question, begin, end in self.questions(tokens, kinds):
                    seen.add(int(kinds[begin]))
                    expected = tasks.answer_by_reading(tokens[:begin].tolist())
                    self.assertEqual(tokens[begin:end].tolist(), expected + [v.END])
        self.assertEqual(seen, {1, 2, 3, 4})

    def test_positions_jump_only_where_a_sentence_begins(self):
        batch = self.batch(512, 32)
        steps = np.diff(batch.positions, axis=1)
        self.assertTrue((steps >= 1).all())
        self.assertGreater(batch.positions.max(), 16384)
        self.assertLess(batch.positions.max(), 32768)
        after = batch.tokens[:, 1:][steps > 1]
        self.assertTrue(set(after.tolist()) <= {v.SET, v.ASK, v.ALL})

    def test_a_batch_is_a_function_of_its_arguments(self):
        one, same, other = self.batch(512, 4), self.batch(512, 4), self.batch(512, 4, index=1)
        self.assertTrue((one.tokens == same.tokens).all() and (one.positions == same.positions).all())
        self.assertFalse((one.tokens == other.tokens).all())

    def test_tokens_are_in_the_vocabulary(self):
        tokens = self.batch(1024, 16).tokens
        self.assertEqual(set(tokens[:, 0].tolist()), {v.BOS})
        self.assertGreater(tokens.min(), v.PAD)
        self.assertLess(tokens.max(), v.VOCAB_SIZE)


if __name__ == "__main__":
    unittest.main()
