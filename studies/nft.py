"""NFT: do wrong answers teach anything when likelihood is maximised, and is the result GRPO's?

Chains of three to six terms from a tiny base that works a third of them out. Three arms:

RFT    likelihood of right answers only: NFT with ``negative_weight 0``, as the paper's baseline
NFT    likelihood of right answers, and of wrong ones under the policy that is left of the old one without the right
GRPO   group advantages without the deviation (Dr. GRPO's), whose gradient NFT's is as long as data are strictly on-policy

Equal in all arms: base, prompts of a seed, 16 prompts x 16 completions, no discarding of groups (those that are all right or all wrong
teach none of the arms), AdamW with learning rate 2e-4 and no weight decay, gradient norm 1, four gradient steps per batch, no KL, and the
number of generated tokens. No arm was tuned. The methods' own: loss, clip (GRPO's), what the sum over tokens is divided by.

Rules, fixed before the arms were run (matched seeds, looked at as docs/rule.md says):

negatives  at the end, NFT is more accurate than RFT; less than two points do not matter.
GRPO       at the end, NFT and GRPO differ by less than three points.
entropy    of the tokens of mixed groups, averaged over training: NFT's is above RFT's; less than .005 nats do not matter.

Accuracy is that of one sampled completion per held-out prompt at temperature 1. What cannot be shown here: the numbers of 7B and 32B models
on mathematics, and that wrong answers matter more to larger models. That the first gradients of NFT and GRPO are equal is exact, and
tested with the method and not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from rheostat.experiments.studies import (
    Arm,
    Cell,
    Claim,
    Judgement,
    Results,
    Study,
    alike,
    better,
    curves,
    finals,
    reaches,
    summary,
    trained,
)

ARMS = {
    "RFT": Arm("nft", {"dynamic": "none", "negative_weight": 0.0}),
    "NFT": Arm("nft", {"dynamic": "none"}),
    "GRPO": Arm("grpo", {"advantage": "mean-baseline", "aggregation": "token-mean"}),
}
SHARED: dict[str, Any] = {
    "learning_rate": 2e-4,
    "minibatches": 4,
    "warmup": 0,
    "weight_decay": 0.0,
    "kl_coefficient": 0.0,
    "evaluate_every": 0,
    "budget": "generated tokens",
}
METRICS = ("reward", "entropy", "completion_length", "mixed_share", "meter/gradient_norm", "meter/kl_behaviour_k3")
MARGINS = {"accuracy": 0.02, "accuracy of NFT and GRPO": 0.03, "entropy": 0.005}


@dataclass(frozen=True)
class Sizes:
    """What differs between the study and its smoke form."""

    seeds: int = 8
    tokens: int = 64_000
    prompts: int = 16
    group_size: int = 16
    held_out: int = 1024
    model: str = "chain-sum"
    first_seed: int = 0


SMOKE = Sizes(1, 300, 2, 4, 4, "untrained")


def claims(sizes: Sizes) -> list[Claim]:
    """Three claims on the same cells."""
    cells = trained(
        ARMS,
        task="chain-sum",
        steps=sizes.tokens,
        seeds=sizes.seeds,
        first_seed=sizes.first_seed,
        shared=SHARED | {"prompts_per_batch": sizes.prompts, "group_size": sizes.group_size},
        settings={"model": sizes.model, "evaluation_episodes": sizes.held_out, "checkpoint_every": sizes.tokens},
        metrics=METRICS,
        cost=48.0,
    )
    setting = (
        f"chain-sum from {sizes.model}, {sizes.tokens:,} generated tokens in batches of {sizes.prompts} prompts x {sizes.group_size}, four "
        f"gradient steps per batch, learning rate 2e-4; one sample for each of {sizes.held_out} held-out prompts"
    )

    def judge_negatives(result: Results) -> Judgement:
        final = {arm: finals(found, result) for arm, found in cells.items()}
        condition = better("accuracy of NFT and RFT", final["NFT"], final["RFT"], margin=MARGINS["accuracy"])
        return Judgement([condition], {"final": {arm: summary(found) for arm, found in final.items()}}, curves(cells, result))

    def judge_grpo(result: Results) -> Judgement:
        final = {arm: finals(cells[arm], result) for arm in ("NFT", "GRPO")}
        return Judgement([alike("accuracy of NFT and GRPO", final["NFT"], final["GRPO"], margin=MARGINS["accuracy of NFT and GRPO"])])

    def judge_entropy(result: Results) -> Judgement:
        entropy = {arm: entropies(found, result) for arm, found in cells.items()}
        condition = better("entropy of NFT and RFT", entropy["NFT"], entropy["RFT"], margin=MARGINS["entropy"])
        return Judgement([condition], {"entropy": {arm: summary(found) for arm, found in entropy.items()}})

    room = reaches("GRPO", cells, least=0.45, most=0.97)  # something is learned, and the ceiling is not reached
    return [
        Claim(
            "negatives",
            "Wrong answers add to what right ones teach",
            "Qwen2.5-Math-7B, mean of six benchmarks: NFT 51.7 from 31.6 and above RFT; wrong answers give about a fifth of the gain",
            setting,
            cells,
            judge_negatives,
            margins={"accuracy": MARGINS["accuracy"]},
            preconditions=(room,),
        ),
        Claim(
            "GRPO",
            "NFT ends where GRPO ends",
            "The gradients of NFT and GRPO are the same strictly on-policy; results like GRPO's and DAPO's (32B: 59.2 and 59.9)",
            setting,
            {arm: cells[arm] for arm in ("NFT", "GRPO")},
            judge_grpo,
            margins={"accuracy": MARGINS["accuracy of NFT and GRPO"]},
            preconditions=(room,),
        ),
        Claim(
            "entropy",
            "NFT keeps a higher entropy than RFT",
            "Learning from wrong answers keeps the entropy up, imitation of right ones alone lowers it",
            setting,
            {arm: cells[arm] for arm in ("NFT", "RFT")},
            judge_entropy,
            margins={"entropy": MARGINS["entropy"]},
            preconditions=(room,),
        ),
    ]


def entropies(cells: Mapping[int, Cell], result: Results) -> dict[int, float]:
    """Mean over training, by seed; 0 where no group was mixed, so that no token was learned from."""
    return {seed: float(np.mean(result(cell)["curve"].get("entropy", [0.0]))) for seed, cell in cells.items()}


STUDY = Study("nft", "NFT", "arXiv 2505.18116", claims, full=Sizes(), smoke=SMOKE)
