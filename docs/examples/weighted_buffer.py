"""PPO-Buffer with weights: old rows count by how likely they still are.

Source: truncated importance sampling (Ionides 2008), on the advantages of ppo-buffer.

Equation
    A_i <- A_i min(pi_start(a_i|s_i) / pi_sampler(a_i|s_i), C)

WORTH      GAE, times the truncated importance weight between the policy when this update began and the one
           that really sampled the row. Fresh rows keep the weight 1.

What differs from ppo-buffer: a row that the present policy would hardly sample any more counts for little; C
bounds the variance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import rheostat
from rheostat.buffers.control_retainers import Window
from rheostat.collect.control.control_collectors import Rollout
from rheostat.collect.control.running_statistics import Normalisation
from rheostat.credit.control_annotations import GAE
from rheostat.learner.dial import Dial
from rheostat.learner.fast_ppo import FastPPO, KLStop, Network, SamplingErrorMeter
from rheostat.learner.learner import Composition
from rheostat.learner.measuring import Evaluations
from rheostat.learner.on_policy import on_policy
from rheostat.methods.table import METHODS, Entry
from rheostat.objectives.control_terms import ClippedSurrogate, SamplerWeight
from rheostat.objectives.weights import importance_weight
from rheostat.options import option
from rheostat.parts import Batch
from rheostat.training.run import Run


@dataclass(frozen=True)
class ImportanceWeight:
    """Advantages of old rows, times how likely they still are."""

    cap: float = option(2.0, short="weight_cap", above=0)
    """C: largest weight of a row."""
    reads: ClassVar[Sequence[str]] = ("advantage", "learner_logp")

    def __call__(self, context: Any, batch: Batch) -> Batch:
        rows = batch.rows
        weight = importance_weight(rows.learner_logp, rows.sampler_logp, mask=rows.mask, cap=self.cap)
        rows.advantage = rows.advantage * weight
        return batch


@dataclass(frozen=True)
class WeightedBuffer:
    """PPO-Buffer and one part more."""

    collect: Rollout = Rollout()
    keep: Window = Window(2)
    normalisation: Normalisation = Normalisation()
    gae: GAE = GAE()
    weight: ImportanceWeight = ImportanceWeight()
    network: Network = Network()
    objective: ClippedSurrogate = ClippedSurrogate()
    sampler: SamplerWeight = SamplerWeight()
    stop: KLStop = KLStop()
    update: FastPPO = FastPPO()
    meter: SamplingErrorMeter = SamplingErrorMeter()
    log: Evaluations = Evaluations()
    dial: Dial = Dial()

    def compose(self) -> Composition:
        """WHAT IS IT WORTH? As in ppo-buffer, weighted."""
        found = on_policy(self, self.objective, stop=self.stop)
        found.credit.append(self.weight)
        return found


METHODS["weighted-buffer"] = Entry(
    path="weighted_buffer:WeightedBuffer",
    domain="control",
    title="PPO-Buffer with importance weights",
    paper="-",
    verified="an example",
)


def main(directory: Path, steps: int = 4096) -> Run:
    settings = {"batch_steps": 512, "minibatches": 8, "weight_cap": 1.5}
    return rheostat.train("weighted-buffer", "CartPole-v1", directory=directory, steps=steps, **settings)


if __name__ == "__main__":
    run = main(Path("runs/weighted-buffer"))
    print({name: round(run.metrics[-1][name], 3) for name in ("episode_return", "meter/ess", "meter/share_stale")})
