"""The transformer trunks that the fused scorer can walk layer by layer: GPT-2, GPT-NeoX (Pythia) and Llama.

Each class takes a Hugging Face base model and uses its own modules and weights; nothing is copied. Tokens are flat:
[N, width] with a position each, whatever tree they form, because all but attention works token by token.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

Projected = tuple[Tensor, Tensor, Tensor]
"""Queries, keys and values, each [N, heads, head_dim]."""


class Trunk(Protocol):
    """A decoder without its attention pattern. `mlp_width` is the widest activation of a token."""

    model: Any
    layers: int
    heads: int
    head_dim: int
    width: int
    mlp_width: int

    def embed(self, ids: Tensor, positions: Tensor) -> Tensor:
        """[N,width] for ids and positions i64[N]."""
        ...

    def project(self, layer: int, x: Tensor, positions: Tensor) -> Projected:
        """Queries, keys and values of one layer."""
        ...

    def scale(self, layer: int) -> float:
        """What attention scores are multiplied by."""
        ...

    def finish(self, layer: int, x: Tensor, attended: Tensor) -> Tensor:
        """The layer's output [N,width] for its input `x` and the attention output [N,heads*head_dim]."""
        ...

    def close(self, x: Tensor) -> Tensor:
        """The last norm: [N,width] as the base model's last_hidden_state."""
        ...


def _activation(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """The same function in one kernel where transformers computes it in several (the tanh form of GELU)."""
    if type(module).__name__ in ("NewGELUActivation", "GELUTanh", "FastGELUActivation"):
        return partial(nn.functional.gelu, approximate="tanh")
    return module


class GPT2Trunk:
    """GPT-2: learned positions, one projection for queries, keys and values, attention before the MLP."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.layers, self.heads = len(model.h), model.config.num_attention_heads
        self.width = model.config.hidden_size
        self.head_dim = self.width // self.heads
        self.mlp_width = model.h[0].mlp.c_fc.weight.shape[1]
        self._act = _activation(model.h[0].mlp.act)

    def embed(self, ids: Tensor, positions: Tensor) -> Tensor:
        """See Trunk."""
        return self.model.wte(ids) + self.model.wpe(positions)

    def project(self, layer: int, x: Tensor, positions: Tensor) -> Projected:
        """See Trunk."""
        block = self.model.h[layer]
        q, k, v = block.attn.c_attn(block.ln_1(x)).view(len(x), 3, self.heads, self.head_dim).unbind(1)
        return q, k, v

    def scale(self, layer: int) -> float:
        """See Trunk."""
        return self.model.h[layer].attn.scaling

    def finish(self, layer: int, x: Tensor, attended: Tensor) -> Tensor:
        """See Trunk."""
        block = self.model.h[layer]
        x = block.attn.c_proj(attended).add_(x)
        hidden = self._act(block.mlp.c_fc(block.ln_2(x)))
        return block.mlp.c_proj(hidden).add_(x)

    def close(self, x: Tensor) -> Tensor:
        """See Trunk."""
        return self.model.ln_f(x)


def _rotate(model: Any, positions: Tensor, *tensors: Tensor) -> None:
    """Rotate the leading dimensions of each [N, heads, head_dim] in place, by the model's own table of angles."""
    cos, sin = (table[0][:, None, :] for table in model.rotary_emb(tensors[0], positions[None]))
    for x in tensors:
        rotated = x[..., : cos.shape[-1]]
        first, second = rotated.chunk(2, dim=-1)
        rotated.copy_(rotated * cos + torch.cat([-second, first], -1) * sin)


class GPTNeoXTrunk:
    """GPT-NeoX (Pythia): rotary positions on part of each head, attention and MLP side by side or one after the other."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.layers, self.heads = len(model.layers), model.config.num_attention_heads
        self.width = model.config.hidden_size
        self.head_dim = self.width // self.heads
        self.mlp_width = model.config.intermediate_size
        self._act = _activation(model.layers[0].mlp.act)

    def embed(self, ids: Tensor, positions: Tensor) -> Tensor:
        """See Trunk."""
        return self.model.embed_in(ids)

    def project(self, layer: int, x: Tensor, positions: Tensor) -> Projected:
        """See Trunk."""
        block = self.model.layers[layer]
        joint = block.attention.query_key_value(block.input_layernorm(x))
        q, k, v = joint.view(len(x), self.heads, 3, self.head_dim).unbind(2)  # interleaved by head
        k, v = k.contiguous(), v.contiguous()  # they are gathered, and rows are faster whole
        _rotate(self.model, positions, q, k)
        return q, k, v

    def scale(self, layer: int) -> float:
        """See Trunk."""
        return self.model.layers[layer].attention.scaling

    def finish(self, layer: int, x: Tensor, attended: Tensor) -> Tensor:
        """See Trunk."""
        block = self.model.layers[layer]
        after = block.attention.dense(attended).add_(x)
        read = x if block.use_parallel_residual else after
        hidden = self._act(block.mlp.dense_h_to_4h(block.post_attention_layernorm(read)))
        return block.mlp.dense_4h_to_h(hidden).add_(after)

    def close(self, x: Tensor) -> Tensor:
        """See Trunk."""
        return self.model.final_layer_norm(x)


class LlamaTrunk:
    """Llama: rotary positions, RMS norms, gated MLP; grouped keys and values are repeated to one per query head."""

    def __init__(self, model: Any) -> None:
        self.model = model
        attention = model.layers[0].self_attn
        self.layers, self.heads = len(model.layers), model.config.num_attention_heads
        self.width, self.head_dim = model.config.hidden_size, attention.head_dim
        self.mlp_width = 2 * model.config.intermediate_size
        self._groups = attention.num_key_value_groups
        self._act = _activation(model.layers[0].mlp.act_fn)

    def embed(self, ids: Tensor, positions: Tensor) -> Tensor:
        """See Trunk."""
        return self.model.embed_tokens(ids)

    def project(self, layer: int, x: Tensor, positions: Tensor) -> Projected:
        """See Trunk."""
        block = self.model.layers[layer]
        normed, attention = block.input_layernorm(x), block.self_attn
        q, k, v = (
            projection(normed).view(len(x), -1, self.head_dim)
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        _rotate(self.model, positions, q, k)
        return q, k.repeat_interleave(self._groups, dim=1), v.repeat_interleave(self._groups, dim=1)

    def scale(self, layer: int) -> float:
        """See Trunk."""
        return self.model.layers[layer].self_attn.scaling

    def finish(self, layer: int, x: Tensor, attended: Tensor) -> Tensor:
        """See Trunk."""
        block = self.model.layers[layer]
        x = block.self_attn.o_proj(attended).add_(x)
        normed, mlp = block.post_attention_layernorm(x), block.mlp
        return mlp.down_proj(self._act(mlp.gate_proj(normed)).mul_(mlp.up_proj(normed))).add_(x)

    def close(self, x: Tensor) -> Tensor:
        """See Trunk."""
        return self.model.norm(x)


TRUNKS: dict[str, Callable[[Any], Trunk]] = {"gpt2": GPT2Trunk, "gpt_neox": GPTNeoXTrunk, "llama": LlamaTrunk}
"""By `config.model_type`."""
