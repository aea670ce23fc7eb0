"""``clamp_log_ratio`` acts where the probability of a token has changed by a factor of more than e to the 20: no tiny run comes there."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rheostat.objectives.clipping import Clip
from rheostat.objectives.foreign_terms import MixSurrogate
from rheostat.objectives.terms import PolicyGradient
from rheostat.parts import Aggregate, Batch, Tokens
from rheostat.trajectories import Source

TOKENS = Tokens(Aggregate("token-mean"))


@pytest.mark.parametrize("surrogate", [PolicyGradient, MixSurrogate])
def test_the_clamp_cuts_value_and_gradient_beyond_it_and_nothing_inside(surrogate: Any) -> None:
    for log_ratio, clamped in ((30.0, 20.0), (19.0, 19.0)):
        found = {}
        for clamp in (True, False):
            logp = torch.full((1, 1), -1.0, dtype=torch.float64, requires_grad=True)
            start = logp.detach() - log_ratio
            rows = SimpleNamespace(
                learner_logp=start,
                sampler_logp=start,
                advantage=-torch.ones_like(start),
                mask=torch.ones_like(start, dtype=torch.bool),
                source=torch.full_like(start, int(Source.FRESH), dtype=torch.int64),
            )
            term = surrogate(TOKENS, Clip(), clamp_log_ratio=clamp)
            loss, _ = term(SimpleNamespace(logp=logp), Batch(rows), torch.tensor(1.0), None)
            (gradient,) = torch.autograd.grad(loss, logp)
            found[clamp] = (loss.item(), gradient.item())
        value = math.exp(log_ratio)
        assert found[False] == (pytest.approx(value), pytest.approx(value))
        assert found[True] == (pytest.approx(math.exp(clamped)), pytest.approx(value if clamped == log_ratio else 0.0))
