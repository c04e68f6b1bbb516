"""The testbed's model is transformers' Qwen3; gates learn from and are judged by the attention itself. Needs torch."""
import importlib.util
import os
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tools/testbed"))

CAN_RUN = all(importlib.util.find_spec(name) for name in ("torch", "transformers", "safetensors"))
if CAN_RUN:
    import torch
    from transformers import AutoModelForCausalLM

    import gates
    import model as testbed
    import train_gates

LENGTH = 150
BLOCK = 16
GOLDEN = os.path.join(ROOT, "tests/models/testdata/golden")


def random_folder(folder):
    """A testbed folder whose weights make attention and logits far from flat."""
    torch.manual_seed(3)
    made = testbed.Qwen3(testbed.SIZES["tiny"])
    with torch.no_grad():
        for p in made.parameters():
            p.normal_(1, 0.2) if p.dim() == 1 else p.normal_(0, 2 * p.shape[1] ** -0.5)
    testbed.export(made, folder)


@unittest.skipUnless(CAN_RUN, "torch, transformers or safetensors is not installed")
class ModelTest(unittest.TestCase):
    def test_logits_are_those_of_transformers(self):
        with tempfile.TemporaryDirectory() as folder:
            random_folder(folder)
            ours = testbed.load(folder, torch.float32)
            theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        tokens = torch.randint(0, testbed.VOCAB_SIZE, (2, LENGTH))
        with torch.no_grad():
            got = ours.logits(tokens, torch.arange(LENGTH).expand(2, -1), torch.arange(2 * LENGTH))
            expected = theirs(tokens).logits.flatten(0, 1)
        self.assertGreater(float(expected.std()), 1)
        self.assertLess(float((got - expected).abs().max()), 1e-3)


@unittest.skipUnless(CAN_RUN, "torch, transformers or safetensors is not installed")
class GatesTest(unittest.TestCase):
    def visit_layers(self, folder, check):
        layers, seen = train_gates.Layers(folder, torch.device("cpu"), torch.float32), []
        layers.run(torch.randint(3, 300, (1, LENGTH)), lambda i, view: (seen.append(i), check(view)))
        self.assertEqual(seen, list(range(layers.num_layers)))

    def test_plain_queries_and_keys_are_those_before_rotation(self):
        def check(view):
            for plain, rotated in ((view.q_plain, view.q), (view.k_plain, view.k)):
                self.assertLess(float((gates.rotate(plain, view.cos, view.sin) - rotated).abs().max()), 1e-5)
                self.assertGreater(float((plain - rotated).abs().max()), 0.1)
        for name in ("llama_gqa3_llama3rope", "qwen3_d128_yarn_sharded"):
            with self.subTest(model=name):
                self.visit_layers(os.path.join(GOLDEN, name), check)

    def test_block_attention_is_attention_by_block(self):
        rows = torch.tensor([15, 16, 77, LENGTH - 1])

        def check(view):
            peaks, mass = gates.block_attention(view.q[:, :, rows], view.k, rows, BLOCK, view.scale)
            for r, row in enumerate(rows.tolist()):
                p = (torch.einsum("hgd,htd->hgt", view.q[:, :, row], view.k[:, :row + 1]) * view.scale).softmax(-1)
                for j in range(mass.shape[-1]):
                    part = p[..., j * BLOCK:(j + 1) * BLOCK]
                    expected = part.amax((1, 2)) if part.numel() else torch.zeros(len(p))
                    torch.testing.assert_close(peaks[:, r, j], expected)
                    torch.testing.assert_close(mass[:, r, j], part.sum(-1).mean(1))
        self.visit_layers(os.path.join(GOLDEN, "qwen3_gqa5_tied_f32"), check)

    def test_the_loss_is_zero_for_the_target_and_positive_beside_it(self):
        rows, peaks = torch.tensor([40, 70]), torch.rand(2, 2, 4) + 0.1
        past = gates.past_blocks(rows, 4, BLOCK)
        self.assertEqual(past.tolist(), [[True, True, False, False], [True, True, True, True]])
        self.assertAlmostEqual(float(gates.gate_loss(peaks.log(), peaks, past)), 0, places=5)
        self.assertGreater(float(gates.gate_loss(peaks.log() + torch.arange(4.0), peaks, past)), 0.1)

    def test_recall_keeps_first_and_own_block_and_the_best_between(self):
        rows, mass = torch.tensor([70]), torch.tensor([[[0.1, 0.2, 0.3, 0.15, 0.25]]])
        self.assertAlmostEqual(float(gates.recall(mass, mass, rows, BLOCK, 3)), 0.1 + 0.25 + 0.3, places=6)
        self.assertAlmostEqual(float(gates.recall(-mass, mass, rows, BLOCK, 3)), 0.1 + 0.25 + 0.15, places=6)
        self.assertAlmostEqual(float(gates.recall(mass, mass, rows, BLOCK, 9)), 1, places=6)
        early = torch.tensor([[[0.4, 0.6, 0.0, 0.0, 0.0]]])
        self.assertAlmostEqual(float(gates.recall(early, early, torch.tensor([20]), BLOCK, 4)), 1, places=6)


if __name__ == "__main__":
    unittest.main()
