"""Estimators of the advantage against the exact advantages of a small MDP, on-policy and off-policy.

The expectation of an estimate given the state and action it belongs to is a sum over every continuation of the episode, so bias and
variance are exact. A baseline biases no policy gradient, therefore estimates are compared after their mean over the learner's actions is
subtracted. The critic is wrong on purpose (the values of the uniformly random policy) or exact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from rheostat.credit.returns import TraceKind, discounted_return, gae, n_step_return, retrace, trace_coefficient, vtrace
from rheostat.diagnostics.microscope.control_problem import ControlProblem

TOLERANCE = 1e-6


@dataclass(frozen=True)
class Episodes:
    """Every episode of an MDP, with the inputs of estimators; all ``[N, T]`` float64 or bool."""

    reward: Tensor
    mask: Tensor
    terminated: Tensor
    value: Tensor
    """The critic's V(s_t)."""
    next_value: Tensor
    q: Tensor
    """The critic's Q(s_t, a_t)."""
    expected_q: Tensor
    """Its mean over the learner's actions in s_t."""
    next_expected_q: Tensor
    """The critic's value in the next state."""
    target_logp: Tensor
    """Log-probability under the learner."""
    behaviour_logp: Tensor
    """Log-probability under the behaviour policy."""

    @property
    def common(self) -> dict[str, Any]:
        """Arguments that every estimator takes."""
        never = torch.zeros_like(self.terminated)
        return {"terminated": self.terminated, "truncated": never, "gamma": 1.0, "mask": self.mask}


Estimate = Callable[[Episodes], Tensor]


def _gae(lam: float) -> Estimate:
    return lambda e: gae(e.reward, e.value, e.next_value, lam=lam, **e.common)[0]


def _n_step(n: int) -> Estimate:
    return lambda e: n_step_return(e.reward, e.next_value, n=n, **e.common) - e.value


def _monte_carlo(e: Episodes) -> Tensor:
    return discounted_return(e.reward, **e.common) - e.value


def _vtrace(clip: float | None) -> Estimate:
    def estimate(e: Episodes) -> Tensor:
        log_rho = e.target_logp - e.behaviour_logp
        return vtrace(e.reward, e.value, e.next_value, log_rho, rho_clip=clip, c_clip=clip, **e.common).q - e.value

    return estimate


def _trace(kind: TraceKind) -> Estimate:
    def estimate(e: Episodes) -> Tensor:
        trace = trace_coefficient(e.target_logp.exp(), e.behaviour_logp.exp(), kind=kind, eps=0.0)
        return retrace(e.reward, e.q, e.next_expected_q, trace, **e.common) - e.expected_q

    return estimate


ADVANTAGES: dict[str, tuple[str, Estimate]] = {
    "advantage:gae-0": ("one-step TD", _gae(0.0)),
    "advantage:gae-0.5": ("GAE", _gae(0.5)),
    "advantage:gae-0.9": ("GAE", _gae(0.9)),
    "advantage:gae-0.95": ("GAE", _gae(0.95)),
    "advantage:gae-1": ("GAE, all rewards", _gae(1.0)),
    "advantage:n-step-2": ("two rewards, then the critic", _n_step(2)),
    "advantage:n-step-3": ("three rewards, then the critic", _n_step(3)),
    "advantage:monte-carlo": ("all rewards", _monte_carlo),
    "advantage:vtrace": ("V-trace, ratios at most 1", _vtrace(1.0)),
    "advantage:vtrace-unclipped": ("V-trace, ratios as they are: per-decision importance sampling", _vtrace(None)),
    "advantage:retrace": ("Retrace(1)", _trace("retrace")),
    "advantage:importance": ("Q by importance sampling", _trace("importance")),
    "advantage:tree-backup": ("tree backup", _trace("tree-backup")),
    "advantage:q-lambda": ("Q(1) without correction", _trace("q-lambda")),
}
"""Title and estimator by name."""


@dataclass(frozen=True)
class AdvantageRow:
    """One estimator, exactly; root mean squares over the visited states and the learner's actions, relative to the exact advantage's."""

    name: str
    title: str
    bias: float
    """On-policy, with the wrong critic."""
    deviation: float
    """Standard deviation of the estimate for a given state and action, on-policy with the wrong critic."""
    stale_bias: float
    """Off-policy, with the wrong critic."""
    stale_deviation: float
    exact_critic_bias: float
    """Off-policy, with the exact critic."""

    @property
    def verdict(self) -> str:
        """On-policy and off-policy, in words."""
        if self.bias > TOLERANCE:
            return "biased"
        return "unbiased" if self.stale_bias < TOLERANCE else "unbiased on-policy only"

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self) | {"verdict": self.verdict}


def advantage_rows(names: list[str], problem: ControlProblem, behaviour: Tensor, learner: Tensor) -> list[AdvantageRow]:
    """Every named estimator.

    Args:
        names: of :data:`ADVANTAGES`.
        problem: whose episodes are summed over.
        behaviour: parameters of the behaviour policy in the off-policy columns.
        learner: parameters of the policy whose advantages are wanted; it acts itself in the on-policy columns.
    """
    rows = []
    for name in names:
        title, estimate = ADVANTAGES[name]
        on = _errors(problem, estimate, learner, learner, exact_critic=False)
        off = _errors(problem, estimate, behaviour, learner, exact_critic=False)
        exact = _errors(problem, estimate, behaviour, learner, exact_critic=True)
        rows.append(AdvantageRow(name, title, *on, *off, exact[0]))
    return rows


@torch.no_grad()
def _errors(problem: ControlProblem, estimate: Estimate, behaviour: Tensor, learner: Tensor, *, exact_critic: bool) -> tuple[float, float]:
    """Relative bias and deviation."""
    mdp, state, action, mask = problem.mdp, problem.state, problem.action, problem.mask
    policy = problem.probabilities(learner)
    q = problem.action_values(learner if exact_critic else torch.zeros_like(learner))
    value = problem.state_values(learner if exact_critic else torch.zeros_like(learner))
    expected_q, following = (policy * q).sum(-1), mdp.next_state[state, action]
    episodes = Episodes(
        reward=problem.reward,
        mask=mask,
        terminated=mdp.ends[state, action] & mask,
        value=value[state],
        next_value=value[following],
        q=q[state, action],
        expected_q=expected_q[state],
        next_expected_q=expected_q[following],
        target_logp=problem.step_logp(learner),
        behaviour_logp=problem.step_logp(behaviour),
    )
    found = estimate(episodes)
    weight = problem.outcome_logp(behaviour).exp()[:, None].expand_as(found)[mask]
    place = (state * mdp.num_actions + action)[mask]

    def total(x: Tensor) -> Tensor:
        return torch.zeros(mdp.num_states * mdp.num_actions, dtype=torch.float64).index_add(0, place, x)

    visits = total(weight)
    mean = total(weight * found[mask]) / visits.clamp(min=1e-300)
    variance = total(weight * found[mask].square()) / visits.clamp(min=1e-300) - mean.square()
    shape = policy.shape
    mean, variance, seen = mean.view(shape), variance.view(shape).clamp(min=0.0), visits.view(shape).sum(-1, keepdim=True)
    exact = problem.action_values(learner) - problem.state_values(learner)[:, None]
    error = mean - (policy * mean).sum(-1, keepdim=True) - exact
    size = (seen * policy * exact.square()).sum()
    return float(((seen * policy * error.square()).sum() / size).sqrt()), float(((seen * policy * variance).sum() / size).sqrt())
