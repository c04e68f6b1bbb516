"""Muon for the matrices between embedding and head (Jordan et al., 2024), AdamW for all else."""
import torch

NEWTON_SCHULZ_STEPS = 5
MUON_MOMENTUM = 0.95


def orthogonalise(g):
    """Newton-Schulz iteration of Muon on a stack of matrices: singular values end near 1."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = g.bfloat16() if g.is_cuda else g
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(g.dtype)


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised. Matrices of one shape go through the iteration together."""

    def __init__(self, params, lr, weight_decay):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            shapes = {}
            for p in group["params"]:
                shapes.setdefault(p.shape, []).append(p)
            for shape, params in shapes.items():
                for p in params:
                    if "momentum" not in self.state[p]:
                        self.state[p]["momentum"] = torch.zeros_like(p)
                grads, momenta = [p.grad for p in params], [self.state[p]["momentum"] for p in params]
                torch._foreach_lerp_(momenta, grads, 1 - MUON_MOMENTUM)
                update = orthogonalise(torch.stack(torch._foreach_lerp(grads, momenta, MUON_MOMENTUM)))
                torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
                scale = max(1, shape[0] / shape[1]) ** 0.5
                torch._foreach_add_(params, list(update.unbind()), alpha=-group["lr"] * scale)


def make_optimizers(model, muon_lr, adam_lr, weight_decay):
    """[Muon, AdamW]; each group keeps its peak rate in "peak"."""
    matrices, tables, vectors = [], [], []
    for name, p in model.named_parameters():
        kind = vectors if p.dim() == 1 else tables if "embed" in name or "lm_head" in name else matrices
        kind.append(p)
    groups = [{"params": tables, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, lr=adam_lr, betas=(0.9, 0.95), fused=tables[0].is_cuda)
    optimizers = [Muon(matrices, muon_lr, weight_decay), adam]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return optimizers
