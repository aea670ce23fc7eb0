"""What the PMOE study asks of a run, on policies whose answers are known, and its declared settings."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from rheostat.policies.control.mixtures import SquashedMixture
from rheostat.streams import Streams
from studies import _pmoe_looks as looks
from studies.pmoe import Sizes, claims

PEAK = torch.atanh(torch.tensor(0.6))


def run_of(logits: Tensor, mean: Tensor, log_std: float = -3.0, **others: Any) -> Any:
    """A run whose policy is this mixture in every state: logits ``[K]`` or ``[N, K]``, means ``[K, 2]``."""

    def distribution(observation: Tensor) -> SquashedMixture:
        rows = len(observation)
        centre = mean.expand(rows, *mean.shape)
        return SquashedMixture(logits.expand(rows, logits.shape[-1]), centre, torch.full_like(centre, log_std))

    context = SimpleNamespace(
        streams=Streams(0), act_on_target=distribution, models={"policy": SimpleNamespace(distribution=distribution)}, stores=others
    )
    return SimpleNamespace(method=SimpleNamespace(context=context))


BOTH = torch.stack([torch.stack([PEAK, PEAK]), torch.stack([-PEAK, -PEAK])])


def test_shares_of_the_bumps_are_the_weights_of_experts_that_stand_on_them() -> None:
    found = looks.bumps(run_of(torch.tensor([0.8, 0.2]).log(), BOTH))
    assert found["upper"] == pytest.approx(0.8, abs=0.02) and found["rarer"] == found["lower"] == pytest.approx(0.2, abs=0.02)
    assert found["reward"] > 0.95
    between = looks.bumps(run_of(torch.zeros(1), torch.zeros(1, 2)))
    assert between["upper"] == between["lower"] == 0.0 and between["reward"] < 0.05


@pytest.mark.parametrize("flipped", [False, True])
def test_accuracy_does_not_care_which_expert_is_which(flipped: bool) -> None:
    grid = torch.linspace(-1, 1, looks.DRAWS)
    towards = 5 * torch.stack([grid, -grid], -1)
    knows = looks.context(run_of(towards.flip(-1) if flipped else towards, BOTH, log_std=-4.0))
    assert knows["accuracy"] == 1.0
    assert (knows["reward"] > 0.9) != flipped  # whose expert is whose decides about the reward
    assert looks.context(run_of(torch.tensor([1.0, 0.0]), BOTH))["accuracy"] == 0.5


def test_cells_are_those_of_learned_steps() -> None:
    steps = {
        "version": torch.tensor([0, 0, 5, 6, 7]),
        "next_observation": torch.tensor([[-1.0, -1.0], [0.9, 0.9], [0.61, 0.59], [0.62, 0.58], [-0.6, -0.6]]).repeat(1, 2),
        "truncated": torch.tensor([False, False, True, False, True]),
    }
    columns = {name: torch.cat([x, x[:1]]) for name, x in steps.items()}

    class Five(SimpleNamespace):
        """A replay with room for a sixth step."""

        def __len__(self) -> int:
            return 5

    found = looks.goals(run_of(torch.zeros(1), torch.zeros(1, 2), replay=Five(columns=columns)))
    assert found["upper"] == found["lower"] == found["rarer"] == 0.5
    assert found["cells"] == 2.0  # the uniform steps do not count, and (0.61, 0.59) and (0.62, 0.58) share one


def test_arms_differ_in_the_mixture_alone() -> None:
    own = {"mixture_size", "mixture_gradient", "update"}
    for claim in claims(Sizes()):
        configs = [next(iter(cells.values())).arguments["config"] for cells in claim.arms.values()]
        rest = [{name: value for name, value in config.items() if name not in own} for config in configs]
        assert all(config == rest[0] for config in rest)
        assert {len(cells) for cells in claim.arms.values()} == {8}
