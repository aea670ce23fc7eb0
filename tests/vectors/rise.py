"""Golden vectors of RISE: both tables of rewards, which solutions are judged, and a step of the method on a mixed batch."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from rheostat.collect.language.self_verification import judgement_rewards, per_group, solution_rewards
from rheostat.credit.annotations import TokenGAE
from rheostat.credit.verifiers.verifier_interface import Scores
from rheostat.methods.language.rise import RISE
from rheostat.objectives.terms import TokenValue
from rheostat.parts import Batch
from rheostat.trajectories import Trajectories
from tests.vectors.tools import Unsupported, boolean, gradients, leaf, plain, tensor


def run(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Outputs of one case."""
    if name == "outcome_reward_table":
        return plain(solutions(inputs))
    if name == "verification_reward_table":
        stated = [None if said == "" else float(said) for said in inputs["verifier_boxed"]]
        return plain({"reward": judgement_rewards(stated, torch.tensor(inputs["solution_reward"]), "three-valued")})
    if name.startswith("verification_subsample"):
        return {"per_group": per_group(-(-params["num_solutions"] // params["group"]), params["total"])}
    if name.startswith("ppo_step"):
        return plain(step(inputs, params))
    raise Unsupported(f"the adapter does not know a case {name!r}")


def solutions(inputs: dict[str, Any]) -> dict[str, Any]:
    """What solutions earn."""
    everything = torch.ones(len(inputs["boxed"]), dtype=torch.bool)
    notes = {"answer": ["1" if boxed else "" for boxed in inputs["boxed"]]}
    scores = Scores(torch.tensor(inputs["matches"], dtype=torch.float64), everything, ~everything, notes=notes)
    return {"reward": solution_rewards(scores, "three-valued")}


def step(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """The method's own annotation and terms on rows that are a whole gradient step."""
    mask, old, reference, value = boolean(inputs["mask"]), tensor(inputs["old_logp"]), tensor(inputs["ref_logp"]), tensor(inputs["values"])
    nothing, score = torch.zeros_like(mask), tensor(inputs["token_scores"])
    rows = Trajectories(
        action=torch.zeros(mask.shape, dtype=torch.int64),
        mask=mask,
        reward=score,
        terminated=nothing,
        truncated=nothing,
        sampler_logp=old,
        learner_logp=old,
        reference_logp=reference,
        value=value,
        next_value=torch.zeros_like(value),
        batch_size=list(mask.shape),
    )
    batch = TokenGAE(params["gamma"], params["lam"], params["kl_coef"])(SimpleNamespace(), Batch(rows))  # type: ignore[arg-type]
    logp, new_value = leaf(inputs["logp"]), leaf(inputs["new_values"])
    scores, context = SimpleNamespace(logp=logp, value=new_value), SimpleNamespace(longest=mask.shape[1])
    surrogate, *_, critic = (each.term for each in RISE().compose().improve[0].terms)
    assert isinstance(critic, TokenValue)
    policy, report = surrogate(scores, batch, surrogate.denominator(batch, context), context)
    regression, _ = critic(scores, batch, critic.denominator(batch, context), context)
    clipped = new_value.detach().clamp(value - params["value_clip"], value + params["value_clip"])
    worse = (clipped - rows.value_target).square() > (new_value.detach() - rows.value_target).square()
    return {
        "token_rewards": torch.where(mask, score - params["kl_coef"] * (old - reference), 0.0),
        "advantages": rows.advantage,
        "returns": rows.value_target,
        "policy_loss": policy,
        "grad_logp": gradients(policy, logp)[0],
        "value_loss": regression,
        "grad_values": gradients(regression, new_value)[0],
        "clipfrac": report.means["meter/clip_fraction"],
        "value_clipfrac": worse[mask].double().mean(),
        "ppo_kl": (old - logp.detach())[mask].mean(),
    }
