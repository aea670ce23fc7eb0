"""Who makes the gradient steps of a control method: PyTorch, or compiled kernels where they know every option in use.

The kernels (:mod:`rheostat.learner.compiled_kernels`) compute what PyTorch computes up to rounding, so a run is either computed by them or
not: which of both is a part of its identity.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib import metadata
from importlib.util import find_spec
from typing import Any, Literal

from rheostat.errors import install_hint, shown_error

Asked = Literal["plain", "auto", "fast"]
"""PyTorch; kernels wherever they know every option in use; kernels or nothing."""


class NotCompiled(Exception):
    """There is no kernel for this; the message says why."""


@dataclass
class Compute:
    """Who makes the gradient steps of a learner."""

    asked: Asked = "plain"
    steps: dict[str, Any] = field(default_factory=dict)
    """Compiled steps by the name of the model that they move."""
    why_plain: str = ""
    """Why kernels that were asked for are not used."""

    def take(self, model: str, make: Callable[[], Any]) -> None:
        """Take compiled steps for a model, where they are asked for and there are any.

        Args:
            model: its name.
            make: returns the steps, compiled; raises :class:`NotCompiled` where it does not know an option in use.
        """
        if self.asked == "plain":
            return
        try:
            require_compiler()
            self.steps[model] = make()
        except NotCompiled as reason:
            self.why_plain = str(reason)
        except (OSError, RuntimeError, ImportError) as error:  # of Numba: no place for its cache, a full disk, a foreign processor
            said = shown_error(error)
            self.why_plain = f"Numba could not compile or store it ({said}; NUMBA_CACHE_DIR names a folder for its cache)"

    @property
    def fast(self) -> bool:
        """Whether kernels make gradient steps."""
        return bool(self.steps)

    def settle(self, who: str) -> None:
        """Everything is bound: say why there are no kernels where no part has said it."""
        if self.asked != "plain" and not self.steps and not self.why_plain:
            self.why_plain = f"there is none for {who}"

    def agree(self, others: list[Compute]) -> None:
        """Several policies are computed alike: by kernels where they know every one of them, else all by PyTorch."""
        if all(each.fast for each in others):
            self.steps = {str(index): each.steps for index, each in enumerate(others)}
            return
        for each in others:
            each.steps = {}
            self.why_plain = self.why_plain or each.why_plain

    def describe(self) -> dict[str, int | str]:
        """For the head of a run; nothing where nobody asked."""
        return {} if self.asked == "plain" else {"gradient steps by": by(self.fast)}

    @property
    def sentence(self) -> str:
        """What a run says where kernels were asked for and are not used; else empty."""
        return f"{by(False)} makes the gradient steps, not a compiled kernel: {self.why_plain}." if self.why_plain else ""


def by(fast: bool) -> str:
    """Who makes gradient steps."""
    return f"a compiled kernel (Numba {metadata.version('numba')})" if fast else "PyTorch"


def require_compiler() -> None:
    """Refuse to go on without the packages of the extra ``fast``.

    Raises:
        NotCompiled: one is missing.
    """
    for package in ("numba", "threadpoolctl"):
        if find_spec(package) is None:
            raise NotCompiled(f"{package} is not installed ({install_hint('fast')})")


@functools.cache
def _blas() -> Any:
    import scipy.linalg  # noqa: F401  (the library whose threads are to be limited has to be loaded)
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


def one_thread() -> AbstractContextManager[Any]:
    """Inside, matrix products of NumPy and SciPy run on one thread."""
    found: AbstractContextManager[Any] = _blas().limit(limits=1)
    return found
