"""GHPO: guided hybrid policy optimisation, hints for the prompts on which the whole group fails.

Paper: Liu et al. 2025, arXiv 2507.10628.

Equations (a = accuracy of a completion, R = its whole reward, q = prompt, h = reference solution, w in (1/4, 1/2, 3/4))
    q* = q                                     if any of the G completions has a > 0
    q* = q + the first w of h                  otherwise, for the next w, until a group has a success or w runs out
    A      = (R - mean_g R) / (std_g + 1e-4)   of the group that was sampled last
    loss   = 1/(sum_i |y_i|) sum_i sum_t -min(ratio A, clip(ratio, 0.8, 1.2) A) + beta k3,   all conditioned on q*

WHO ACTS   the policy, on plain prompts first; groups without a single success are sampled again from prompts with a hint of 25, 50 and
           75 % of the solution (a file of experts, a column, or the task's expert). A hard prompt costs up to four groups.
KEPT       of every prompt the group sampled last. A group that fails with the longest hint too is kept with it.
WORTH      as in grpo. Difficulty looks at the accuracy alone (``accuracy_part``), never at a reward for the format, so a failing group can
           still have an advantage.
MOVES      as in grpo with tokens that weigh equally, on q* in numerator and denominator. Hint tokens are prompt tokens: no loss.

What differs from grpo: the hints, eps 1e-4, tokens that weigh equally, no KL. Measurements are of plain prompts (``reward`` in the log is
with hints, ``reward_plain`` without).

Paper and code. The paper's equation samples from q and takes the ratio on q*; its code samples again from q*, which is the only
consistent reading and what is done here. The staged hints are known from the code; the authors' description of their schedule was not
available (reconstruction). Where the code is wrong this is not: with several gradient steps per batch or a KL it computes the old and the
reference log-probabilities from the tokens sampled first, while masks belong to those sampled last; here both are of the kept rows. It
cuts hints by characters (``hint_unit characters``), here by tokens. It truncates prompts from the left, so that a long hint pushes out the
system prompt; here a hint that does not fit is not given, and counted. The cold start without hints is 20 updates in the paper and 0 in
the released configuration. A member without a grade keeps its group plain, as in the code. The released learning rate has a warm-up and a
cosine; here ``warmup`` only.
Checked against: the authors' code for the loss, an independent statement of its control flow (``tests/vectors``: ghpo).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from rheostat.collect.language.experts import demonstrations
from rheostat.collect.language.groups import Graded, World
from rheostat.collect.language.hints import SEPARATOR, Guide, Place, Unit, beginning, with_guides
from rheostat.credit.verifiers.interface import Progress, Scores
from rheostat.errors import RheostatError, unknown
from rheostat.masking import Aggregation
from rheostat.methods.language.grpo import GRPO, GRPOConfig
from rheostat.policies.flops import FORWARD
from rheostat.streams import Streams
from rheostat.tasks.language.interface import Prompt


@dataclass(frozen=True)
class GHPOConfig(GRPOConfig):
    """The paper's setting; its batch is 196 prompts x 8 completions."""

    prompts_per_batch: int = 196
    """Prompts per batch."""
    group_size: int = 8
    """Completions per prompt (G)."""
    hints: tuple[float, ...] = (0.25, 0.5, 0.75)
    """Fractions of the solution that are shown, stage by stage."""
    hint_after: int = 20
    """Updates without hints at the start, because early failures are failures of format."""
    hint_unit: Unit = "tokens"
    """Cut hints by tokens, or by characters (as released)."""
    hint_place: Place = "question"
    """At the end of the question, or as the beginning of the answer, which the policy continues."""
    hint_separator: str = SEPARATOR
    """Between question and hint."""
    hint_column: str = ""
    """Column of the prompts' rows that holds the reference solution; empty takes the experts'."""
    accuracy_part: str = ""
    """Part of the reward that tells right from wrong; empty takes the whole reward."""
    advantage_epsilon: float = 1e-4
    """Added to the group's standard deviation."""
    aggregation: Aggregation = "token-mean"
    """Every token weighs the same."""
    kl_coefficient: float = 0.0
    """No KL."""


class GHPO(GRPO):
    """See the module docstring."""

    Config: ClassVar[type[GRPOConfig]] = GHPOConfig
    config: GHPOConfig
    uses_experts: ClassVar[bool] = True
    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "tiny": {"learning_rate": 2e-4, "prompts_per_batch": 24, "hint_after": 0, "hint_place": "answer"}
    }
    dial_refused: ClassVar[dict[str, str]] = {"expert_share": "a whole solution does not continue a prompt that has a part of it already"}

    def __init__(self, config: GHPOConfig, world: World, streams: Streams, *, total_steps: int) -> None:
        super().__init__(config, world, streams, total_steps=total_steps)
        self.guide = Guide(config.hint_unit, config.hint_place, config.hint_separator)
        if config.budget == "updates" and config.hint_after >= total_steps:
            raise RheostatError(
                f"Hints begin after {config.hint_after} updates, but the run makes {total_steps}: lower hint_after or raise steps."
            )

    @classmethod
    def derived(cls, config: GRPOConfig) -> dict[str, int | str]:
        """GRPO's numbers and the most groups a prompt can cost.

        Raises:
            RheostatError: an impossible combination, and what to change.
        """
        assert isinstance(config, GHPOConfig)
        for fraction in config.hints:
            beginning("", fraction)  # refuses what is no fraction
        if list(config.hints) != sorted(config.hints) or not config.hints:
            raise RheostatError(f"hints are {config.hints}: at least one fraction, the shortest first.")
        if config.hint_after < 0:
            raise RheostatError(f"hint_after is {config.hint_after}: it counts updates, from 0.")
        return super().derived(config) | {"most groups per prompt": 1 + len(config.hints)}

    def sample_groups(self, members: int, progress: Progress) -> Graded:
        """Groups of plain prompts; where nobody is right, of prompts with ever longer hints."""
        own, config = super().sample_groups(members, progress), self.config
        if self.updates < config.hint_after:
            return own
        kept, hinted = with_guides(
            self.collector,
            own,
            self.guide,
            config.hints,
            solution=self.solution,
            accuracy=self.accuracy,
            group_size=members,
            sampling=self.sampling,
            version=self.updates,
            progress=progress,
        )
        for part in hinted:
            self.spend(FORWARD, part.trajectories)
        return kept

    def solution(self, prompt: Prompt, number: int) -> str:
        """The reference solution of a prompt.

        Raises:
            RheostatError: its row has none, or nobody has one.
        """
        column = self.config.hint_column
        if not column:
            return demonstrations(self.world, prompt, self.collector.seed, number)[0]
        if not isinstance(prompt.columns.get(column), str):
            raise RheostatError(
                f"The prompt with key {prompt.key} has no solution as text in its column {column!r}: name another hint_column."
            )
        return str(prompt.columns[column])

    def accuracy(self, scores: Scores) -> Tensor:
        """Right or wrong, ``[N]``; NaN without a grade.

        Raises:
            RheostatError: the reward has no such part.
        """
        part = self.config.accuracy_part
        if not part:
            return scores.reward
        if part not in scores.parts:
            raise unknown("part of the reward", part, scores.parts)
        return scores.parts[part]
