#!/usr/bin/env python3
"""Trains SeerAttention-R gates for a model folder by the recipe of the paper: the model is frozen, a gate learns where
its layer's attention is largest.

usage: train_gates.py MODEL --out gates.safetensors (--text FILE | --testbed) [--block 32] [--steps 400]

MODEL is any Qwen3 or Llama folder. --text is tokenised with the folder's tokenizer; --testbed makes sequences of the
testbed's language. Prints the share of attention that a budget of blocks keeps: chosen by the gates, by an oracle that
knows the attention, and by a training-free stand-in (the group's queries times the mean of a block's keys).
"""
import argparse
import math
import time

import numpy as np
import torch
import torch.nn.functional as F
from transformers import AttentionInterface, AutoModelForCausalLM, AutoTokenizer

import batches
import gates as g

ROWS_PER_CHUNK = 256
EVAL_SEQUENCES = 4


class Layers:
    """Runs the frozen model; hands each layer's queries and keys to `visit(layer, LayerView)`, as they pass by."""

    def __init__(self, folder, device, dtype):
        AttentionInterface.register("gates", self._attend)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="gates").to(device)
        self.model.requires_grad_(False).eval()
        c = self.model.config
        self.num_layers, self.kv_heads, self.group = (c.num_hidden_layers, c.num_key_value_heads,
                                                      c.num_attention_heads // c.num_key_value_heads)
        self.d = self.model.model.layers[0].self_attn.head_dim
        self._plain, self._visit, self._tables = {}, None, None
        for layer in self.model.model.layers:
            attention = layer.self_attn
            for name in "qk":
                source = getattr(attention, f"{name}_norm", None) or getattr(attention, f"{name}_proj")
                source.register_forward_hook(lambda _, __, out, name=name: self._plain.__setitem__(name, out))

    def run(self, tokens, visit):
        """tokens [1, length]."""
        positions = torch.arange(tokens.shape[1], device=tokens.device)[None]
        self._visit = visit
        cos, sin = self.model.model.rotary_emb(torch.zeros(1, device=tokens.device), positions)
        self._tables = cos[0], sin[0]
        with torch.no_grad():
            self.model.model(input_ids=tokens, position_ids=positions, use_cache=False)

    def _attend(self, module, query, key, value, _mask, scaling=None, **_):
        """transformers' attention: query [1, heads, length, d] and key [1, kv_heads, length, d], rotated."""
        plain = {name: x.reshape(x.shape[1], -1, self.d).transpose(0, 1).float() for name, x in self._plain.items()}
        self._visit(module.layer_idx, LayerView(plain["q"].unflatten(0, (self.kv_heads, self.group)), plain["k"],
                                                query[0].unflatten(0, (self.kv_heads, self.group)), key[0], scaling,
                                                *self._tables))
        key, value = (x.repeat_interleave(self.group, 1) for x in (key, value))
        out = F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling)
        return out.transpose(1, 2), None


class LayerView:
    """Queries [kv_heads, group, length, d] and keys [kv_heads, length, d] of a layer, plain and rotated."""

    def __init__(self, q_plain, k_plain, q, k, scale, cos, sin):
        self.q_plain, self.k_plain, self.q, self.k, self.scale = q_plain, k_plain, q, k, scale
        self.cos, self.sin = cos, sin


