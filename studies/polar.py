"""POLAR: does telling policies apart without labels make a better reward model, and does that grow with data and size?

The world is policy-zoo: 40 synthetic policies over strings of 12 symbols, of which 30 are shown, and a gold rule that is in no policy's.
One cell per seed: a world of its own, and everything on it. All models are Qwen3 decoders of two layers with new weights; the main one has
about 76,000 weights. Adam at 2e-3, batches of 64 triples of the zoo and of 32 rankings.

zoo            stage 1 in three widths (32, 48, 64), 240 steps each, every triple new
A              stage 2 on the widest of them
B              stage 2 on new weights: a reference, no pre-training
C              reward-model on the same rankings: no reference, no pre-training
D              stage 1 alone
few, many      A, B and C learn from 300 rankings, A and B also from 3,000; 100 steps each
RL             GRPO without a KL from a policy that has imitated the zoo for 60 steps, 80 steps of 8 prompts x 8 answers, once with A and
               once with C as its reward; the reference of a prompt is an answer of the gold policy
SFT            imitation of the same references, on as many prompts in as many steps

Rules, fixed before any seed was run (matched seeds, looked at as docs/rule.md says). Accuracies are of unseen prompts and unseen policies,
ties are wrong. No arm was tuned. The size of the world, the step size and the number of steps were chosen after looking at stage 1 with one
seed that is not among the study's (5000); no other arm was looked at.

labels      with 300 rankings A orders gold pairs better than B by 5 points, and B better than C: two conditions.
more        the gap between A and B is smaller with 3,000 rankings than with 300.
unseen      D recognises unseen policies in more than 60 % of triples.
divergence  D recognises the third of the pairs of policies with the largest total variation better than the third with the smallest.
reward      at equal KL to the start, RL with A reaches at least the utility of RL with C: not worse by more than 0.02.
control     RL with A ends above imitation of the same references, in utility.
size        held-out loss of stage 1 falls with the number of weights: the widest below the narrowest.
data        and with data: that of the widest model after 240 steps below that after 80.

The exponents and the fit of a power law in weights and in triples are reported and not judged: three sizes cannot refute a law.
What cannot be shown here: transfer to real tasks, the benefit of many different language models, laws over orders of magnitude. Vocabulary
(18) and models are smaller than the specification's (30 symbols, one to two million weights), so that a first look takes minutes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rheostat.experiments.studies import (
    Cell,
    Claim,
    Judgement,
    Precondition,
    Results,
    Study,
    above,
    better,
    not_worse,
    smaller,
    summary,
)

TASK = "policy-zoo"
SOURCES = (
    "rheostat.methods.language.polar",
    "rheostat.methods.language.reward_model",
    "rheostat.methods.language.grpo",
    "rheostat.methods.language.sft",
    "rheostat.tasks.language.policy_zoo",
)
MARGINS = {"accuracy": 0.05, "reference": 0.02, "loss": 1.02}
Curve = dict[str, list[float]]


@dataclass(frozen=True)
class Sizes:
    """What differs between the study and its smoke form."""

    seeds: int = 8
    widths: tuple[int, ...] = (32, 48, 64)
    zoo_steps: int = 240
    zoo_pairs: int = 64
    few: int = 300
    many: int = 3000
    label_steps: int = 100
    label_pairs: int = 32
    start_steps: int = 60
    policy_steps: int = 80
    prompts: int = 8
    group_size: int = 8
    held_out: int = 1000
    first_seed: int = 0


SMOKE = Sizes(1, (16, 24), 3, 4, 8, 16, 2, 4, 1, 2, 2, 2, 32)


# --- the cell ----------------------------------------------------------------------------------------------------------------------------


def play(arguments: dict[str, Any], place: Path) -> dict[str, Any]:
    """The cell: every stage on one world. A stage that is finished is not run again when an interrupted cell goes on."""
    torch.set_num_threads(1)
    found = Laboratory(arguments, place).run()
    for folder in place.iterdir():
        if folder.is_dir():
            shutil.rmtree(folder)
    return found


class Laboratory:
    """One seed.

    Args:
        arguments: of the cell.
        place: its folder.
    """

    def __init__(self, arguments: dict[str, Any], place: Path) -> None:
        from rheostat.tasks.language.policy_zoo import PolicyZoo

        self.seed, self.place = arguments["seed"], place
        self.sizes = Sizes(**{name: tuple(value) if isinstance(value, list) else value for name, value in arguments["sizes"].items()})
        self.world = PolicyZoo(world=self.seed)

    def run(self) -> dict[str, Any]:
        """What the claims read."""
        sizes = self.sizes
        zoo = {width: self.zoo(width) for width in sizes.widths}
        main, fresh = max(sizes.widths), self.new_model(max(sizes.widths))
        judges = {"D": self.place / f"zoo-{main}"}
        for name, labels in (("few", sizes.few), ("many", sizes.many)):
            for arm, model in (("A", str(judges["D"] / "model")), ("B", fresh)):
                judges[f"{arm} {name}"] = self.ranked("polar", f"{arm}-{name}", model, labels, data="ranked")
        judges["C few"] = self.ranked("reward-model", "C-few", fresh, sizes.few)
        start = self.stage("start", "sft", fresh, sizes.start_steps, prompts_per_batch=sizes.prompts * sizes.group_size)[0]
        return {
            "zoo": {str(width): each for width, (_, each) in zoo.items()},
            "weights": {str(width): weights_of(folder / "model") for width, (folder, _) in zoo.items()},
            "accuracy": {arm: self.kept(f"accuracy-{arm}", lambda at=at: self.accuracy(at)) for arm, at in judges.items()},
            "recognised": self.kept("recognised", lambda: self.recognised(judges["D"])),
            "rl": {arm: self.policy(arm, judges[f"{arm} few"], start) for arm in ("A", "C")},
            "imitation": self.imitated(start),
        }

    def kept(self, name: str, compute: Callable[[], Any]) -> Any:
        """A result that is computed once."""
        path = self.place / f"{name}.json"
        if not path.is_file():
            found = compute()
            path.write_text(json.dumps(found))
        return json.loads(path.read_text())

    def new_model(self, width: int) -> str:
        """The folder of a decoder of two layers with new weights, the same for every arm of a seed."""
        from rheostat.tasks.language.base_models import build_base_model
        from rheostat.tasks.language.recipes import BaseRecipe, ModelSize

        shape = ModelSize(width, 2, 4, 2, max(8, width // 4), 3 * width)
        recipe = BaseRecipe(f"policy-zoo-{width}", model=shape, teach_steps=1, mix_steps=0, seed=self.seed)
        return str(build_base_model(recipe, cache_dir=self.place / "bases", progress=False))

    def stage(
        self,
        name: str,
        method: str,
        model: str,
        steps: int,
        *,
        task: str | None = TASK,
        watch: Any = None,
        world: Any = None,
        **options: Any,
    ) -> tuple[Path, Curve]:
        """The folder of a finished run, and its measurements on held-out data."""
        from rheostat.training.progress import Silent
        from rheostat.training.run import Run
        from rheostat.training.settings_from_options import settings_for, task_of_prompts

        folder = self.place / name

        def compute() -> Curve:
            shutil.rmtree(folder, ignore_errors=True)
            shared: dict[str, Any] = {"learning_rate": 2e-3, "warmup": 0, "weight_decay": 0.0, "threads": 1, "rollouts_kept": 0}
            shared |= {"steps": steps, "checkpoint_every": steps, "seed": self.seed, "model": model, "evaluation_episodes": 0}
            shared |= {"evaluate_every": 0, "environment_options": {} if task is None else {"world": self.seed} | (world or {})}
            where = task or task_of_prompts(method, options)
            run = Run.create(folder, settings_for(method, where, preset=None, **shared | options))
            run.train(progress=Silent(), callbacks=[] if watch is None else [watch])
            rows = [row for row in run.metrics if any(column.startswith("validation_") for column in row)]
            run.close()
            columns = [column for column in (rows[0] if rows else {}) if column.startswith("validation_")]
            measured = {column: [float(f"{row[column]:.6g}") for row in rows] for column in columns}
            return measured | {"steps": [row["updates"] for row in rows]} | ({} if watch is None else {"kl": watch.kl})

        return folder, self.kept(f"{name}-run", compute)

    def zoo(self, width: int) -> tuple[Path, Curve]:
        """Stage 1."""
        sizes = self.sizes
        measured = {"evaluate_every": max(1, sizes.zoo_steps // 3), "evaluation_prompts": sizes.held_out}
        found = self.stage(f"zoo-{width}", "polar", self.new_model(width), sizes.zoo_steps, pairs_per_batch=sizes.zoo_pairs, **measured)
        return found

    def ranked(self, method: str, name: str, model: str, labels: int, **options: Any) -> Path:
        """Learn from so many rankings."""
        sizes = self.sizes
        world = {"prompts_in_all": labels}
        return self.stage(name, method, model, sizes.label_steps, pairs_per_batch=sizes.label_pairs, world=world, **options)[0]

    def policy(self, arm: str, judge: Path, start: Path) -> Curve:
        """Utility and KL of a policy that a reward model has taught."""
        sizes = self.sizes
        watch = Distance(start / "model", sizes.held_out)
        options = {"prompts_per_batch": sizes.prompts, "group_size": sizes.group_size, "kl_coefficient": 0.0, "learning_rate": 1e-3}
        measured = {"evaluate_every": max(1, sizes.policy_steps // 4), "evaluation_prompts": sizes.held_out}
        model, rewards = str(start / "model"), (f"run:{judge}",)
        return self.stage(f"rl-{arm}", "grpo", model, sizes.policy_steps, rewards=rewards, watch=watch, **options, **measured)[1]

    def imitated(self, start: Path) -> float:
        """Utility of a policy that has imitated the references of as many prompts."""
        from rheostat.training.untrained import baseline

        sizes = self.sizes
        file = self.place / "references.jsonl"
        drawn = self.world.prompts("train", self.seed).take(sizes.policy_steps * sizes.prompts)
        rows = [{"prompt": prompt.content, "completion": prompt.columns["reference"]} for prompt in drawn]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        options = {"prompts": str(file), "rewards": ("exact",), "max_new_tokens": 13, "learning_rate": 1e-3}
        batch = {"prompts_per_batch": sizes.prompts, "task": None}
        folder, _ = self.stage("imitation", "sft", str(start / "model"), sizes.policy_steps, **batch, **options)

        def compute() -> float:
            run = baseline(str(folder / "model"), TASK, None, (), {"world": self.seed}, seed=self.seed, threads=1)
            found = run.evaluate(sizes.held_out)["validation_utility"]
            run.close()
            return float(found)

        return float(self.kept("imitation-utility", compute))

    def scores(self, judge: Path, pairs: list[tuple[Any, str, str, str]]) -> np.ndarray:
        """How much higher a reward model scores the first of two candidates, ``[N]``: of prompts with reference and candidates."""
        from rheostat.collect.language.learned_reward import LearnedReward
        from rheostat.credit.verifiers.verifier_interface import Rollout

        reward = LearnedReward(f"run:{judge}")
        asked = [Rollout(p.content, text, columns={"reference": ref}) for p, ref, *texts in pairs for text in texts]
        found = reward.score(asked).reward.view(-1, 2)
        return (found[:, 0] - found[:, 1]).numpy()

    def accuracy(self, judge: Path) -> float:
        """Share of gold pairs of unseen policies that a reward model orders right beside a gold reference."""
        drawn = [
            (p, *(p.columns[name] for name in ("reference", "chosen", "rejected"))) for p in self.world.validation(self.sizes.held_out)
        ]
        return float((self.scores(judge, drawn) > 0).mean())

    def recognised(self, judge: Path) -> list[float]:
        """Share of unseen policies that are recognised, by thirds of their divergence."""
        prompts = sorted(self.world.validation(self.sizes.held_out), key=lambda prompt: prompt.columns["divergence"])
        right = self.scores(judge, [(prompt, *prompt.columns["completions"]) for prompt in prompts]) > 0
        return [float(part.mean()) for part in np.array_split(right, 3)]


class Distance:
    """Measures the KL of whole answers to the start at every evaluation (a callback).

    Args:
        start: folder of the starting model.
        prompts: how many answers.
    """

    def __init__(self, start: Path, prompts: int) -> None:
        from rheostat.policies.language.model import LanguagePolicy

        self.start, self.prompts = LanguagePolicy.load(start).requires_grad_(False), prompts
        self.kl: list[float] = []

    def on_evaluation(self, run: Any, metrics: dict[str, Any]) -> None:
        """One more number."""
        from rheostat.masking import masked_sum
        from rheostat.objectives.kl import kl_estimate

        context = run.method.context
        with context.evaluating(), torch.no_grad():
            rows = context.collector.validation_sample(self.prompts, context.sampling, version=context.updates).trajectories
            mine = context.score(rows, entropy=False, count=False).logp
            base = self.start.score(rows.action, rows.attention, rows.mask).logp
        kl = masked_sum(kl_estimate(mine, base, "k3", mask=rows.mask), rows.mask, -1).mean().item()
        self.kl.append(float(f"{kl:.6g}"))


def weights_of(folder: Path) -> int:
    """Weights of a model without its embeddings, which both ends share."""
    from rheostat.policies.language.model import LanguagePolicy

    causal = LanguagePolicy.load(folder).causal
    return sum(p.numel() for p in causal.parameters()) - causal.get_input_embeddings().weight.numel()


# --- what is read of it -------------------------------------------------------------------------------------------------------------------


def within_kl(curve: Curve, kl: float) -> float:
    """The utility at a KL, between two measurements on a straight line; beyond the last one its own."""
    order = np.argsort(curve["kl"])
    return float(np.interp(kl, np.array(curve["kl"])[order], np.array(curve["validation_utility"])[order]))


def at_equal_kl(arms: dict[str, Curve]) -> dict[str, float]:
    """Utility of both arms at the largest KL that both have reached."""
    kl = min(max(curve["kl"]) for curve in arms.values())
    return {arm: within_kl(curve, kl) for arm, curve in arms.items()}


def law(sizes: list[float], losses: list[float]) -> dict[str, float]:
    """Exponent and fit (R squared) of ``loss = a size^-b``, by least squares on logarithms; equal losses fit exactly."""
    x, y = np.log(sizes), np.log(losses)
    slope, offset = np.polyfit(x, y, 1)
    rest = float(((y - slope * x - offset) ** 2).sum())
    spread = float(((y - y.mean()) ** 2).sum())
    return {"exponent": float(f"{-slope:.4g}"), "fit": float(f"{1 - rest / spread:.4g}") if spread else 1.0}


LOSS = "validation_preference_loss"


def claims(sizes: Sizes) -> list[Claim]:
    """Eight claims on the same cells."""
    told = {name: value for name, value in asdict(sizes).items() if name not in ("seeds", "first_seed")}
    cells = {
        seed: Cell("studies.polar:play", {"sizes": told, "seed": seed, "method": "polar"}, f"every arm, seed {seed}", COST, (), SOURCES)
        for seed in range(sizes.first_seed, sizes.first_seed + sizes.seeds)
    }
    main, narrow = str(max(sizes.widths)), str(min(sizes.widths))
    setting = (
        f"policy-zoo, decoders of two layers and {', '.join(map(str, sizes.widths))} units; {sizes.zoo_steps} steps of {sizes.zoo_pairs} "
        f"triples, then {sizes.label_steps} of {sizes.label_pairs} rankings; {sizes.held_out} unseen prompts"
    )

    def by_seed(result: Results, read: Callable[[Any], float]) -> dict[int, float]:
        return {seed: float(read(result(cell))) for seed, cell in cells.items()}

    def accuracies(result: Results) -> dict[str, dict[int, float]]:
        return {
            arm: by_seed(result, lambda found, arm=arm: found["accuracy"][arm])
            for arm in ("A few", "B few", "C few", "A many", "B many", "D")
        }

    def judge_labels(result: Results) -> Judgement:
        found = accuracies(result)
        conditions = [
            better("accuracy with few labels, A and B", found["A few"], found["B few"], by=MARGINS["accuracy"]),
            better("accuracy with few labels, B and C", found["B few"], found["C few"], margin=MARGINS["reference"]),
        ]
        return Judgement(conditions, {"accuracy": {arm: summary(each) for arm, each in found.items()}})

    def judge_more(result: Results) -> Judgement:
        few, many = (
            by_seed(result, lambda found, name=name: found["accuracy"][f"A {name}"] - found["accuracy"][f"B {name}"])
            for name in ("few", "many")
        )
        condition = better("gap of A and B, few and many labels", few, many, margin=MARGINS["reference"])
        return Judgement([condition], {"gap": {"few": summary(few), "many": summary(many)}})

    def judge_unseen(result: Results) -> Judgement:
        found = by_seed(result, lambda found: found["zoo"][main]["validation_preference_accuracy"][-1])
        return Judgement([above("unseen policies recognised", found, 0.6)], {"recognised": summary(found)}, curves_of(result))

    def curves_of(result: Results) -> dict[str, dict[int, Any]]:
        return {f"width {width}": {seed: result(cell)["zoo"][str(width)] for seed, cell in cells.items()} for width in sizes.widths}

    def judge_divergence(result: Results) -> Judgement:
        thirds = [by_seed(result, lambda found, third=third: found["recognised"][third]) for third in range(3)]
        condition = better("recognised, most and least divergent third", thirds[2], thirds[0], margin=MARGINS["accuracy"])
        return Judgement([condition], {"thirds": {str(number): summary(third) for number, third in enumerate(thirds, 1)}})

    def judge_reward(result: Results) -> Judgement:
        mine, theirs = (by_seed(result, lambda found, arm=arm: at_equal_kl(found["rl"])[arm]) for arm in ("A", "C"))
        ends = {arm: by_seed(result, lambda found, arm=arm: found["rl"][arm]["validation_utility"][-1]) for arm in ("A", "C")}
        far = {arm: by_seed(result, lambda found, arm=arm: found["rl"][arm]["kl"][-1]) for arm in ("A", "C")}
        metrics = {
            "at the end": {arm: summary(each) for arm, each in ends.items()},
            "nats": {arm: summary(each) for arm, each in far.items()},
        }
        condition = not_worse("utility at equal KL, A and C", mine, theirs, margin=MARGINS["reference"])
        curves = {f"RL with {arm}": {seed: result(cell)["rl"][arm] for seed, cell in cells.items()} for arm in ("A", "C")}
        return Judgement([condition], metrics, curves)

    def judge_control(result: Results) -> Judgement:
        mine = by_seed(result, lambda found: found["rl"]["A"]["validation_utility"][-1])
        theirs = by_seed(result, lambda found: found["imitation"])
        condition = better("utility, RL with A and imitation", mine, theirs, margin=MARGINS["reference"])
        return Judgement([condition], {"utility": {"RL with A": summary(mine), "imitation": summary(theirs)}})

    def judge_size(result: Results) -> Judgement:
        widest, narrowest = (by_seed(result, lambda found, width=width: found["zoo"][width][LOSS][-1]) for width in (main, narrow))
        means = [float(np.mean([result(cell)["zoo"][str(width)][LOSS][-1] for cell in cells.values()])) for width in sizes.widths]
        count = [result(next(iter(cells.values())))["weights"][str(width)] for width in sizes.widths]
        metrics = {"loss": dict(zip(map(str, count), means, strict=True)), "law": law(count, means)}
        return Judgement([smaller("loss, widest and narrowest", widest, narrowest, margin=MARGINS["loss"])], metrics)

    def judge_data(result: Results) -> Judgement:
        last, first = (by_seed(result, lambda found, place=place: found["zoo"][main][LOSS][place]) for place in (-1, -3))
        curve = [float(np.mean([result(cell)["zoo"][main][LOSS][place] for cell in cells.values()])) for place in (-3, -2, -1)]
        triples = [sizes.zoo_pairs * step for step in result(next(iter(cells.values())))["zoo"][main]["steps"][-3:]]
        metrics = {"loss": dict(zip(map(str, triples), curve, strict=True)), "law": law(triples, curve)}
        return Judgement([smaller("loss of the widest, all triples and a third", last, first, margin=MARGINS["loss"])], metrics)

    def number(name: str, measures: str, read: Callable[[Any], float], least: float, most: float | None = None) -> Precondition:
        return Precondition(name, measures, lambda result: by_seed(result, read), least, most)

    learns = number("stage 1 learns", "recognition by D", lambda found: found["zoo"][main]["validation_preference_accuracy"][-1], 0.55)
    room = number("room", "accuracy of B with few labels", lambda found: found["accuracy"]["B few"], 0.0, 0.9)
    ranks = number("labels teach", "accuracy of B with many labels", lambda found: found["accuracy"]["B many"], 0.55)
    moves = number("KL in reach", "smaller KL of both policies at the end", lambda f: min(f["rl"][arm]["kl"][-1] for arm in "AC"), 0.5)
    start = number("room for utility", "utility of the start", lambda found: found["rl"]["A"]["validation_utility"][0], 0.0, 0.7)

    def claim(
        name: str, title: str, published: str, judge: Callable[[Results], Judgement], margins: tuple[str, ...], *needs: Precondition
    ) -> Claim:
        chosen = {each: MARGINS[each] for each in margins}
        return Claim(name, title, published, setting, {"every arm": cells}, judge, margins=chosen, preconditions=needs)

    return [
        claim(
            "labels",
            "With few rankings, pre-training and a reference each order gold pairs better",
            "7B, without pre-training 60.8 and without the reference as well 59.7, against 63.2 on average of 20 benchmarks after RL",
            judge_labels,
            ("accuracy", "reference"),
            learns,
            room,
        ),
        claim(
            "more",
            "What pre-training brings is smaller with ten times the rankings",
            "Pre-training replaces labels: preference accuracy rises by 26 to 28 points over reward models trained on labels alone",
            judge_more,
            ("reference",),
            learns,
            ranks,
        ),
        claim(
            "unseen",
            "Policies that training has not shown are recognised in more than 60 % of triples",
            "A discriminator that is pre-trained on a pool of policies measures the difference of others",
            judge_unseen,
            (),
            learns,
        ),
        claim(
            "divergence",
            "The further apart two policies are, the better they are told apart",
            "The reward's mean is proportional to the KL between the policies",
            judge_divergence,
            ("accuracy",),
            learns,
        ),
        claim(
            "reward",
            "As a reward it takes a policy at least as far, at equal KL, as a reward model without reference",
            "RL with POLAR: Llama3.1-8B 47.4 to 56.3, Qwen2.5-32B 64.5 to 70.5",
            judge_reward,
            ("reference",),
            moves,
            start,
        ),
        claim(
            "control",
            "RL beside references ends above imitation of the same references",
            "InternLM3-8B: imitation of the same references 56.4, RL beside them 63.2",
            judge_control,
            ("reference",),
            moves,
            start,
        ),
        claim(
            "size",
            "Held-out loss falls with the number of weights",
            "Validation loss 0.9 N^-0.0425 in parameters from 50M to 1B",
            judge_size,
            ("loss",),
            learns,
        ),
        claim(
            "data",
            "Held-out loss falls with the number of triples",
            "Validation loss 2.4 C^-0.0342 in compute",
            judge_data,
            ("loss",),
            learns,
        ),
    ]


COST = 160.0
"""Seconds of a core that a cell takes."""
STUDY = Study("polar", "POLAR", "arXiv 2507.05197", claims, full=Sizes(), smoke=SMOKE)
