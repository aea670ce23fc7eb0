"""Golden vectors of OORL: the loss of groups, its gradients, the whitened advantage, and both losses in one step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from rheostat.credit.token_returns import reinforce_pp_advantage
from rheostat.methods.language.oorl import OORL
from rheostat.objectives.group_preference import group_preference_loss
from rheostat.trajectories import Source
from tests.vectors.methods import around, batch_of, scores_of
from tests.vectors.tools import Unsupported, boolean, gradients, leaf, plain, tensor


def run(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Outputs of one case."""
    if name == "gepo/equal_winners":
        return plain(ratios(inputs, params))
    if name.startswith("gepo/"):
        return plain(group(inputs, params))
    if name.startswith("reinforce_pp/"):
        found, returns = reinforce_pp_advantage(tensor(inputs["token_rewards"]), boolean(inputs["mask"]), gamma=params["gamma"])
        return plain({"adv": found, "returns": returns})
    if name == "combined/oorl":
        return plain(combined(inputs, params))
    raise Unsupported(f"the adapter does not know a case {name!r}")


def method(params: dict[str, Any]) -> OORL:
    """The method with the settings of a case."""
    return replace(
        OORL(),
        beta=params["beta"],
        spread_weight=params["lam"],
        variance=params["variance"],
        beta_inside_variance=params["beta_inside_variance"],
    )


def rows(inputs: dict[str, Any], logp: list[Tensor], own: int = 0, **fields: Any) -> tuple[Tensor, Any]:
    """Log-probabilities ``[B, T]`` and the batch of one group below ``own`` rows of the policy's."""
    names = [*(["mask"] if own else []), "winner_mask", "loser_mask"]
    width = max(each.shape[1] for each in logp)
    mask = torch.cat([wide(boolean(inputs[name]), width) for name in names])
    winners, losers = len(inputs["winner_mask"]), len(inputs["loser_mask"])
    known = torch.cat([wide(tensor(inputs[name]), width) for name in ("winner_ref_logp", "loser_ref_logp")])
    source = torch.full(mask.shape, int(Source.ANNOTATION))
    source[:own] = int(Source.FRESH)
    batch = batch_of(
        mask,
        units=torch.tensor([*range(own), *[own] * (winners + losers)]),
        columns={"chosen": torch.tensor([False] * own + [True] * winners + [False] * losers)},
        reference_logp=torch.cat([torch.zeros(own, width, dtype=torch.float64), known]),
        source=source,
        **fields,
    )
    return torch.cat([wide(each, width) for each in logp]), batch


def wide(values: Tensor, width: int) -> Tensor:
    """Rows ``[B, T]`` padded on the right."""
    return pad(values, (0, width - values.shape[1]))


def group(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """The term of the method on one group."""
    winner, loser = leaf(inputs["winner_logp"]), leaf(inputs["loser_logp"])
    logp, batch = rows(inputs, [winner, loser])
    term = method(params).compose().update_of().terms[-1].term
    loss, report = term(scores_of(logp), batch, term.denominator(batch, around()), around())
    mine, theirs = gradients(loss, winner, loser)
    ratio = ((logp.detach() - batch.rows.reference_logp) * batch.rows.mask).sum(-1)
    scale = params["beta"] ** 2 if params["beta_inside_variance"] else 1.0
    return {
        "loss": loss,
        "winner_logratio": ratio[: len(winner)],
        "loser_logratio": ratio[len(winner) :],
        "margin_times_beta": params["beta"] * report.sums["margin"],
        "winner_variance": scale * report.sums["equivalent_variance"],
        "grad_winner_logp": mine,
        "grad_loser_logp": theirs,
    }


def ratios(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """The loss from log-ratios."""
    winner, loser = leaf(inputs["winner_logratio"]), leaf(inputs["loser_logratio"])
    term = method(params).preference
    found = group_preference_loss(
        torch.cat([winner, loser]),
        torch.tensor([True] * len(winner) + [False] * len(loser)),
        torch.zeros(len(winner) + len(loser), dtype=torch.int64),
        beta=term.beta,
        spread=term.spread,
        variance=term.variance,
        beta_inside=term.beta_inside,
    )
    mine, theirs = gradients(found.loss.sum(), winner, loser)
    return {"loss": found.loss[0], "winner_variance": found.variance[0], "grad_winner_logratio": mine, "grad_loser_logratio": theirs}


def combined(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """One gradient step of the method on translations and one group."""
    logp, winner, loser = (leaf(inputs[name]) for name in ("logp", "winner_logp", "loser_logp"))
    width = max(each.shape[1] for each in (logp, winner, loser))
    below = torch.zeros(len(winner) + len(loser), width, dtype=torch.float64)
    every, batch = rows(
        inputs,
        [logp, winner, loser],
        len(logp),
        learner_logp=torch.cat([wide(tensor(inputs["old_logp"]), width), below]),
        advantage=torch.cat([wide(tensor(inputs["adv"]), width), below]),
    )
    weighted = replace(method(params), preference_weight=params["w_gepo"])
    part = weighted.compose().update_of()
    counts = [each.term.denominator(batch, around()) for each in part.terms]
    loss, told, _, _ = part.losses(around(), scores_of(every), batch, counts)
    mine, good, bad = gradients(loss, logp, winner, loser)
    return {
        "loss": loss,
        "loss_rl": told["policy_loss"],
        "loss_gepo": told["preference_loss"],
        "grad_logp": mine,
        "grad_winner_logp": good,
        "grad_loser_logp": bad,
    }
