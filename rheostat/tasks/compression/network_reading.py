"""From a user's ``torch.nn`` module to an architecture with its weights, by its graph of operations.

What the compressor cannot cut is refused, with the layer's name and the reason. A network that was read is built again from its
architecture and compared with the module on real images: what was misread is refused, too, and never compressed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from rheostat.errors import RheostatError, shown_error
from rheostat.tasks.compression.architecture import TYPES, Architecture, Block, ConvNet, Impossible, Item, Layer

TOLERANCE = 1e-3
"""Largest difference of logits between a module and what was read of it, relative to their size."""


@dataclass(eq=False)
class Step:
    """One layer of a graph, or a sum of two paths; equal only to itself."""

    layer: Layer | None = None
    source: nn.Module | None = None
    branch: tuple[Step, ...] = ()
    shortcut: tuple[Step, ...] = ()


Path = tuple[Step, ...]
"""What an image has gone through."""
SOFTMAX = "Softmax"


def read_network(module: nn.Module, images: Tensor, name: str) -> ConvNet:
    """A module as a network that can be cut, with its weights; a softmax at its end is left out, so that it makes logits.

    Args:
        module: of Conv2d, MaxPool2d, AvgPool2d, AdaptiveAvgPool2d, BatchNorm2d, ReLU, Dropout, Flatten and Linear, one after the other
            and in residual blocks, however they are written down.
        images: float32 ``[B, C, H, W]``, to compare it on.
        name: of the network, for sentences.

    Raises:
        RheostatError: it cannot be read or cut, with the layer and the reason, or computes something else than was read.
    """
    if not isinstance(module, nn.Module):
        raise RheostatError(f"{name} is a {type(module).__name__}: the network to compress is a torch.nn.Module.")
    was_training = module.training
    module.eval()
    try:
        expected = _called(module, images, name)
        path = _Reader(module, name).path()
        normalised = bool(path) and path[-1].layer is not None and path[-1].layer.kind == SOFTMAX
        network = _rebuilt(path[:-1] if normalised else path, images, name)
        _compare(network, expected, images, normalised, name)
    finally:
        module.train(was_training)
    return network


def _called(module: nn.Module, images: Tensor, name: str) -> Tensor:
    try:
        with torch.no_grad():
            found = module(images)
    except Exception as error:
        shape = " x ".join(map(str, images.shape[1:]))
        raise RheostatError(f"{name} does not take images of {shape}: {shown_error(error)}.") from error
    if not isinstance(found, Tensor) or found.dim() != 2:
        made = f"a tensor {list(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
        raise RheostatError(f"{name} makes {made} of {len(images)} images: it must make logits [{len(images)}, classes].")
    return found


def _rebuilt(path: Path, images: Tensor, name: str) -> ConvNet:
    """The network of a path, with the weights of the modules it came from."""
    if any(each.layer is not None and each.layer.kind == SOFTMAX for step in path for each in (step, *step.branch, *step.shortcut)):
        raise RheostatError(f"{name} has a softmax before its end, which the compressor does not cut.")
    items: list[Item] = []
    sources: list[nn.Module | None] = []
    for step in path:
        layers = [*step.branch, *step.shortcut] or [step]
        sources += [each.source for each in layers]
        if step.layer is not None:
            items.append(step.layer)
        else:
            items.append(Block(*(tuple(each.layer for each in part if each.layer) for part in (step.branch, step.shortcut))))
    channels, height, width = images.shape[1:]
    try:
        network = ConvNet(Architecture(tuple(items), (channels, height, width)))
        for mine, theirs in zip(network.in_order(), sources, strict=True):
            if theirs is not None and mine.state_dict():
                mine.load_state_dict(theirs.state_dict())
    except (Impossible, RuntimeError) as error:
        raise RheostatError(f"{name} was not read as it computes: {shown_error(error)}.") from error
    return network.eval()


def _compare(network: ConvNet, expected: Tensor, images: Tensor, normalised: bool, name: str) -> None:
    with torch.no_grad():
        found = network(images)
    if found.shape == expected.shape and normalised:
        log = functional.log_softmax(found, -1)
        found = log if float(expected.max()) <= 0 else log.exp()
    near = found.shape == expected.shape and float((found - expected).abs().max()) <= TOLERANCE * max(1.0, float(expected.abs().max()))
    if not near:
        raise RheostatError(
            f"{name} computes something beside its layers that the compressor does not see (what was read of it gives other logits): "
            "write it as layers one after the other, and sums of two paths."
        )


class _Reader:
    """Follows the graph of a module from its images to its logits."""

    def __init__(self, module: nn.Module, name: str) -> None:
        self.module, self.name = module, name
        self.used: set[str] = set()

    def path(self) -> Path:
        """All that an image goes through."""
        try:
            graph = fx.Tracer().trace(self.module)
        except Exception as error:
            raise RheostatError(
                f"{self.name} cannot be followed through its layers ({shown_error(error)}): its forward must not depend on the images."
            ) from error
        values: dict[fx.Node, Path | None] = {}
        for node in graph.nodes:
            if node.op == "output":
                found = values.get(node.args[0]) if isinstance(node.args[0], fx.Node) else None
                if found is None:
                    raise RheostatError(f"{self.name} makes something else than one row of logits for an image.")
                return found
            values[node] = self._value(node, values)
        raise RheostatError(f"{self.name} returns nothing.")

    def _value(self, node: fx.Node, values: dict[fx.Node, Path | None]) -> Path | None:
        """What a node makes; None of one that makes no image (a size, say)."""
        inputs = [values[each] for each in node.all_input_nodes]
        paths = [each for each in inputs if each is not None]
        if node.op == "placeholder":
            return () if not values else None
        if node.op == "call_module":
            return paths[0] + self._module(str(node.target))
        what = node.target if node.op == "call_method" else getattr(node.target, "__name__", str(node.target))
        if what in ("size", "getattr", "getitem", "dim"):
            return None
        if what in ("add", "iadd", "add_") and len(paths) == 2:
            return self._sum(node, *paths)
        if node.op in ("call_function", "call_method") and len(paths) == 1 and what in OPERATIONS:
            return paths[0] + OPERATIONS[what](node, self._refuse)
        raise self._refuse(node.name, f"is the operation {what}, which the compressor does not cut")

    def _refuse(self, layer: str, why: str) -> RheostatError:
        known = ", ".join(TYPES)
        return RheostatError(f"{self.name}: the layer {layer!r} {why} (it cuts {known}, in a chain and in residual blocks).")

    def _module(self, place: str) -> Path:
        """The layers of a module."""
        module = self.module.get_submodule(place)
        if isinstance(module, nn.Identity):
            return ()
        if place in self.used and any(True for _ in module.parameters()):
            raise self._refuse(place, "is used twice, so it cannot be cut in one place alone")
        self.used.add(place)
        kind = type(module).__name__
        if kind in ("Softmax", "LogSoftmax"):
            return (Step(Layer(SOFTMAX)),)
        if kind not in TYPES or not type(module).__module__.startswith("torch.nn"):
            raise self._refuse(place, f"is a {kind}, which the compressor does not cut")
        return (Step(self._layer(place, module, kind), module),)

    def _layer(self, place: str, module: Any, kind: str) -> Layer:
        def one(name: str) -> int:
            """A number that a module may have for height and width."""
            value = getattr(module, name)
            if isinstance(value, tuple | list):
                if len(set(value)) > 1:
                    raise self._refuse(place, f"has {name} {tuple(value)}: only squares are cut")
                value = value[0]
            if not isinstance(value, int):
                raise self._refuse(place, f"has {name} {value!r}: only numbers are cut")
            return value

        plain = {"dilation": 1, "groups": 1, "padding_mode": "zeros", "ceil_mode": False, "return_indices": False, "divisor_override": None}
        for name, value in plain.items():
            given = getattr(module, name, value)
            if given not in (value, (value, value)):
                raise self._refuse(place, f"has {name} {given!r}: only {value!r} is cut")
        if kind == "Conv2d":
            window = {name: one(name) for name in ("stride", "padding")}
            return Layer(kind, kernel=one("kernel_size"), size=module.out_channels, bias=module.bias is not None, **window)
        if kind in ("MaxPool2d", "AvgPool2d"):
            return Layer(kind, kernel=one("kernel_size"), stride=one("stride"), padding=one("padding"))
        if kind == "AdaptiveAvgPool2d":
            return Layer(kind, kernel=one("output_size"))
        if kind == "Linear":
            return Layer(kind, size=module.out_features, bias=module.bias is not None)
        if kind == "BatchNorm2d":
            if not (module.affine and module.track_running_stats):
                raise self._refuse(place, "normalises without weights or statistics of its own")
            return Layer(kind, epsilon=module.eps)
        return Layer(kind, rate=module.p) if kind == "Dropout" else Layer(kind)

    def _sum(self, node: fx.Node, one: Path, other: Path) -> Path:
        """A residual block: two paths that part somewhere and meet here."""
        shared = 0
        while shared < min(len(one), len(other)) and one[shared] is other[shared]:
            shared += 1
        branch, shortcut = one[shared:], other[shared:]
        if _convolutions(shortcut) > _convolutions(branch):
            branch, shortcut = shortcut, branch
        if any(step.layer is None for step in (*branch, *shortcut)):
            raise self._refuse(node.name, "sums paths of which one holds a sum already: blocks inside of blocks are not cut")
        if not _convolutions(branch):
            raise self._refuse(node.name, "sums two paths of which none has a convolution")
        return (*one[:shared], Step(branch=branch, shortcut=shortcut))


def _convolutions(path: Sequence[Step]) -> int:
    return sum(step.layer is not None and step.layer.kind == "Conv2d" for step in path)


# --- operations that are written as functions ---------------------------------------------------------------------------------------------

Refuse = Callable[[str, str], RheostatError]


def _argument(node: fx.Node, index: int, name: str, default: Any) -> Any:
    return node.args[index] if len(node.args) > index else node.kwargs.get(name, default)


def _number(node: fx.Node, index: int, name: str, default: Any, refuse: Refuse) -> int:
    found = _argument(node, index, name, default)
    if isinstance(found, tuple | list) and len(set(found)) == 1:
        found = found[0]
    if not isinstance(found, int):
        raise refuse(node.name, f"has {name} {found!r}: only one number is cut")
    return found


def _pool(kind: str) -> Callable[[fx.Node, Refuse], Path]:
    def made(node: fx.Node, refuse: Refuse) -> Path:
        kernel = _number(node, 1, "kernel_size", None, refuse)
        stride = _argument(node, 2, "stride", None)
        stride = kernel if stride is None else _number(node, 2, "stride", None, refuse)
        return (Step(Layer(kind, kernel=kernel, stride=stride, padding=_number(node, 3, "padding", 0, refuse))),)

    return made


def _mean(node: fx.Node, refuse: Refuse) -> Path:
    """A mean over height and width."""
    over = _argument(node, 1, "dim", None)
    if not isinstance(over, tuple | list) or sorted(each % 4 for each in over) != [2, 3]:
        raise refuse(node.name, f"is a mean over {over}: only one over height and width is cut")
    pool = Step(Layer("AdaptiveAvgPool2d", kernel=1))
    return (pool,) if _argument(node, 2, "keepdim", False) else (pool, Step(Layer("Flatten")))


def _flat(node: fx.Node, refuse: Refuse) -> Path:
    return (Step(Layer("Flatten")),)


def _relu(node: fx.Node, refuse: Refuse) -> Path:
    return (Step(Layer("ReLU")),)


def _softmax(node: fx.Node, refuse: Refuse) -> Path:
    return (Step(Layer(SOFTMAX)),)


def _dropout(node: fx.Node, refuse: Refuse) -> Path:
    return (Step(Layer("Dropout", rate=float(_argument(node, 1, "p", 0.5)))),)


def _nothing(node: fx.Node, refuse: Refuse) -> Path:
    return ()


OPERATIONS: dict[Any, Callable[[fx.Node, Refuse], Path]] = {
    "relu": _relu,
    "relu_": _relu,
    "flatten": _flat,
    "view": _flat,
    "reshape": _flat,
    "softmax": _softmax,
    "log_softmax": _softmax,
    "dropout": _dropout,
    "max_pool2d": _pool("MaxPool2d"),
    "boolean_dispatch": _pool("MaxPool2d"),
    "avg_pool2d": _pool("AvgPool2d"),
    "adaptive_avg_pool2d": lambda node, refuse: (Step(Layer("AdaptiveAvgPool2d", kernel=_number(node, 1, "output_size", 1, refuse))),),
    "mean": _mean,
    "contiguous": _nothing,
    "float": _nothing,
}
"""By the name of the function or method; what they make of their arguments is checked on images at the end."""
