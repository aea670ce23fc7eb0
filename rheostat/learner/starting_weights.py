"""Weights that a run begins with: those of another run's models, by name, where the networks are the same.

Only weights are taken, and the statistics by which observations and rewards are normalised. Optimisers, data and counters begin anew, and
what begins as a copy of a model (target networks, references) copies the weights that were taken.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rheostat.errors import RheostatError

KEPT_AS = ("network", "parameters")
"""Under which a model's state has its weights: tensors by name, or one vector."""
VALUE_HEAD = "value_head."
"""Beginning of the names of a language model's critic, which may be there or not."""

ADAPTER = ".lora_"
"""In the names of adapters' weights."""


class StartingWeights:
    """What is taken of another run.

    Args:
        state: of its method, from a checkpoint.
        who: it is, for sentences.

    Attributes:
        taken: names of the models that have its weights.
        new: names of the models that begin as they are built.
    """

    def __init__(self, state: dict[str, Any], who: str) -> None:
        self.state, self.who = state, who
        self.taken: list[str] = []
        self.new: list[str] = []

    def of_policy(self, name: str) -> StartingWeights:
        """Those of one policy of several.

        Raises:
            RheostatError: there is none of this name.
        """
        state = self.state.get(f"policy.{name}")
        if state is None:
            raise RheostatError(f"{self.who} has no policy {name!r}: begin with a run whose agents have the same names.")
        found = StartingWeights(state, self.who)
        found.taken, found.new = self.taken, self.new
        return found

    def give_statistics(self, stores: dict[str, Any]) -> None:
        """Read observations as the other run did, and rewards in the units of its critic where both scale them.

        Raises:
            RheostatError: one of the two normalises them and the other does not, or otherwise, or they have another shape.
        """
        if "rewards" in stores and "stores.rewards" in self.state:
            stores["rewards"].statistics.load_state_dict(self.state["stores.rewards"]["statistics"])
        theirs, store = self.state.get("stores.observations"), stores.get("observations")
        mine = None if store is None else store.state_dict()
        if (theirs is None) != (mine is None) or (theirs is not None and mine is not None and theirs.keys() != mine.keys()):
            raise RheostatError(
                f"{self.who} {'does not normalise' if theirs is None else 'normalises'} observations, and this run "
                f"{'does not' if store is None else 'does, in its own way'}: give both the same options of normalisation."
            )
        if theirs is None or mine is None or store is None:
            return
        for value, own in zip(theirs.values(), mine.values(), strict=True):
            if isinstance(own, Tensor) and own.shape != value.shape:
                raise RheostatError(f"{self.who} does not fit: observations are {list(value.shape)} there and {list(own.shape)} here.")
        store.load_state_dict(theirs)

    def give(self, name: str, model: Any) -> None:
        """Put the weights of the model of this name into a new one; what has none, or begins as a copy, stays as it is.

        Raises:
            RheostatError: another network.
        """
        mine = {} if getattr(model, "begins_as_copy", False) or not hasattr(model, "state_dict") else model.state_dict()
        theirs = self.state.get(f"models.{name}", {})
        kept = next((key for key in KEPT_AS if key in mine), None)
        if kept is None:
            return
        if kept not in theirs:
            self.new.append(name)
            return
        weights = theirs[kept] if kept == "network" else {"parameters": theirs[kept]}
        places = mine[kept] if kept == "network" else {"parameters": mine[kept]}
        found = self._fitting(name, places, weights)
        self._refuse_other_base(name, model, found)
        model.load_state_dict(mine | {kept: found if kept == "network" else found["parameters"]})
        self.taken.append(name)

    def require(self, model: str) -> None:
        """Refuse to begin where the model that matters has none of the weights.

        Raises:
            RheostatError: it has not.
        """
        if model in self.new:
            raise RheostatError(f"{self.who} has no {model} to begin with: begin with a run of the same method.")
        if model not in self.taken:
            raise RheostatError("The policy of this method is not one network, so it cannot begin with another run's weights.")

    def _fitting(self, name: str, mine: dict[str, Tensor], theirs: dict[str, Tensor]) -> dict[str, Tensor]:
        """The other run's tensors in the places of one's own."""
        adapted = [any(ADAPTER in place for place in each) for each in (theirs, mine)]
        if adapted[0] != adapted[1]:
            raise RheostatError(
                f"{self.who} does not fit: its model has {'' if adapted[0] else 'no '}adapters, and here it has "
                f"{'some' if adapted[1] else 'none'}: give this run the same adapter_rank, or name the exported model with --model."
            )
        for place in dict.fromkeys([*mine, *theirs]):
            if place in mine and place in theirs and mine[place].shape == theirs[place].shape:
                continue
            if place.startswith(VALUE_HEAD) and (place in mine) != (place in theirs):
                continue
            there, here = (list(each[place].shape) if place in each else "nothing" for each in (theirs, mine))
            raise RheostatError(
                f"{self.who} does not fit: of its {name}, {place} is {there} there and {here} here, so begin with the same network."
            )
        if any(place.startswith(VALUE_HEAD) and place not in theirs for place in mine):
            self.new.append("value head")
        return {place: theirs.get(place, own) for place, own in mine.items()}

    def _refuse_other_base(self, name: str, model: Any, found: dict[str, Tensor]) -> None:
        """Refuse weights that are not trained here and are not what they are there."""
        parameters = getattr(getattr(model, "network", None), "named_parameters", None)
        for place, parameter in () if parameters is None else parameters():
            if not parameter.requires_grad and place in found and not torch.equal(parameter, found[place].to(parameter)):
                raise RheostatError(
                    f"{self.who} does not fit: the adapters of its {name} sit on another base model, so begin with the same one, or name "
                    "its exported model with --model."
                )
