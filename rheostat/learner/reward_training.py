"""A second trained model: a reward model with its own optimiser, updated on the batch's graded completions before the policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import nn

from rheostat.learner.models import Trainable
from rheostat.learner.update import Update
from rheostat.objectives.outcome_likelihood import OutcomeLikelihood
from rheostat.objectives.outcome_regression import OutcomeRegression
from rheostat.objectives.trajectory_preference import TrajectoryPreference
from rheostat.options import option
from rheostat.parts import Aggregate, Batch, Metrics, Tokens, Weighted
from rheostat.policies.language.model import LanguagePolicy
from rheostat.policies.language.scalar_head import TokenRewardModel, whole_copy


class TrainedCopy(Trainable):
    """A copy of another model's network, which is trained on its own.

    Args:
        of: name of the model whose network is copied as the run begins.
        learning_rate: AdamW step size.
        weight_decay: of matrices.
        max_grad_norm: global gradient norm limit.
    """

    def __init__(self, of: str, learning_rate: float, weight_decay: float, max_grad_norm: float) -> None:
        super().__init__(learning_rate, weight_decay, max_grad_norm)
        self.copied = of  # not ``of``: it does not follow that model's updates

    def bind(self, context: Any, name: str) -> None:
        """Copy the network and build the optimiser."""
        context.networks[name] = self.copy_of(context.networks[self.copied])
        super().bind(context, name)

    def copy_of(self, policy: LanguagePolicy) -> nn.Module:
        """The whole network, without the head of a critic."""
        return whole_copy(policy)


class RewardModel(TrainedCopy):
    """A trained copy of another model's network with a scalar head on every token; arguments as in :class:`TrainedCopy`."""

    def copy_of(self, policy: LanguagePolicy) -> nn.Module:
        """The network's body under a head of its own."""
        return TokenRewardModel(policy)

    @property
    def weights(self) -> int:
        """Weights that a pass multiplies with."""
        return int(self.network.weights)


@dataclass(frozen=True)
class RewardModelUpdate:
    """Gradient steps of the reward model: regression of the outcome on every token."""

    learning_rate: float = option(1e-6, short="reward_learning_rate", at_least=0)
    """AdamW step size of the reward model."""
    passes: int = option(1, short="reward_passes", at_least=1)
    """Passes of the reward model over a batch, a gradient step each."""
    weight_decay: float = option(0.0, short="reward_weight_decay", at_least=0)
    """AdamW weight decay of the reward model."""
    max_grad_norm: float = option(1.0, short="reward_max_grad_norm", above=0)
    """Global gradient norm limit of the reward model."""
    micro_batch_rows: int = 0
    """Rows per forward and backward pass; 0 takes them all. The result does not depend on it."""
    model: ClassVar[str] = "reward"

    @property
    def terms(self) -> tuple[Weighted, ...]:
        """What it descends."""
        return (Weighted(OutcomeRegression(Tokens(Aggregate("token-mean"))), name="reward_model"),)

    @property
    def update(self) -> Update:
        """The loop over gradient steps."""
        return Update(
            epochs=self.passes,
            micro_batch_rows=self.micro_batch_rows,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            max_grad_norm=self.max_grad_norm,
            terms=self.terms,
            model=self.model,
        )

    def trained(self, of: str = "policy") -> TrainedCopy:
        """The model that this moves, a copy of another one."""
        return RewardModel(of, self.learning_rate, self.weight_decay, self.max_grad_norm)

    def improve(self, context: Any, batch: Batch) -> Metrics:
        """Move the reward model.

        Raises:
            NonFinite: a loss or the gradient is not finite; carries the batch.
        """
        found = self.update.improve(context, batch)
        names = {"reward_model_loss": "loss", "meter/gradient_norm": "gradient_norm"}
        return {f"reward_model/{names[name]}": value for name, value in found.items() if name in names}


@dataclass(frozen=True)
class ImplicitRewardUpdate(RewardModelUpdate):
    """Gradient steps of an implicit reward model: the likelihood of the outcome under its log-ratio to the starting model."""

    beta: float = option(0.05, short="process_beta", above=0)
    """Reward per nat of the reward model's log-ratio to the starting model."""
    threshold: float = option(0.5, short="right_above")
    """A completion is right if its reward is larger."""

    @property
    def terms(self) -> tuple[Weighted, ...]:
        """What it descends."""
        return (Weighted(OutcomeLikelihood(beta=self.beta, threshold=self.threshold), name="reward_model"),)

    def trained(self, of: str = "policy") -> TrainedCopy:
        """The model that this moves, a copy of another one."""
        return TrainedCopy(of, self.learning_rate, self.weight_decay, self.max_grad_norm)


@dataclass(frozen=True)
class TrajectoryPreferenceUpdate(ImplicitRewardUpdate):
    """Gradient steps of an implicit process reward model: preferences between the successes and failures of a group."""

    max_grad_norm: float = option(10.0, short="reward_max_grad_norm", above=0)
    """Global gradient norm limit of the reward model."""
    beta: float = option(0.05, short="process_beta", above=0)
    """Reward per nat of the reward model's log-ratio to the policy of this iteration."""
    threshold: float = option(0.0, short="right_above")
    """An episode is a success if its reward is larger."""
    score: Literal["sum", "mean"] = option("sum", short="trajectory_score")
    """How the log-ratios of an episode's steps become its score: their sum, or their mean, as in the authors' code."""

    @property
    def terms(self) -> tuple[Weighted, ...]:
        """What it descends."""
        return (Weighted(TrajectoryPreference(beta=self.beta, threshold=self.threshold, score=self.score), name="reward_model"),)