class Trainer:
    def __init__(self, layers, args, device):
        self.layers, self.args, self.device = layers, args, device
        self.gates = torch.nn.ModuleList(g.Gate(layers.kv_heads, layers.group, layers.d, args.norm)
                                         for _ in range(layers.num_layers)).to(device)
        self.optimizer = torch.optim.AdamW(self.gates.parameters(), lr=args.lr, weight_decay=0.0)
        self.random = np.random.default_rng(args.seed)

    def rows_of(self, sequence):
        """Rows that teach, behind the skipped share: positions, ascending. Up to half of them are rows that answer,
        the others are random."""
        length = len(sequence.tokens)
        first = max(2 * self.args.block, int(length * self.args.skip))
        answers = sequence.answers[sequence.answers >= first]
        answers = self.random.choice(answers, size=min(self.args.rows // 2, len(answers)), replace=False)
        others = np.setdiff1d(np.arange(first, length), answers)
        others = self.random.choice(others, size=min(self.args.rows - len(answers), len(others)), replace=False)
        return torch.from_numpy(np.sort(np.concatenate([answers, others]))).to(self.device)

    def _logits(self, layer, view, rows, pooled):
        q = view.q_plain[:, :, rows].transpose(1, 2)
        return self.gates[layer](q, rows, pooled, self.args.block, view.cos, view.sin)

    def learn(self, sequence):
        """One sequence: adds to the gradients; returns the loss summed over layers."""
        rows, total = self.rows_of(sequence), torch.zeros((), device=self.device)

        def visit(layer, view):
            pooled = g.pool_keys(view.k_plain, self.args.block)
            for part in rows.split(ROWS_PER_CHUNK):
                peaks, _ = g.block_attention(view.q[:, :, part], view.k, part, self.args.block, view.scale)
                past = g.past_blocks(part, pooled.shape[1], self.args.block)
                with torch.enable_grad():
                    loss = g.gate_loss(self._logits(layer, view, part, pooled), peaks[..., :pooled.shape[1]], past)
                    (loss * (len(part) / len(rows) / self.args.batch)).backward()
                total.add_(loss.detach() * (len(part) / len(rows)))

        self.layers.run(sequence.on(self.device), visit)
        return total

    @torch.no_grad()
    def recalls(self, sequences):
        """[layers, budgets, (gate, oracle, stand-in)] over sequences."""
        budgets = self.args.budgets
        sums = torch.zeros(self.layers.num_layers, len(budgets), 3, device=self.device)

        def visit(layer, view):
            pooled = g.pool_keys(view.k_plain, self.args.block)
            means = g.pool_keys(view.k.float(), self.args.block)[..., -self.layers.d:]
            for part in rows.split(ROWS_PER_CHUNK):
                _, mass = g.block_attention(view.q[:, :, part], view.k, part, self.args.block, view.scale)
                partial = mass.shape[-1] - pooled.shape[1]
                gate, plain = (F.pad(x, (0, partial)) for x in (
                    self._logits(layer, view, part, pooled), view.q[:, :, part].float().sum(1) @ means.mT))
                for b, budget in enumerate(budgets):
                    for kind, scores in enumerate((gate, mass, plain)):
                        kept = g.recall(scores, mass, part, self.args.block, budget // self.args.block)
                        sums[layer, b, kind] += kept * (len(part) / len(rows) / len(sequences))

        for sequence in sequences:
            rows = self.rows_of(sequence)
            self.layers.run(sequence.on(self.device), visit)
        return sums.cpu()

    def set_rate(self, step, share):
        """`share` of the training is done: the cosine ends with it, whether steps end it or the clock."""
        warm = min(1.0, (step + 1) / self.args.warmup)
        floor = self.args.lr / 100
        wave = floor + (self.args.lr - floor) * 0.5 * (1 + math.cos(math.pi * share))
        for group in self.optimizer.param_groups:
            group["lr"] = wave * warm


class Sequence:
    """Token ids, and the rows whose attention finds an answer, where the source knows (none in plain text)."""

    def __init__(self, tokens, answers=()):
        self.tokens, self.answers = tokens, np.array(answers, dtype=np.int64)

    def on(self, device):
        return torch.from_numpy(self.tokens)[None].to(device)


class TextSequences:
    """Windows of a tokenised text file; the last twentieth is for evaluation."""

    def __init__(self, args):
        with open(args.text, encoding="utf-8") as f:
            ids = AutoTokenizer.from_pretrained(args.model)(f.read())["input_ids"]
        self._ids, self._length = np.array(ids, dtype=np.int64), args.length
        self._random = np.random.default_rng(args.seed)
        self._split = len(ids) - max(args.length + 1, len(ids) // 20)
        if self._split <= args.length:
            raise SystemExit(f"{args.text} has {len(ids)} tokens: too few for sequences of {args.length}")

    def _window(self, low, high):
        begin = int(self._random.integers(low, high - self._length + 1))
        return Sequence(self._ids[begin:begin + self._length])

    def training(self, _):
        return self._window(0, self._split)

    def evaluation(self, _):
        return self._window(self._split, len(self._ids))


class TestbedSequences:
    def __init__(self, args):
        self._args, self._pool = args, batches.filler_pool(args.seed)

    def training(self, index):
        batch = batches.make_batch(self._args.seed, index, 1, self._args.length, 0, self._pool)
        tokens, kinds = batch.tokens[0].astype(np.int64), batch.kinds[0]
        return Sequence(tokens, np.flatnonzero(kinds[1:]))  # the row before an answer token predicts it

    def evaluation(self, index):
        return self.training((1 << 30) + index)


def print_recalls(values, budgets):
    print("  budget     gate   oracle stand-in   share of attention kept, mean over layers and heads")
    for budget, row in zip(budgets, values.mean(0).tolist()):
        print(f"{budget:8d} " + " ".join(f"{x:8.4f}" for x in row))
    for layer, rows in enumerate(values.tolist()):
        print(f"  layer {layer:2d} " + " | ".join(" ".join(f"{x:.3f}" for x in row) for row in rows))


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model")
    parser.add_argument("--out", required=True)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--text")
    source.add_argument("--testbed", action="store_true")
    parser.add_argument("--block", type=int, default=32)
    parser.add_argument("--no-norm", dest="norm", action="store_false", help="gates without RMSNorm")
    parser.add_argument("--length", type=int, default=4096)
    parser.add_argument("--rows", type=int, default=1024, help="query tokens of a sequence that teach")
    parser.add_argument("--skip", type=float, default=0.5, help="share of a sequence whose tokens do not teach")
    parser.add_argument("--batch", type=int, default=4, help="sequences of a step")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--minutes", type=float, default=0, help="ends earlier than --steps, when it must")
    parser.add_argument("--warmup", type=int, default=20)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--budgets", type=lambda text: [int(x) for x in text.split(",")],
                        default=[256, 512, 1024, 2048], help="tokens, for the evaluation")
    return parser.parse_args()


def main():
    args = parse_args()
    torch.manual_seed(args.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    layers = Layers(args.model, device, torch.bfloat16 if device.type == "cuda" else torch.float32)
    trainer = Trainer(layers, args, device)
    source = TestbedSequences(args) if args.testbed else TextSequences(args)
    held_out = [source.evaluation(i) for i in range(EVAL_SEQUENCES)]
    begin = time.time()
    for step in range(args.steps):
        by_clock = (time.time() - begin) / (60 * args.minutes) if args.minutes else 0
        if by_clock >= 1:
            break
        trainer.set_rate(step, max(by_clock, step / args.steps))
        loss = sum(float(trainer.learn(source.training(step * args.batch + i))) for i in range(args.batch))
        trainer.optimizer.step()
        trainer.optimizer.zero_grad()
        if step % max(1, args.steps // 20) == 0 or step + 1 == args.steps:
            loss /= args.batch * layers.num_layers
            print(f"[{time.time() - begin:6.1f} s] step {step}: loss {loss:.4f} a layer", flush=True)
            g.save(trainer.gates, args.out, args.block)
    g.save(trainer.gates, args.out, args.block)
    print_recalls(trainer.recalls(held_out), args.budgets)


if __name__ == "__main__":
    main()
