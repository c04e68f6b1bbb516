#!/usr/bin/env python3
"""Trains the testbed model by the clock and writes it as a Hugging Face folder.

usage: train.py --out FOLDER [--minutes 8] [--resume]              one GPU, or the CPU
       torchrun --standalone --nproc-per-node=4 train.py ...        several GPUs of one machine

FOLDER/model is the best model so far, FOLDER/state.pt what --resume goes on from, FOLDER/log.jsonl the course of the
training, FOLDER/accuracy.json the final evaluation of FOLDER/model.

Lengths grow by curriculum: a stage ends when every kind of question is answered right, or at its share of the time.
Data are a function of (seed, rank, index, length); with --steps instead of --minutes so is the schedule of steps.
"""
import argparse
import collections
import json
import multiprocessing
import os
import time

import torch
import torch._dynamo
import torch.distributed as dist
from torch.nn.attention import SDPBackend, sdpa_kernel

import batches
from evaluate import accuracies, examples_job, table
from model import SIZES, Qwen3, export, load
from optimizer import make_optimizers
from tasks import TASKS

STAGE_SHARES = (0.3, 0.5, 0.7)   # the clock's share at which a stage ends at the latest; the last one has the rest
STAGE_ACCURACY = 0.99            # of answer tokens of each kind: the stage ends at once
SHORTER = 0.3                    # of the batches of a stage have a length of an earlier one
DECAY_FROM = 0.6                 # share of the clock from which the learning rate falls
WARMUP_STEPS = 100
SYNC_STEPS = 10                  # the host looks at clock and counters this often
FILLER_WEIGHT = 0.1              # of the mean loss of all other tokens
EVAL_SEED, FINAL_SEED = 101, 1
FUSED = [SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION]

_pool_text = None


def batch_job(args):
    return batches.make_batch(*args, _pool_text)


