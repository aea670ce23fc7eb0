"""TensorDict, imported without the compiler.

While it is imported, tensordict marks a few functions for ``torch.compile``, and the first mark loads the whole compiler: as long again as
PyTorch itself takes, in every process. Nothing of ours is compiled, so the marks are left out, unless the compiler is there already.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

MARKS = ("allow_in_graph", "assume_constant_result")


@contextmanager
def _without_marks() -> Iterator[None]:
    def unmarked(function: Callable[..., Any]) -> Callable[..., Any]:
        return function

    kept = {} if "torch._dynamo" in sys.modules else {name: getattr(torch.compiler, name) for name in MARKS}
    for name in kept:
        setattr(torch.compiler, name, unmarked)
    try:
        yield
    finally:
        for name, function in kept.items():
            setattr(torch.compiler, name, function)


with _without_marks():
    from tensordict import TensorClass, TensorDict

__all__ = ["TensorClass", "TensorDict"]
