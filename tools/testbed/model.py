"""Qwen3 in PyTorch for training, and its Hugging Face folder.

The parts around attention see a batch as a flat list of tokens, so that one compiled graph serves every length of the
curriculum. Parameters have the names of transformers' Qwen3ForCausalLM.
"""
import json
import os
from dataclasses import asdict, dataclass, fields

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from vocabulary import BOS, EOS, VOCAB_SIZE


@dataclass(frozen=True)
class Config:
    hidden_size: int = 256
    intermediate_size: int = 640
    num_hidden_layers: int = 5
    num_attention_heads: int = 8
    num_key_value_heads: int = 2
    head_dim: int = 64
    vocab_size: int = VOCAB_SIZE
    max_position_embeddings: int = 32768
    rope_theta: float = 1e7
    rms_norm_eps: float = 1e-6


SIZES = {
    "full": Config(),
    "tiny": Config(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4),
}


def rms_norm(x, weight, eps):
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)).to(x.dtype) * weight.to(x.dtype)


def rotate(x, cos, sin):
    """x [tokens, heads, d], cos and sin [tokens, 1, d / 2]: dimension i turns with i + d / 2."""
    a, b = x.float().chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1).to(x.dtype)


def before_attention(x, cos, sin, norm, q_proj, k_proj, v_proj, q_norm, k_norm, eps):
    """x [tokens, hidden] -> q, k, v [tokens, heads, d], rotated."""
    d = q_norm.shape[0]
    weight = torch.cat([q_proj, k_proj, v_proj]).to(x.dtype)
    sizes = [w.shape[0] for w in (q_proj, k_proj, v_proj)]
    q, k, v = (part.unflatten(-1, (-1, d)) for part in (rms_norm(x, norm, eps) @ weight.T).split(sizes, -1))
    return rotate(rms_norm(q, q_norm, eps), cos, sin), rotate(rms_norm(k, k_norm, eps), cos, sin), v


def after_attention(x, attended, o_proj, norm, gate_proj, up_proj, down_proj, eps):
    """The rest of a layer: x [tokens, hidden], attended [tokens, heads * d]."""
    x = x + attended @ o_proj.to(x.dtype).T
    y = rms_norm(x, norm, eps)
    return x + (F.silu(y @ gate_proj.to(x.dtype).T) * (y @ up_proj.to(x.dtype).T)) @ down_proj.to(x.dtype).T


def loss_of(x, targets, weights, norm, head, eps):
    """Sum of weights * cross entropy over the tokens, and whether each token's best guess is its target."""
    logits = (rms_norm(x, norm, eps) @ head.to(x.dtype).T).float()
    losses = F.cross_entropy(logits, targets, reduction="none")
    return (losses * weights).sum(), logits.detach().argmax(-1) == targets


PARTS = (before_attention, after_attention, loss_of)


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        q_width, kv_width = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
        self.input_layernorm, self.post_attention_layernorm = nn.RMSNorm(c.hidden_size), nn.RMSNorm(c.hidden_size)
        self.self_attn, self.mlp = nn.Module(), nn.Module()
        for name, rows, cols in (("q_proj", q_width, c.hidden_size), ("k_proj", kv_width, c.hidden_size),
                                 ("v_proj", kv_width, c.hidden_size), ("o_proj", c.hidden_size, q_width)):
            self.self_attn.add_module(name, nn.Linear(cols, rows, bias=False))
        self.self_attn.q_norm, self.self_attn.k_norm = nn.RMSNorm(c.head_dim), nn.RMSNorm(c.head_dim)
        for name, rows, cols in (("gate_proj", c.intermediate_size, c.hidden_size),
                                 ("up_proj", c.intermediate_size, c.hidden_size),
                                 ("down_proj", c.hidden_size, c.intermediate_size)):
            self.mlp.add_module(name, nn.Linear(cols, rows, bias=False))


