"""Watching a method train: what every turn learned from, and of every gradient step the weights around it and the raw gradient."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rheostat.api import settings_for
from rheostat.policies.language.model import LanguagePolicy
from rheostat.training.building import build_method
from rheostat.training.run import Run
from tests.plain.rows import Row, read_rows

Weights = list[Tensor]
SIZES: dict[str, Any] = {
    "prompts_per_batch": 3, "group_size": 3, "max_new_tokens": 8, "learning_rate": 1e-2, "weight_decay": 0.1, "max_grad_norm": 0.2,
    "epochs": 2, "micro_batch_rows": 4, "evaluate_every": 0, "evaluation_episodes": 0, "checkpoint_every": 100, "threads": 1,
    "environment_options": {},
}  # fmt: skip
STOPS = (4, 5, 6)
"""Tokens that also end a completion: a random model hardly ever ends."""


@dataclass
class GradientStep:
    """One step of one model's optimiser."""

    model: str
    rate: float
    before: Weights
    gradient: Weights
    """Before its norm is limited."""
    after: Weights = field(default_factory=list)


@dataclass
class Turn:
    """What one turn of the loop learned from, and how."""

    rows: list[Row] = field(default_factory=list)
    """As they were collected, then what joined them; nothing has left yet."""
    start: dict[str, Weights] = field(default_factory=dict)
    """Of every trained model, as the turn begins."""
    chance: torch.Tensor | None = None
    """State of the stream that cuts minibatches."""
    steps: list[GradientStep] = field(default_factory=list)


def trained(method: Any) -> dict[str, Any]:
    """The models that are trained, by name."""
    return {name: model for name, model in method.context.models.items() if hasattr(model, "optimizer")}


def copies(network: Any) -> Weights:
    """What is trained of a network, as it is now."""
    return [parameter.detach().clone() for parameter in network.parameters() if parameter.requires_grad]


class Watch:
    """Watches a method from outside: it is called as the training loop calls it, and calls what it would have called.

    Args:
        method: nothing of it changes but that its steps are written down.
    """

    def __init__(self, method: Any) -> None:
        self.method = method
        self.turns: list[Turn] = []
        self._collect, self._retain, self._credit = method.collect, method.retain, method.credit
        method.collect, method.retain, method.credit = self.collect, self.retain, self.credit
        for name, model in trained(method).items():
            model.step = self._watched(name, model, model.step)

    @property
    def steps(self) -> list[GradientStep]:
        """Every gradient step so far."""
        return [step for turn in self.turns for step in turn.steps]

    def collect(self) -> Any:
        """Begin a turn."""
        models = trained(self.method)
        turn = Turn(start={name: copies(model.network) for name, model in models.items()})
        self.turns.append(turn)
        batch = self._collect()
        turn.rows = read_rows(batch)
        turn.chance = self.method.context.streams["minibatches"].get_state().clone()
        return batch

    def retain(self, batch: Any) -> Any:
        """What has joined the collected rows."""
        turn = self.turns[-1]
        kept = self._retain(batch)
        turn.rows += read_rows(kept, len(turn.rows))
        return kept

    def credit(self, batch: Any) -> Any:
        """What was drawn for every row."""
        found = self._credit(batch)
        for row, seed in zip(self.turns[-1].rows, found.columns.get("flow_seed", torch.zeros(0)).tolist(), strict=False):
            row.facts["flow_seed"] = seed
        return found

    def _watched(self, name: str, model: Any, step: Callable[[], Tensor]) -> Callable[[], Tensor]:
        def watched() -> Tensor:
            parameters = model.parameters
            gradient = [torch.zeros_like(each) if each.grad is None else each.grad.clone() for each in parameters]
            seen = GradientStep(name, model.optimizer.param_groups[0]["lr"], copies(model.network), gradient)
            self.turns[-1].steps.append(seen)
            norm = step()
            seen.after = copies(model.network)
            return norm

        return watched


def settings_of(method: str, model: str, task: Any, turns: int, options: dict[str, Any]) -> Any:
    """Settings of a small run, of which ``options`` change some and leave some out."""
    values = SIZES | {"model": model, "steps": turns} | options
    return settings_for(method, task, **{name: value for name, value in values.items() if value != "left out"})


def watch_run(settings: Any, task: Any, directory: Path) -> Watch:
    """A whole run, by the training loop that users call."""
    run = Run.create(directory, settings, task=task)
    watch = Watch(begin(run.method))
    run.train()
    return watch


def watch_turns(
    settings: Any, task: Any, turns: int, change: Callable[[Any], None] = lambda method: None, enough: Callable[[Watch], bool] | None = None
) -> Watch:
    """The turns of a method without a run's directory.

    Args:
        settings: of the run.
        task: it trains on.
        turns: at most.
        change: may spoil the method before.
        enough: of what was seen so far, whether to stop.
    """
    built = begin(build_method(settings, task, copy.deepcopy(loaded(str(settings.model)))))
    change(built)
    watch = Watch(built)
    for _ in range(turns):
        built.turn()
        if enough is not None and enough(watch):
            break
    return watch


@functools.cache
def loaded(folder: str) -> tuple[Any, Any]:
    """A model and its tokenizer."""
    policy = LanguagePolicy.load(folder)
    return policy.causal, policy.tokenizer


def begin(method: Any) -> Any:
    """A method whose completions end soon and whose reward model or flow field, where it has one, has an opinion."""
    method.policy.stop_ids = (*method.policy.stop_ids, *STOPS)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, model in trained(method).items():
            heads = [model.network.head] if hasattr(model.network, "head") else []
            heads += [model.network.value_head] if getattr(model.network, "value_head", None) is not None else []
            whole = name == "flow" or (name == "reward" and not heads)
            changed = model.parameters if whole else [each for head in heads for each in head.parameters()]
            for parameter in changed:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))
    return method