class Data:
    """Batches made ahead by worker processes, of lengths that the stage asks for."""

    def __init__(self, pool, args, rank):
        self._pool, self._args, self._rank = pool, args, rank
        self._index, self._pending = 0, collections.deque()

    def skip_to(self, index):
        self._index = index

    def next(self, stage):
        while len(self._pending) < 2 * self._args.workers:
            self._pending.append(self._request(stage))
        return self._pending.popleft().get()

    def _request(self, stage):
        seed, lengths = self._args.seed * 1000 + self._rank, self._args.lengths
        # Every rank takes the same length at the same step, so that none waits for another.
        draw = (self._index * 0x9E3779B1 & 0xFFFFFFFF) / 2**32
        shorter = stage and draw < SHORTER
        length = lengths[int(draw / SHORTER * stage)] if shorter else lengths[stage]
        job = (seed, self._index, max(1, self._args.batch_tokens // length), length, self._args.max_position)
        self._index += 1
        return self._pool.apply_async(batch_job, (job,))


class Clock:
    """Progress from 0 to 1 by steps or by time since the process began."""

    def __init__(self, args):
        self._args, self._begin, self._done = args, time.time(), 0.0

    def resume(self, share):
        self._done = share

    def share(self, step):
        if self._args.steps:
            return step / self._args.steps
        return self._done + (1 - self._done) * (time.time() - self._begin) / (60 * self._args.minutes)

    def seconds(self):
        return time.time() - self._begin


def rate(step, share):
    """The learning rate as a share of its peak."""
    return min(1.0, (step + 1) / WARMUP_STEPS, max(0.02, (1 - share) / (1 - DECAY_FROM)))


def device_and_dtype():
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device()), torch.bfloat16
    return torch.device("cpu"), torch.float32


class Trainer:
    def __init__(self, args, pool, rank, world):
        self.args, self.rank, self.world = args, rank, world
        self.device, self.dtype = device_and_dtype()
        self.model = Qwen3(SIZES[args.size], self.dtype).to(self.device)
        self.optimizers = make_optimizers(self.model, args.muon_lr, args.adam_lr, args.weight_decay)
        self.clock, self.data = Clock(args), Data(pool, args, rank)
        self.step, self.stage, self.share = 0, 0, 0.0
        self.best, self.lengths_seen = -1.0, collections.Counter()
        # Of each kind: answer tokens, right guesses. And the sum of losses.
        self.counts = torch.zeros(len(batches.KINDS), 2, device=self.device)
        self.all_marks = torch.arange(2 * len(batches.KINDS), device=self.device)[:, None]
        self.recent = None
        self.loss_sum = torch.zeros((), device=self.device)
        if self.device.type == "cuda":
            self._prepare_gpu()

    def _prepare_gpu(self):
        torch.backends.cuda.matmul.allow_tf32 = True
        probe = [torch.zeros(1, h, 64, 64, device=self.device, dtype=torch.bfloat16) for h in (8, 2, 2)]
        try:  # without it K and V are repeated, which the fused kernels of every version accept
            with sdpa_kernel(FUSED):
                torch.nn.functional.scaled_dot_product_attention(*probe, is_causal=True, enable_gqa=True)
        except (RuntimeError, TypeError):
            self.model.grouped = False
        if self.args.compile:
            torch._dynamo.config.suppress_errors = True  # what cannot be compiled runs as it is
            self.model.compile_parts()

    def log(self, **values):
        with open(os.path.join(self.args.out, "log.jsonl"), "a") as f:
            f.write(json.dumps(values) + "\n")

    def train_step(self):
        batch = self.data.next(self.stage)
        tokens, positions, kinds = (torch.from_numpy(x).to(self.device).long()
                                    for x in (batch.tokens, batch.positions, batch.kinds))
        targets, graded = tokens.roll(-1, 1), kinds.roll(-1, 1)
        targets[:, -1] = graded[:, -1] = 0
        is_answer = graded > 0
        weights = is_answer / is_answer.sum() + ~is_answer * (FILLER_WEIGHT / tokens.numel())
        loss, right = self.model.loss(tokens, positions, targets, weights.float())
        loss.backward()
        self._reduce_gradients()
        factor = rate(self.step, self.share)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        marks = graded.reshape(-1) * 2 + right
        found = (marks == self.all_marks).sum(1).view(-1, 2)  # unlike bincount, does not wait for the GPU
        self.counts += torch.stack([found.sum(1), found[:, 1]], 1)
        self.loss_sum += loss.detach()
        self.lengths_seen[tokens.shape[1]] += tokens.numel()
        self.step += 1

    def _reduce_gradients(self):
        if self.world == 1:
            return
        grads = [p.grad for p in self.model.parameters()]
        flat = torch.cat([g.reshape(-1) for g in grads])
        dist.all_reduce(flat)
        flat /= self.world
        torch._foreach_copy_(grads, [part.view_as(g) for part, g in zip(flat.split([g.numel() for g in grads]), grads)])

    def synchronise(self):
        """All ranks agree on clock and counters; the stage advances."""
        if self.world > 1:
            dist.all_reduce(self.counts)
        share = torch.tensor(self.clock.share(self.step), dtype=torch.float64, device=self.device)
        if self.world > 1:
            dist.broadcast(share, 0)
        self.share = float(share)
        fresh = self.counts[:, 1] / self.counts[:, 0].clamp(min=1)
        self.counts.zero_()
        self.recent = fresh if self.recent is None else 0.8 * self.recent + 0.2 * fresh
        last = len(self.args.lengths) - 1
        ends = STAGE_SHARES[self.stage] if self.stage < len(STAGE_SHARES) else 1.0
        if self.stage < last and (float(self.recent[1:].min()) >= STAGE_ACCURACY or self.share >= ends):
            self.stage += 1
            self.recent = None
            if self.rank == 0:
                length = self.args.lengths[self.stage]
                print(f"[{self.clock.seconds():6.1f} s] step {self.step}: length {length}", flush=True)

    def report(self, sets, steps):
        """Prints, saves and, when the model is the best so far, exports it."""
        if self.rank != 0:
            return
        results = accuracies(self.model, sets, self.device)
        score = sum(results.values()) / len(results)
        recent = [] if self.recent is None else [round(float(x), 4) for x in self.recent[1:]]
        loss = float(self.loss_sum) / max(steps, 1)
        tokens = sum(self.lengths_seen.values()) * self.world
        seconds = self.clock.seconds()
        print(f"[{seconds:6.1f} s] step {self.step}, {tokens / 1e6:.1f}M tokens, share {self.share:.2f}, "
              f"loss {loss:.4f}, answer tokens right {dict(zip(batches.KINDS[1:], recent))}", flush=True)
        print(table(results), flush=True)
        self.log(seconds=seconds, step=self.step, tokens=tokens, stage=self.stage, loss=loss, recent=recent,
                 accuracy={f"{t}/{n}": a for (t, n), a in results.items()})
        if score >= self.best:
            self.best = score
            export(self.model, os.path.join(self.args.out, "model"))
        state = {"model": self.model.state_dict(), "optimizers": [o.state_dict() for o in self.optimizers],
                 "step": self.step, "stage": self.stage, "share": self.share, "best": self.best}
        path = os.path.join(self.args.out, "state.pt")
        torch.save(state, path + ".part")
        os.replace(path + ".part", path)

    def resume(self):
        path = os.path.join(self.args.out, "state.pt")
        if not os.path.exists(path):
            return
        state = torch.load(path, map_location=self.device)
        self.model.load_state_dict(state["model"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"]):
            optimizer.load_state_dict(saved)
        self.step, self.stage, self.best = state["step"], state["stage"], state["best"]
        # The rate's course begins again, within the new time; the data do not.
        self.data.skip_to(self.step)
        self.clock.resume(0.0 if state["share"] >= 1 else state["share"])

    def run(self, sets):
        reported, reported_step = self.clock.seconds(), self.step
        while self.share < 1:
            self.train_step()
            if self.step % SYNC_STEPS:
                continue
            self.synchronise()
            if self.share < 1 and self.clock.seconds() - reported < self.args.report_seconds:
                continue
            self.report(sets, self.step - reported_step)
            self.loss_sum.zero_()
            reported, reported_step = self.clock.seconds(), self.step


def parse_args():
    numbers = lambda text: [int(x) for x in text.split(",")]  # noqa: E731
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", required=True)
    parser.add_argument("--minutes", type=float, default=8, help="of training, from the start of the process")
    parser.add_argument("--steps", type=int, default=0, help="instead of --minutes")
    parser.add_argument("--resume", action="store_true", help="go on from state.pt, where there is one")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--lengths", type=numbers, default=[512, 2048, 8192, 16384], help="of the stages")
    parser.add_argument("--batch-tokens", type=int, default=1 << 17, help="of each GPU")
    parser.add_argument("--max-position", type=int, default=32768)
    parser.add_argument("--muon-lr", type=float, default=0.02)
    parser.add_argument("--adam-lr", type=float, default=3e-3)
    parser.add_argument("--weight-decay", type=float, default=0.01)
    parser.add_argument("--workers", type=int, default=0, help="processes that make data; 0: by the cores")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--report-seconds", type=float, default=30)
    parser.add_argument("--eval-lengths", type=numbers, default=[1024, 4096, 8192, 16384])
    parser.add_argument("--eval-examples", type=int, default=16)
    parser.add_argument("--final-examples", type=int, default=64)
    return parser.parse_args()


def final_evaluation(args, pool):
    device, dtype = device_and_dtype()
    jobs = [(t, n, FINAL_SEED, args.final_examples) for n in args.eval_lengths for t in TASKS]
    sets = dict(pool.map(examples_job, jobs, chunksize=1))
    results = accuracies(load(os.path.join(args.out, "model"), dtype).to(device), sets, device)
    print(f"final: {args.final_examples} examples each\n{table(results)}", flush=True)
    with open(os.path.join(args.out, "accuracy.json"), "w") as f:
        json.dump([{"task": t, "length": n, "accuracy": a} for (t, n), a in results.items()], f, indent=1)


def main():
    global _pool_text
    args = parse_args()
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    args.workers = args.workers or max(1, len(os.sched_getaffinity(0)) // world - 1)
    os.makedirs(args.out, exist_ok=True)
    _pool_text = batches.filler_pool(args.seed)
    # Before any thread or CUDA context exists: workers are forked.
    with multiprocessing.get_context("fork").Pool(args.workers) as pool:
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
        if world > 1:
            dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        torch.manual_seed(args.seed)
        jobs = [(t, n, EVAL_SEED, args.eval_examples) for n in args.eval_lengths for t in TASKS]
        sets = dict(pool.map(examples_job, jobs, chunksize=1)) if rank == 0 else None
        trainer = Trainer(args, pool, rank, world)
        if args.resume:
            trainer.resume()
        trainer.run(sets)
        if rank == 0:
            final_evaluation(args, pool)
        if world > 1:
            dist.destroy_process_group()


if __name__ == "__main__":
    main()
