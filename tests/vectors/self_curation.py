"""Golden vectors of SELF: the gate, its loss and its forward KL, and the measurements of coverage and interference."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from rheostat.analysis.coverage import coverage
from rheostat.analysis.interference import influence
from rheostat.analysis.pass_at_k import pass_at_k
from rheostat.collect.language.gates import unsolved
from rheostat.credit.annotations import GroupAdvantage
from rheostat.credit.verifiers.verifier_interface import Scores
from rheostat.methods.language.self_curation import SelfCuration
from tests.vectors.methods import advantage as method_advantage
from tests.vectors.methods import batch_of, minimised, written_by
from tests.vectors.tools import Unsupported, boolean, gradients, integer, leaf, plain, tensor

GATES = ("greedy_filter", "greedy_filter_all_correct_batch_skipped")


def run(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Outputs of one case."""
    if name in GATES:
        return plain(gate(inputs))
    for start, case in CASES.items():
        if name.startswith(start):
            return plain(case(inputs, params))
    raise Unsupported(f"the adapter does not know a case {name!r}")


def gate(inputs: dict[str, Any]) -> dict[str, Any]:
    """Which prompts pass."""
    reward = tensor(inputs["greedy_reward"])
    keep = unsolved(Scores(reward, torch.ones_like(reward, dtype=torch.bool), torch.zeros_like(reward, dtype=torch.bool)))
    return {"keep": keep, "kept_index": keep.nonzero()[:, 0], "skip_batch": not bool(keep.any())}


def outcomes(correct: list[int], n: int) -> np.ndarray:
    """``[P, n]`` bool with so many right completions each."""
    return np.arange(n)[None, :] < np.array(correct)[:, None]


def chances(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """pass@k of every problem, and on average."""
    right = outcomes(inputs["num_correct"], inputs["num_samples"])
    found = {str(k): pass_at_k(right, k) for k in params["ks"]}
    return {"per_problem": found, "mean": {k: values.mean() for k, values in found.items()}}


def advantage(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """GRPO's advantage, with or without the deviation."""
    reward, group, mask = tensor(inputs["token_level_rewards"]).sum(1), integer(inputs["group"]), boolean(inputs["mask"])
    part = GroupAdvantage("grpo", params["eps"]) if params["norm_by_std"] else GroupAdvantage("mean-baseline")
    return {"advantages": method_advantage(SelfCuration(advantage=part), reward, group, mask)}


def surrogate(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """The method's own update with its dual clip; the recorded shares divide by the number of tokens and 1e-8."""
    logp, mask, old = leaf(inputs["logp"]), boolean(inputs["mask"]), tensor(inputs["old_logp"])
    batch = batch_of(mask, learner_logp=old, advantage=tensor(inputs["advantages"]))
    loss, _ = minimised(SelfCuration(), logp, batch)
    ratio, advantages = (logp.detach() - old)[mask].exp(), batch.rows.advantage[mask]
    wide = torch.maximum(-advantages * ratio, -advantages * ratio.clamp(0.8, 1.2))
    lower = (advantages < 0) & (-3.0 * advantages < wide)
    return {
        "loss": loss,
        "grad_logp": gradients(loss, logp)[0],
        "clipfrac": ((-advantages * ratio.clamp(0.8, 1.2)) > -advantages * ratio).double().mean(),
        "clipfrac_lower": lower.double().mean(),
        "ppo_kl": -(logp.detach() - old)[mask].mean(),
    }


def forward_kl(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """What the method minimises on a batch of rehearsed rows alone."""
    logp, mask = leaf(inputs["logp"]), boolean(inputs["mask"])
    known = {"sampler_logp": tensor(inputs["ref_logp"]), "advantage": torch.zeros_like(logp)}
    batch = batch_of(mask, source=written_by(torch.ones_like(mask)), **known)
    value, _ = minimised(SelfCuration(rehearsal_coefficient=1.0), logp, batch)
    return {"value": value, "grad_logp": gradients(value, logp)[0]}


def covered(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """What was lost and gained."""
    before, after = (outcomes(inputs[f"{side}_correct"], inputs["n"]) for side in ("base", "rl"))
    found = coverage(before, after, ks=params["ks"])
    return {
        "pass_base": {str(k): interval.estimate for k, interval in found.before.items()},
        "pass_rl": {str(k): interval.estimate for k, interval in found.after.items()},
        "frac_lost": found.lost.estimate,
        "frac_gained": found.gained.estimate,
        "spearman_base_vs_change": found.rank_correlation,
    }


def from_gradients(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Interference to first order; the recorded mean is of inner products, without the step size."""
    found = influence(inputs["problem_gradients"], params["lr"])
    return {"influence": found.matrix, "frac_negative": found.negative_share, "mean_offdiag": found.mean_effect / params["lr"]}


CASES = {
    "pass_at_k": chances,
    "grpo_adv": advantage,
    "policy_loss": surrogate,
    "forward_kl": forward_kl,
    "coverage": covered,
    "interference": from_gradients,
}
