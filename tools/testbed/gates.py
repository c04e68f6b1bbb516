"""The gates of SeerAttention-R (arXiv 2506.08889): what they compute, what they learn from, their file.

A gate guesses, for one query token and one KV head, which blocks of keys hold the attention of the head's query group.
It sees queries and keys before rotation (for Qwen3: after q_norm and k_norm) and rotates its own projections of them:
the query's by its position, a block's by the position of the block's first token. Only complete blocks before the
query's own are scored; the first block and the query's own are attended to in any case.
"""
import argparse
import json
import os

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

NORM_EPS = 1e-6


def rotate(x, cos, sin):
    """x [..., n, d] by tables [n, d] as transformers makes them: dimension i turns with i + d / 2."""
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


def pool_keys(k, block):
    """Keys [kv_heads, tokens, d] -> [kv_heads, complete blocks, 3 d]: maximum, minimum, mean of each channel."""
    blocks = k.shape[1] // block
    k = k[:, :blocks * block].unflatten(1, (blocks, block))
    return torch.cat([k.amax(2), k.amin(2), k.mean(2)], -1)


class Gate(nn.Module):
    """The gate of one layer; its dimension is head_dim, because it rotates by the model's own table."""

    def __init__(self, kv_heads, group, d, use_norm):
        super().__init__()
        self.wq = nn.Parameter(torch.empty(kv_heads, group, d, d))
        self.wk = nn.Parameter(torch.empty(kv_heads, 3 * d, d))
        for p in (self.wq, self.wk):
            nn.init.xavier_uniform_(p.view(-1, d))
        self.q_norm = nn.Parameter(torch.ones(d)) if use_norm else None
        self.k_norm = nn.Parameter(torch.ones(d)) if use_norm else None

    def _project(self, x, weight, norm, cos, sin):
        x = torch.einsum("hrgd,hgde->hre" if weight.dim() == 4 else "hrd,hde->hre", x, weight)
        if norm is not None:
            x = F.rms_norm(x, norm.shape, norm, NORM_EPS)
        return rotate(x, cos, sin)

    def forward(self, q, rows, pooled, block, cos, sin):
        """q [kv_heads, rows, group, d] of the tokens `rows`, tables [tokens, d] -> logits [kv_heads, rows, blocks]."""
        starts = torch.arange(pooled.shape[1], device=rows.device) * block
        qg = self._project(q, self.wq, self.q_norm, cos[rows], sin[rows])
        kg = self._project(pooled, self.wk, self.k_norm, cos[starts], sin[starts])
        return qg @ kg.mT * qg.shape[-1] ** -0.5


def block_attention(q, k, rows, block, scale):
    """Causal attention of the tokens `rows`, by block.

    q [kv_heads, group, rows, d] and k [kv_heads, tokens, d], rotated -> (largest probability over the keys of a block
    and the group, mean over the group of a block's probability): each [kv_heads, rows, blocks], the last maybe partial.
    """
    tokens = k.shape[1]
    scores = torch.einsum("hgrd,htd->hgrt", q, k).float() * scale
    scores.masked_fill_(torch.arange(tokens, device=k.device) > rows[:, None], float("-inf"))
    p = F.pad(scores.softmax(-1), (0, -tokens % block)).unflatten(-1, (-1, block))
    return p.amax(-1).amax(1), p.sum(-1).mean(1)


def past_blocks(rows, blocks, block):
    """[rows, blocks]: is the block before the row's own?"""
    return torch.arange(blocks, device=rows.device) < (rows // block)[:, None]


def gate_loss(logits, peaks, past):
    """KL divergence of the gate's softmax over past blocks from the renormalised peaks; mean over heads and rows."""
    target = peaks * past
    target = target / target.sum(-1, keepdim=True).clamp(min=1e-20)
    guess = logits.float().masked_fill(~past, float("-inf")).log_softmax(-1).masked_fill(~past, 0.0)
    return (torch.special.xlogy(target, target) - target * guess).sum(-1).mean()


def recall(scores, mass, rows, block, keep):
    """Share of attention inside `keep` blocks: the first, the row's own, and the past ones that score best."""
    blocks = mass.shape[-1]
    own = (rows // block)[:, None]
    ids = torch.arange(blocks, device=rows.device)
    scores = scores.float().masked_fill(ids >= own, float("-inf")).masked_fill((ids == 0) | (ids == own), float("inf"))
    chosen = scores.topk(min(keep, blocks), -1)
    return (mass.gather(-1, chosen.indices) * (chosen.values > float("-inf"))).sum(-1).mean()


def save(gates, path, block):
    """gates.safetensors, bfloat16; README.md, section 6, has names and shapes."""
    tensors = {f"layers.{i}.{name}": p.detach().to("cpu", torch.bfloat16).contiguous()
               for i, gate in enumerate(gates) for name, p in gate.named_parameters()}
    first = gates[0]
    save_file(tensors, path, metadata={"format": "seer_attention_gates", "block": str(block),
                                       "gate_dim": str(first.wq.shape[-1]),
                                       "use_norm": "true" if first.q_norm is not None else "false"})


def main():
    parser = argparse.ArgumentParser(description="Untrained gates of a model's shape, to measure with dummy weights.")
    parser.add_argument("model", help="folder with a config.json")
    parser.add_argument("--out", required=True)
    parser.add_argument("--block", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with open(os.path.join(args.model, "config.json"), encoding="utf-8") as file:
        config = json.load(file)
    torch.manual_seed(args.seed)
    q_heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads", q_heads)
    d = config.get("head_dim") or config["hidden_size"] // q_heads
    gates = [Gate(kv_heads, q_heads // kv_heads, d, True) for _ in range(config["num_hidden_layers"])]
    save(gates, args.out, args.block)


if __name__ == "__main__":
    main()
