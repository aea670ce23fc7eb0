"""MBPO: SAC that learns mostly from short rollouts of a learned dynamics model.

Paper: Janner et al. 2019, "When to Trust Your Model: Model-Based Policy Optimization", arXiv 1906.08253; the model is that of PETS (Chua et
al. 2018, arXiv 1805.12114).

Equations (what differs from sac; E networks predict the Gaussian of the change of the state and of the reward)
    model       = sum_e mean [(mu_e - y)^2 exp(-l_e) + l_e],    y = (s' - s, r),   l: log-variance, bounded softly
    rollout     = s ~ replay, then h times: a ~ pi(s), (s', r) from a random one of the best networks; ends where the task would
    batch       = a share p of imagined rows, the others real

WHO ACTS   the policy, after ``start_steps`` uniform actions.
KEPT       every real step, and the imagined ones of the last ``imagined_kept`` environment steps.
WORTH      sac's soft target, on either kind of row.
MOVES      in every ``model_every`` steps the model, until held-out errors stall; then ``update_to_data`` steps of sac per environment step.

What differs from the authors' code: networks are restored and judged one by one, as theirs are, but batches are shuffled bootstrap samples
of the whole replay; the first steps are uniform actions; weight decay leaves biases alone. Where the task ends must be known
(``imagined_end``): the model does not predict it.
Checked against: its likelihood and its rollouts by plain loops (``tests/plain``); its SAC as sac.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rheostat.learner.learner import Composition
from rheostat.learner.model_based import ModelBased
from rheostat.learner.replay_model import Likelihood


@dataclass(frozen=True)
class MBPO(ModelBased):
    """The paper's setting, with rollouts of one step (preset hopper: they grow)."""

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "hopper": {"rollout_length": (1, 15), "rollout_length_steps": (20_000, 100_000)},
        "small": {
            "hidden": (64, 64),
            "batch_size": 64,
            "learning_rate": 1e-3,
            "update_to_data": 4.0,
            "start_steps": 1_000,
            "rollouts_per_step": 40,
            "model_hidden": (64, 64),
            "model_networks": 3,
            "model_elites": 2,
            "model_passes": 10,
        },
    }

    def compose(self) -> Composition:
        """SAC's answers beside a model of the likeliest steps."""
        return self.composed(Likelihood())
