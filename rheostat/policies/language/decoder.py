"""The Llama family of decoders as a function of packed tokens, on the parameters of the Hugging Face modules themselves.

Hugging Face models compute on padded rectangles ``[B, T]``. Here every operator except attention runs on a flat list of tokens ``[N]``, so
nothing is spent on padding, and a prompt shared by a group is computed once; the caller passes attention as a function, which knows how
the tokens lie (:mod:`rheostat.policies.language.packing` for scoring, a key-value cache for generation). Query, key and value
are one matrix product where the model is small enough for that to pay.

Covers Llama, Mistral, Qwen2 and Qwen3 with full attention: pre-norm, RMS norm, rotary positions, gated SiLU, grouped heads. Every other
architecture goes through its own Hugging Face forward pass; :class:`rheostat.policies.language.model.LanguagePolicy` compares both on a few
tokens before it uses this one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rheostat.policies.language.fused_ops import gated_silu, rms_norm, rotary
from rheostat.policies.language.matmul import linear

MODEL_TYPES = ("llama", "mistral", "qwen2", "qwen3")
ROPE_TYPES = ("default", "linear", "llama3", "yarn")  # angles that do not depend on the length of the batch
FUSE_BELOW = 2**20  # matrices with fewer entries are joined into one product: beyond that the copy costs more than the call

Project = Callable[[Tensor], Tensor]
Attend = Callable[[int, Tensor], Tensor]  # (layer, [N, query + key + value heads, D]) -> [N, query heads, D]


def supports(model: Any) -> bool:
    """Whether a Hugging Face causal LM (without its adapters' wrapper) belongs to the family."""
    config = model.config
    rope = getattr(config, "rope_parameters", None) or {"rope_type": "default"}
    return (
        config.model_type in MODEL_TYPES
        and getattr(config, "hidden_act", "silu") == "silu"
        and all(kind == "full_attention" for kind in getattr(config, "layer_types", None) or ())
        and (getattr(config, "layer_types", None) is not None or getattr(config, "sliding_window", None) is None)
        and rope.get("rope_type", "default") in ROPE_TYPES
        and rope.get("partial_rotary_factor", 1.0) == 1.0
    )


def _is_plain(module: nn.Module) -> bool:
    return type(module) is nn.Linear and not module._forward_hooks and not module._forward_pre_hooks


def _project(*modules: Any) -> Project:
    """The outputs of several linear modules side by side; adapters and hooks are honoured by calling the modules."""
    if not all(_is_plain(module) for module in modules) or sum(module.weight.numel() for module in modules) > FUSE_BELOW:
        return lambda x: torch.cat([module(x) for module in modules], -1) if len(modules) > 1 else modules[0](x)
    weight = torch.cat([module.weight for module in modules]) if len(modules) > 1 else modules[0].weight
    biases = [module.bias for module in modules]
    bias = None if any(b is None for b in biases) else torch.cat(biases)
    return lambda x: linear(x, weight, bias)


@dataclass(frozen=True)
class _Layer:
    """The parameters of one layer, taken from its Hugging Face module."""

    norm: Tensor
    qkv: Project
    head_norm: Tensor | None  # [query + key heads, D]
    out: Project
    mlp_norm: Tensor
    gate: Project
    up: Project
    down: Project


class Decoder:
    """Forward pass over packed tokens of one Hugging Face backbone (``LlamaModel``, ``Qwen3Model``, ...).

    Holds no parameters: it reads those of the backbone, so gradients and optimiser updates land there.
    """

    backbone: Any

    def __init__(self, backbone: Any) -> None:
        config = backbone.config
        self.backbone = backbone
        self.layers: int = config.num_hidden_layers
        self.query_heads: int = config.num_attention_heads
        self.key_heads: int = config.num_key_value_heads
        self.head_size: int = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.eps: float = config.rms_norm_eps

    def _layer(self, module: Any) -> _Layer:
        attention, mlp = module.self_attn, module.mlp
        head_norm = None
        if hasattr(attention, "q_norm"):
            query = attention.q_norm.weight.expand(self.query_heads, self.head_size)
            head_norm = torch.cat([query, attention.k_norm.weight.expand(self.key_heads, self.head_size)])
        return _Layer(
            norm=module.input_layernorm.weight,
            qkv=_project(attention.q_proj, attention.k_proj, attention.v_proj),
            head_norm=head_norm,
            out=_project(attention.o_proj),
            mlp_norm=module.post_attention_layernorm.weight,
            gate=_project(mlp.gate_proj),
            up=_project(mlp.up_proj),
            down=_project(mlp.down_proj),
        )

    def prepare(self) -> list[_Layer]:
        """The layers' parameters, joined where that pays. Do it once per generation, and in every differentiated forward pass."""
        return [self._layer(module) for module in self.backbone.layers[: self.layers]]

    def angles(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine and sine ``[N, 1, D / 2]`` of the positions ``[N]``, from the model's own rotary module."""
        with torch.no_grad():
            cos, sin = self.backbone.rotary_emb(self.backbone.embed_tokens.weight[:1], positions[None])
        half = cos.shape[-1] // 2  # the two halves are equal
        return cos[0, :, None, :half].contiguous(), sin[0, :, None, :half].contiguous()

    def forward(
        self,
        ids: Tensor,
        angles: tuple[Tensor, Tensor],
        attend: Attend,
        *,
        layers: list[_Layer] | None = None,
        recompute: bool = False,
    ) -> Tensor:
        """Final hidden states (after the last norm).

        Args:
            ids: ``[N]`` int64 token ids.
            angles: of the tokens' positions, see :meth:`angles`.
            attend: attention over the flat tokens, called once per layer with rotated heads.
            layers: what :meth:`prepare` returned; prepared here when None.
            recompute: keep only each layer's input and compute the layer again in the backward pass (gradient checkpointing).

        Returns:
            ``[N, C]`` in the model's dtype.
        """
        for x in self.outputs(ids, angles, attend, layers=layers, recompute=recompute):
            last = x  # of each only the next layer keeps anything
        return rms_norm(last, self.backbone.norm.weight, self.eps)

    def outputs(
        self,
        ids: Tensor,
        angles: tuple[Tensor, Tensor],
        attend: Attend,
        *,
        layers: list[_Layer] | None = None,
        recompute: bool = False,
    ) -> Iterator[Tensor]:
        """What every layer adds up to, ``[N, C]`` in order (before the last norm); arguments as in :meth:`forward`."""
        x = self.backbone.embed_tokens(ids)
        for index, layer in enumerate(layers or self.prepare()):
            if recompute and torch.is_grad_enabled():
                x = checkpoint(self._forward_layer, index, layer, x, angles, attend, use_reentrant=False)
            else:
                x = self._forward_layer(index, layer, x, angles, attend)
            yield x

    def _forward_layer(self, index: int, layer: _Layer, x: Tensor, angles: tuple[Tensor, Tensor], attend: Attend) -> Tensor:
        qkv = layer.qkv(rms_norm(x, layer.norm, self.eps)).view(len(x), -1, self.head_size)
        qkv = rotary(qkv, layer.head_norm, *angles, rotated=self.query_heads + self.key_heads, eps=self.eps)
        x = x + layer.out(attend(index, qkv).reshape(len(x), -1))
        y = rms_norm(x, layer.mlp_norm, self.eps)
        return x + layer.down(gated_silu(layer.gate(y), layer.up(y)))
