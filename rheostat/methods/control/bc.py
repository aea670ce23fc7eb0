"""BC: behaviour cloning, the imitation of a data set and nothing else; %BC imitates its best episodes.

Paper: Pomerleau 1988 (NeurIPS 1); %BC: Chen et al. 2021, arXiv 2106.01345.

Equations (mu, pi: the policy; s, a: of the data)
    deterministic  = mean (mu(s) - a)^2
    stochastic     = -mean log pi(a|s),      a Gaussian around tanh of its mean
    discrete       = -mean log pi(a|s),      the cross-entropy of a softmax

WHO ACTS   nobody.
KEPT       the episodes with the highest returns: the share ``best_share`` of them, rounded, and at least one.
WORTH      every kept action as much as any other.
MOVES      supervised regression, one gradient step per step of the budget.

Returns are undiscounted, and an episode that was cut counts with what it had collected. CORL's any_percent_bc is the deterministic form
with ``best_share`` 0.1 (rounded down) and ``normalise_states``, which is off here. Reward settings change nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import Tensor

from rheostat.buffers.offline import OfflineData
from rheostat.errors import RheostatError
from rheostat.learner.off_policy import OffPolicy, OffPolicyConfig, UsesData
from rheostat.objectives.supervised import squared_distance, weighted_likelihood
from rheostat.policies.control.actors import DeterministicActor, TanhMeanActor
from rheostat.policies.control.discrete_q import ChoiceScores
from rheostat.policies.control.distributions import Categorical
from rheostat.policies.control.squashed import UnitPolicy
from rheostat.policies.parameters import Trained
from rheostat.tasks.control.environments import Environments
from rheostat.trajectories import Transitions


@dataclass(frozen=True)
class BCConfig(OffPolicyConfig):
    """Plain behaviour cloning of everything."""

    imitation: Literal["deterministic", "stochastic"] = "deterministic"
    """Of continuous actions: the squared distance of one action, or the likelihood of a Gaussian."""
    best_share: float = 1.0
    """Share of the episodes that is imitated, those with the highest returns (%BC)."""


class BC(OffPolicy):
    """See the module docstring."""

    Config: ClassVar[type[OffPolicyConfig]] = BCConfig
    config: BCConfig
    uses_data: ClassVar[UsesData] = "first"
    discrete: ClassVar[bool | None] = None
    images: ClassVar[bool] = True

    @classmethod
    def derived(cls, config: OffPolicyConfig) -> dict[str, int | str]:
        """Numbers that follow from the configuration.

        Raises:
            RheostatError: no episodes, or priorities without critics.
        """
        assert isinstance(config, BCConfig)
        if not 0 < config.best_share <= 1:
            raise RheostatError(f"best_share is {config.best_share}: a share of the episodes above 0 and at most 1.")
        if config.priority:
            raise RheostatError("priority ranks transitions by the error of critics, and bc has none: leave it at 0.")
        return super().derived(config)

    def check_data(self, offline: OfflineData | None, world: Environments) -> None:
        """Refuse steps after the data set: it would imitate itself."""
        if self.budget > self.offline_budget:
            raise RheostatError("bc imitates a data set and would only imitate itself in online_steps: leave them out, or use td3-bc.")
        super().check_data(offline, world)

    def choose(self, offline: OfflineData) -> OfflineData:
        """The best episodes."""
        return offline if self.config.best_share == 1 else offline.best(self.config.best_share)

    def build(self) -> None:
        """The policy alone."""
        config, draw = self.config, self.streams["networks"]
        if self.bounds is None:
            space = self.collector.environments.observation_space
            self.policy: Any = ChoiceScores(space, self.choices, hidden=config.hidden, generator=draw)
        else:
            actor = DeterministicActor if config.imitation == "deterministic" else TanhMeanActor
            self.policy = actor(*self.sizes, hidden=config.hidden, generator=draw)
        self.actor = Trained(self.policy, config.learning_rate)

    def parts(self) -> dict[str, Any]:
        """Everything that learns."""
        return {"actor": self.actor}

    def distribution(self, observation: Tensor) -> UnitPolicy:
        """The policy of unit actions, or of choices."""
        return Categorical(self.policy(observation)) if self.bounds is None else self.policy.distribution(observation)

    def value(self, observation: Tensor) -> Tensor:
        """There is none.

        Raises:
            RheostatError: always.
        """
        raise RheostatError("bc has no critic, so it knows no values: use td3-bc, iql or cql for those.")

    def gradient_step(self, rows: Transitions) -> dict[str, Tensor | float]:
        """One step towards the data's actions."""
        if self.bounds is not None and self.config.imitation == "deterministic":
            loss = squared_distance(self.policy(rows.observation), rows.action)
        else:
            loss = weighted_likelihood(self.distribution(rows.observation).log_prob(rows.action))
        self.actor.descend(loss)
        return {"policy_loss": loss.detach()}