class Qwen3(nn.Module):
    def __init__(self, config, dtype=torch.float32):
        """`dtype` is that of activations; parameters are float32."""
        super().__init__()
        self.config, self.dtype = config, dtype
        self.model = nn.Module()
        self.model.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.model.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.model.norm = nn.RMSNorm(config.hidden_size)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.training_parts = PARTS
        self.grouped = True  # attention itself knows that query heads share key heads
        self._initialise()

    def _initialise(self):
        for name, p in self.named_parameters():
            if p.dim() == 1:
                nn.init.ones_(p)
            elif "embed_tokens" in name:
                nn.init.normal_(p, std=1.0)
            elif name.endswith(("o_proj.weight", "down_proj.weight", "lm_head.weight")):
                nn.init.zeros_(p)
            else:
                nn.init.normal_(p, std=p.shape[1] ** -0.5)

    def compile_parts(self):
        """Compiles what training runs; without gradients the plain functions run, whatever the shapes."""
        self.training_parts = tuple(torch.compile(part) for part in PARTS)

    def parts(self):
        return self.training_parts if torch.is_grad_enabled() else PARTS

    def attend(self, q, k, v, shape):
        """Causal attention over sequences of `shape` (sequences, length); q, k, v [tokens, heads, d]."""
        q, k, v = (x.unflatten(0, shape).transpose(1, 2) for x in (q, k, v))
        if not self.grouped:
            k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.grouped)
        return out.transpose(1, 2).reshape(q.shape[0] * q.shape[2], -1)

    def hidden(self, tokens, positions):
        """tokens, positions [sequences, length] -> [sequences * length, hidden], before the last norm."""
        c = self.config
        exponents = torch.arange(0, c.head_dim, 2, device=tokens.device, dtype=torch.float32) / c.head_dim
        angles = (positions.reshape(-1, 1).float() * c.rope_theta ** -exponents)[:, None]
        cos, sin = angles.cos(), angles.sin()
        x = F.embedding(tokens.reshape(-1), self.model.embed_tokens.weight).to(self.dtype)
        before, after, _ = self.parts()
        for layer in self.model.layers:
            a, m = layer.self_attn, layer.mlp
            q, k, v = before(x, cos, sin, layer.input_layernorm.weight, a.q_proj.weight, a.k_proj.weight,
                             a.v_proj.weight, a.q_norm.weight, a.k_norm.weight, c.rms_norm_eps)
            x = after(x, self.attend(q, k, v, tuple(tokens.shape)), a.o_proj.weight,
                      layer.post_attention_layernorm.weight, m.gate_proj.weight, m.up_proj.weight,
                      m.down_proj.weight, c.rms_norm_eps)
        return x

    def loss(self, tokens, positions, targets, weights):
        x = self.hidden(tokens, positions)
        return self.parts()[2](x, targets.reshape(-1), weights.reshape(-1), self.model.norm.weight, self.lm_head.weight,
                             self.config.rms_norm_eps)

    def logits(self, tokens, positions, where):
        """Logits of the tokens with flat indices `where`, float32."""
        x = self.hidden(tokens, positions)[where]
        x = rms_norm(x, self.model.norm.weight, self.config.rms_norm_eps)
        return (x @ self.lm_head.weight.to(x.dtype).T).float()


def load(folder, dtype):
    """The model of a folder that export() wrote."""
    with open(os.path.join(folder, "config.json")) as f:
        content = json.load(f)
    model = Qwen3(Config(**{field.name: content[field.name] for field in fields(Config)}), dtype)
    model.load_state_dict({name: t.float() for name, t in load_file(os.path.join(folder, "model.safetensors")).items()})
    return model


def export(model, folder):
    """Writes the folder that spind and transformers load; each file appears whole or not at all."""
    os.makedirs(folder, exist_ok=True)
    config = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_act": "silu",
              "attention_bias": False, "attention_dropout": 0.0, "initializer_range": 0.02, "use_cache": True,
              "use_sliding_window": False, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
              "rope_scaling": None, "bos_token_id": BOS, "eos_token_id": EOS} | asdict(model.config)
    tensors = {name: p.detach().to("cpu", torch.bfloat16).contiguous() for name, p in model.named_parameters()}
    save_file(tensors, os.path.join(folder, "model.safetensors.part"), metadata={"format": "pt"})
    os.replace(os.path.join(folder, "model.safetensors.part"), os.path.join(folder, "model.safetensors"))
    generation = {"eos_token_id": EOS, "do_sample": False}
    for name, content in (("config.json", config), ("generation_config.json", generation)):
        with open(os.path.join(folder, name + ".part"), "w") as f:
            f.write(json.dumps(content, indent=1) + "\n")
        os.replace(os.path.join(folder, name + ".part"), os.path.join(folder, name))
