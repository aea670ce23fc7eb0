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
    steps: dict[int, Any] = field(default_factory=dict)
    """Compiled steps by the identity of the part that they take the place of: a changed copy of it is another part."""
    why_plain: str = ""
    """Why kernels that were asked for are not used."""

    def take(self, part: Any, make: Callable[[], Any]) -> None:
        """Take compiled steps in the place of a part's, where they are asked for and there are some for every part.

        Args:
            part: an update.
            make: returns the steps, compiled; raises :class:`NotCompiled` where it does not know an option in use.
        """
        if self.asked == "plain" or self.why_plain:
            return
        try:
            require_compiler()
            self.steps[id(part)] = make()
        except NotCompiled as reason:
            self.leave(str(reason))
        except (OSError, RuntimeError, ImportError) as error:  # of Numba: no place for its cache, a full disk, a foreign processor
            said = shown_error(error)
            self.leave(f"Numba could not compile or store it ({said}; NUMBA_CACHE_DIR names a folder for its cache)")

    def leave(self, why: str) -> None:
        """PyTorch makes all gradient steps, for this reason, where kernels were asked for."""
        if self.asked != "plain":
            self.steps, self.why_plain = {}, why

    def of(self, part: Any, otherwise: Callable[..., Any]) -> Callable[..., Any]:
        """The compiled steps in the place of a part's own; those where there are none."""
        found: Callable[..., Any] = self.steps.get(id(part), otherwise)
        return found

    @property
    def fast(self) -> bool:
        """Whether kernels make gradient steps."""
        return bool(self.steps)

    def settle(self, who: str) -> None:
        """Everything is bound: say why there are no kernels where no part has said it."""
        if not self.steps and not self.why_plain:
            self.leave(f"there is none for {who}")

    def agree(self, others: list[Compute]) -> None:
        """Several policies are computed alike: by kernels where they know every one of them, else all by PyTorch."""
        if all(each.fast for each in others):
            self.steps = {index: each.steps for index, each in enumerate(others)}
            return
        self.leave(next((each.why_plain for each in others if each.why_plain), "there is none for every policy"))
        for each in others:
            each.leave(self.why_plain)

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
