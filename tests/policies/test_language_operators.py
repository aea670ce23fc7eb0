"""Hand-written operators against their plain form: the same values, the same gradients, with and without a graph."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rheostat.policies.language import matmul
from rheostat.policies.language.fused_ops import gated_silu, rms_norm, rotary


def agree(ours: Callable[..., Tensor], plain: Callable[..., Tensor], *inputs: Tensor, tolerance: float = 1e-5) -> None:
    """Values and gradients of two functions at random inputs; and ours without a graph."""
    results = []
    for function in (ours, plain):
        leaves = [x.clone().requires_grad_() for x in inputs]
        value = function(*leaves)
        weights = torch.linspace(-1, 1, value.numel()).view_as(value)
        results.append([value, *torch.autograd.grad((value * weights).sum(), leaves)])
    for got, expected in zip(*results, strict=True):
        torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)
    with torch.no_grad():
        torch.testing.assert_close(ours(*inputs), results[0][0], rtol=tolerance, atol=tolerance)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def plain_norm(x: Tensor, weight: Tensor) -> Tensor:
    return weight * (x * (x.pow(2).mean(-1, keepdim=True) + 1e-3).rsqrt())


def test_rms_norm() -> None:
    agree(lambda x, w: rms_norm(x, w, 1e-3), plain_norm, random(11, 6), random(6, seed=1))


@pytest.mark.parametrize("normed", [True, False])
def test_rotary(normed: bool) -> None:
    angle = random(11, 1, 4, seed=2)
    cos, sin = angle.cos(), angle.sin()

    def ours(qkv: Tensor, weight: Tensor) -> Tensor:
        out = rotary(qkv, weight if normed else None, cos, sin, rotated=3, eps=1e-3)
        return out if normed else out + 0 * weight.sum()

    def plain(qkv: Tensor, weight: Tensor) -> Tensor:
        x = plain_norm(qkv[:, :3], weight) if normed else qkv[:, :3] + 0 * weight.sum()
        a, b = x[..., :4], x[..., 4:]
        return torch.cat([torch.cat([a * cos - b * sin, b * cos + a * sin], -1), qkv[:, 3:]], 1)

    agree(ours, plain, random(11, 5, 8), random(3, 8, seed=1))


def test_gated_silu() -> None:
    agree(gated_silu, lambda gate, up: F.silu(gate) * up, random(11, 6), random(11, 6, seed=1))


@pytest.mark.parametrize("shape", [(9, 4, 6), (9, 6, 4), (5, 3, 300), (5, 300, 3), (300, 2, 2)])
@pytest.mark.parametrize("bias", [True, False])
def test_onednn_products(shape: tuple[int, int, int], bias: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")):
        pytest.skip("this PyTorch has no oneDNN")
    monkeypatch.setattr(matmul, "SMALLEST", 0)
    monkeypatch.setattr(matmul, "onednn_is_faster", lambda: True)
    used: list[bool] = []
    product = matmul._product
    monkeypatch.setattr(matmul, "_product", lambda *tensors: used.append(True) or product(*tensors))  # type: ignore[func-returns-value]
    n, inside, out = shape
    tensors = [random(n, inside), random(out, inside, seed=1), *([random(out, seed=2)] if bias else [])]
    agree(matmul.linear, F.linear, *tensors, tolerance=1e-4)
    assert used
    strided = random(n, 2 * inside)[:, ::2]  # what oneDNN is slow at must still be right
    torch.testing.assert_close(matmul.linear(strided, random(out, 2 * inside)[:, ::2]), F.linear(strided, random(out, 2 * inside)[:, ::2]))


def test_other_dtypes_and_small_products_take_the_ordinary_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matmul, "onednn_is_faster", lambda: True)
    monkeypatch.setattr(matmul, "_product", lambda *_: pytest.fail("oneDNN was used"))
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        x, weight = random(3, 4).to(dtype), random(5, 4).to(dtype)
        assert torch.equal(matmul.linear(x, weight), F.linear(x, weight))
