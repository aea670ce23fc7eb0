"""Advantages by name: each is the function of the table, a KL enters the reward where it should, and padding enters nothing."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import Tensor

from rheostat.credit.group_advantages import grpo_advantage, reinforce_pp_baseline_advantage, rloo_advantage, to_tokens
from rheostat.credit.token_advantages import Advantage, token_advantages
from rheostat.credit.token_returns import reinforce_pp_advantage
from rheostat.credit.token_rewards import reward_at_last_token

REWARD = torch.tensor([1.0, 0.0, 0.5, 2.0, 2.0, -1.0])
GROUP = torch.tensor([0, 0, 0, 1, 1, 1])
MASK = torch.tensor([[True, True, False], [True, False, False], [True, True, True]] * 2)
VALID = torch.tensor([True, True, True, True, True, False])


def expected(kind: str) -> Tensor:
    if kind == "grpo":
        return to_tokens(grpo_advantage(REWARD, GROUP, eps=1e-4, valid=VALID), MASK)
    if kind == "mean-baseline":
        return to_tokens(grpo_advantage(REWARD, GROUP, scale="none", valid=VALID), MASK)
    if kind == "rloo":
        return to_tokens(rloo_advantage(REWARD, GROUP, valid=VALID), MASK)
    if kind == "reinforce-pp":
        return reinforce_pp_advantage(reward_at_last_token(REWARD, MASK), MASK)[0]
    if kind == "reinforce-pp-baseline":
        return reinforce_pp_baseline_advantage(REWARD, GROUP, MASK, valid=VALID)
    return REWARD[:, None] * MASK


@pytest.mark.parametrize("kind", get_args(Advantage))
def test_a_name_is_its_function(kind: Advantage) -> None:
    found = token_advantages(kind, REWARD, GROUP, MASK, valid=VALID, eps=1e-4)
    torch.testing.assert_close(found, expected(kind))
    assert not found[~MASK].any() and found.any()


@pytest.mark.parametrize("kind", get_args(Advantage))
def test_a_kl_is_subtracted_where_it_is_part_of_the_reward(kind: Advantage) -> None:
    start, reference = torch.full(MASK.shape, -1.0), torch.full(MASK.shape, -3.0)  # two nats per token against the longer rows
    both = {"old_logp": start, "reference_logp": reference}
    plain, penalised = (token_advantages(kind, REWARD, GROUP, MASK, kl_penalty=penalty, **both) for penalty in (0.0, 1.0))
    assert torch.equal(plain, penalised) == (kind not in ("rloo", "reinforce-pp"))
    if kind == "rloo":  # of three rows with penalties 4, 2 and 6
        torch.testing.assert_close(penalised[:3, 0], rloo_advantage(torch.tensor([-3.0, -2.0, -5.5]), GROUP[:3]))


@pytest.mark.parametrize("kind", ["grpo", "mean-baseline", "rloo", "reinforce-pp-baseline"])
def test_a_member_that_is_left_alone_teaches_nothing(kind: Advantage) -> None:
    """Where the graders failed on all others of a group there is nothing to compare with: the raw reward would be an advantage."""
    alone = torch.tensor([True, True, True, True, False, False])
    found = token_advantages(kind, REWARD, GROUP, MASK, valid=alone)
    if kind != "reinforce-pp-baseline":
        assert not found[3:].any()
    torch.testing.assert_close(found, token_advantages(kind, REWARD + 7.0 * (torch.arange(6) == 3), GROUP, MASK, valid=alone))
    assert found[:3].any()
