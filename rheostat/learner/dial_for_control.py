"""The dial turned on a control method: rewrites of its composition (:mod:`rheostat.learner.dial` says what the numbers mean)."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, cast

from rheostat.buffers.control_retainers import RecentRowsBeside
from rheostat.collect.control.control_collectors import ExpertRows, Rollout
from rheostat.errors import RheostatError
from rheostat.learner.control_models import LaggedActorModel
from rheostat.learner.dial import Dial, hidden_options, refused
from rheostat.learner.learner import Composition
from rheostat.learner.stages import Staged
from rheostat.learner.teamed import Teamed

LANGUAGE_ALONE = "it is for language methods, and a control policy of earlier updates acts with dial.lag"


def rewrite(dial: Dial, composition: Composition | Staged | Teamed, who: str) -> Composition | Staged | Teamed:
    """The composition with these data.

    Args:
        dial: how far off-policy they may be.
        composition: a control method's.
        who: the method's name, for the sentences.

    Raises:
        RheostatError: the method lacks the parts for it, or a part says that it cannot honour it.
    """
    if dial.off:
        return composition
    if isinstance(composition, Teamed):
        return replace(composition, member=cast(Composition, rewrite(dial, composition.member, who)))
    if dial.refresh_every != 1:
        raise RheostatError(f"{who} cannot honour dial.refresh_every: {LANGUAGE_ALONE}.")
    dial.refuse(composition, who)
    if isinstance(composition, Staged) or not isinstance(composition.collect, Rollout):
        raise RheostatError(f"{who} cannot honour the dial: nobody acts for an update of its own.")
    found = replace(composition, retain=list(composition.retain), improve=list(composition.improve), models=dict(composition.models))
    rollout = composition.collect
    if dial.replay_share:
        if found.any("keeps_history"):
            windows = [part.batches for part in found.retain if getattr(part, "keeps_history", False)]
            raise RheostatError(
                f"window is {windows[0]} and dial.replay_share {dial.replay_share:g}: both use earlier batches again; use one."
            )
        found.retain.append(RecentRowsBeside(dial.replay_age, dial.replay_share))
    if dial.expert_share:
        found.retain.append(ExpertRows(dial.expert_share, rollout.environments, rollout.vector_steps))
    if dial.lag:
        found.models["acting"] = LaggedActorModel(dial.lag)
        found.collect = replace(rollout, acting="acting")
    if dial.updates_per_batch is not None:
        found.improve = [repeated(part, max(1, dial.updates_per_batch)) for part in found.improve]
    share = dial.replay_share + dial.expert_share
    found.improve = [part.with_share(share) if hasattr(part, "with_share") else part for part in found.improve]
    return found


def repeated(part: Any, steps: int) -> Any:
    """An update of the policy with so many passes, each one gradient step; other updates stay."""
    if hasattr(part, "part"):
        return replace(part, part=repeated(part.part, steps))
    return replace(part, epochs=steps, minibatches=1) if getattr(part, "model", None) == "policy" else part


def hidden(composition: Composition | Staged | Teamed) -> frozenset[str]:
    """Paths of the dial's numbers that the method cannot honour at all."""
    if isinstance(composition, Teamed):
        return hidden(composition.member)
    return hidden_options([*refused(composition), "refresh_every"] if turns(composition) else [item.name for item in fields(Dial)])


def turns(composition: Composition | Staged) -> bool:
    """Whether somebody acts for every update, so that there is something to turn."""
    return isinstance(composition, Composition) and isinstance(composition.collect, Rollout)
