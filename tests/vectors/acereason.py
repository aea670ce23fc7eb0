"""Golden vectors of AceReason: its on-policy step, the ablation's second step, the filter, the curriculum, and programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from rheostat.credit.verifiers.programs import credit_of
from rheostat.experiments.recipe import Stage, read_recipe
from rheostat.experiments.recipe_stages import within
from rheostat.methods.language.acereason import AceReason
from tests.vectors.methods import advantage, batch_of, minimised
from tests.vectors.tools import Unsupported, boolean, gradients, integer, leaf, plain, tensor

RECIPE = Path(__file__).parents[2] / "docs" / "examples" / "acereason.toml"


def run(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Outputs of one case."""
    for start, case in CASES.items():
        if name.startswith(start):
            return plain(case(inputs, params))
    raise Unsupported(f"the adapter does not know a case {name!r}")


def on_policy(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """The method's advantage and its update; the gradient of plain REINFORCE beside it."""
    logp, mask, method = leaf(inputs["logp"]), boolean(inputs["mask"]), AceReason()
    found = advantage(method, tensor(inputs["score"]), integer(inputs["group"]), mask) * mask
    loss, _ = minimised(method, logp, batch_of(mask, learner_logp=tensor(inputs["old_logp"]), advantage=found))
    mine = gradients(loss, logp)[0]
    plainly = -(found * logp * mask).sum() / mask.sum()
    return {"advantages": found, "loss": loss, "grad_logp": mine, "reinforce_grad": gradients(plainly, logp)[0]}


def second(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """A later step on the same batch, where the clips act; the recorded shares are of the ratio and of the logarithm."""
    logp, mask, old = leaf(inputs["logp"]), boolean(inputs["mask"]), tensor(inputs["old_logp"])
    batch = batch_of(mask, learner_logp=old, advantage=tensor(inputs["advantages"]))
    loss, _ = minimised(AceReason(), logp, batch)
    ratio, worth = (logp.detach() - old)[mask].exp(), tensor(inputs["advantages"])[mask]
    clipped = (-worth * ratio.clamp(0.8, 1.2)) > -worth * ratio
    return {
        "loss": loss,
        "grad_logp": gradients(loss, logp)[0],
        "clipfrac": clipped.double().mean(),
        "ppo_kl": -(logp.detach() - old)[mask].mean(),
    }


def hard(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Which prompts a stage of the recipe keeps."""
    stage = next(stage for stage in read_recipe(RECIPE).stages if stage.pass_rate is not None)
    assert stage.pass_rate is not None and stage.pass_rate_samples == params["n"]
    rates = {str(number): right / params["n"] for number, right in enumerate(inputs["correct_of_16"])}
    kept = within(rates, *stage.pass_rate)
    return {"keep": [name in kept for name in rates]}


def curriculum(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """The stages of mathematics."""

    def told(stage: Stage) -> dict[str, Any]:
        settings = stage.settings
        return {"max_len": settings["max_new_tokens"], "group": settings["group_size"], "hard_only": stage.pass_rate is not None}

    return {"stages": [told(stage) for stage in read_recipe(RECIPE).stages if stage.name.startswith("math")]}


def programs(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """What programs earn."""
    return {"reward": torch.tensor([credit_of([bool(each) for each in passed]) for passed in inputs["test_passed"]])}


CASES = {
    "onpolicy_": on_policy,
    "second_update": second,
    "hard_prompt_filter": hard,
    "math_curriculum": curriculum,
    "code_reward": programs,
}
