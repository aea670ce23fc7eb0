"""The online-offline gap: with one loss and one data set, is it better to learn from the pairs or from their judge?

The preference game (one world for every seed): gold reward, base, 2,000 pairs of the base with gold labels, a proxy trained on exactly
these pairs. Online arms sample two answers per prompt and ask the proxy; offline arms take the pairs. One IPO step per batch of 32 pairs,
Adam, as many steps in every arm. Wins are by the gold reward against a policy that was trained online with it, on 128 prompts.

online             IPO, beta 0.1, step size 3e-4
offline            IPO with three step sizes and two betas; pooled into one frontier before it is compared
shuffled           offline IPO on the stream of the online run, all of it shuffled
of the last        offline IPO on 2,000 pairs of the online run's last policy, with gold labels
base and early     offline IPO on pairs with one side of the base and one of an early online policy, with gold labels
best-of-2          likelihood of the preferred answer, online and offline
larger             online and offline IPO with a policy of twice the width, in a world of its own base, pairs and proxy

Rules, fixed before any arm was run with a seed of the study (matched seeds, looked at as docs/rule.md says). No arm was tuned: step sizes
and betas are the paper's grid moved to Adam on a small model, the online arm has its middle. Peaks are the best of five measurements, of
the offline frontier the best of thirty, which favours offline. Margins: 5 points of wins for the gap itself, 2 to 3 for changes of data, 10
points of accuracy, half a nat of log-ratios.

What cannot be shown here: scaling beyond one doubling, the exception of chat arena, human preferences.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rheostat.experiments.studies import (
    Cell,
    Claim,
    Judgement,
    Precondition,
    Results,
    Study,
    better,
    not_worse,
    summary,
    within,
)
from studies._preference_panels import draw_game

METHOD = "online-offline-gap"
SOURCES = ("rheostat.methods.control.online_offline_gap", "rheostat.tasks.preferences.game")
Options = dict[str, Any]
Curve = dict[str, list[float]]

OFFLINE: Options = {"on_policy_sampling": False}
BEST: Options = {"loss": "best-of-n"}
RATES, BETAS = (1e-4, 3e-4, 1e-3), (0.1, 0.5)
SWEEP = {f"offline, rate {rate:g}, beta {beta:g}": OFFLINE | {"learning_rate": rate, "beta": beta} for rate in RATES for beta in BETAS}
MIDDLE = "offline, rate 0.0003, beta 0.1"
KL = (1.0, 2.0, 4.0, 8.0)
"""Nats at which frontiers are compared."""
POINTS = 5
"""Measurements of an arm."""
EARLY = 0.2
"""Share of the online run after which the early policy is taken."""
KEPT = (
    "win_rate",
    "win_rate_against_start",
    "proxy_win_rate",
    "evaluation_return",
    "kl_to_reference",
    "kl_from_reference",
    "reference_logp",
    "accuracy_on_data",
    "accuracy_on_own_samples",
    "winner_log_ratio_on_data",
    "loser_log_ratio_on_data",
)
MARGINS = {"wins": 0.05, "wins of data": 0.03, "wins of losses": 0.02, "accuracy": 0.1, "log-ratio": 0.5}


@dataclass(frozen=True)
class Sizes:
    """What differs between the study and its smoke form."""

    seeds: int = 8
    steps: int = 150
    pairs: int = 2000
    small: bool = False
    first_seed: int = 0


SMOKE = Sizes(1, 6, 100, True)


# --- the cell ----------------------------------------------------------------------------------------------------------------------------


def play(arguments: dict[str, Any], place: Path) -> dict[str, Any]:
    """The cell: one world and every arm on it. What an arm has found is kept beside, so that an interrupted cell goes on."""
    torch.set_num_threads(1)
    game = Game(arguments, place)
    game.run()
    return {"proxy_accuracy": game.world.accuracy, "proxy_accuracy_larger": game.larger.accuracy, "arms": game.curves}


class Game:
    """One seed.

    Args:
        arguments: of the cell.
        place: its folder.
    """

    def __init__(self, arguments: dict[str, Any], place: Path) -> None:
        from rheostat.tasks.preferences.game import TINY, GameSizes, PreferenceGame

        self.seed, self.steps, self.pairs, self.place = arguments["seed"], arguments["steps"], arguments["pairs"], place
        sizes = TINY if arguments["small"] else GameSizes()
        self.world = PreferenceGame.of(self.seed, sizes)
        self.larger = PreferenceGame.of(self.seed, GameSizes(**(vars(sizes) | {"width": 2 * sizes.width})))
        self.curves: dict[str, Curve] = {}

    def run(self) -> None:
        """Every arm; those that others learn from come first, and are made again where their policies are needed."""
        from rheostat.tasks.preferences.game import Answers, draw_pairs, seeded

        gold, _, _ = self.trained("opponent", self.world.with_gold(), {})
        world = self.world.with_opponent(gold)
        last, early, stream = self.trained("online", world, {}, keep=True)
        for name, options in SWEEP.items():
            self.arm(name, world, options)
        middle = SWEEP[MIDDLE]
        self.arm("shuffled", world.with_data(stream), middle)
        draw = seeded(self.seed, "other pairs")
        self.arm("of the last", world.with_data(draw_pairs(last, world.gold, world.chain, self.pairs, draw)), middle)
        prompt = world.chain.sample(self.pairs, 4, draw)
        mixed = torch.cat([world.base.sample(prompt, 1, draw), early.sample(prompt, 1, draw)], 1)
        self.arm("base and early", world.with_data(Answers(prompt, mixed, world.gold(prompt, mixed))), middle)
        self.arm("best-of-2 online", world, BEST)
        self.arm("best-of-2 offline", world, BEST | OFFLINE)
        self.arm("larger online", self.larger, {})
        self.arm("larger offline", self.larger, middle)

    def arm(self, name: str, world: Any, options: Options) -> None:
        """An arm whose policy nobody needs."""
        path = self.place / f"{name}.json"
        if path.is_file():
            self.curves[name] = json.loads(path.read_text())
            return
        self.trained(name, world, options)
        path.write_text(json.dumps(self.curves[name]))

    def trained(self, name: str, world: Any, options: Options, *, keep: bool = False) -> tuple[Any, Any, Any]:
        """Train an arm; returns its last policy, its early one and the stream of its batches where they are kept."""
        import copy

        from rheostat.learner.preferences import build
        from rheostat.streams import Streams
        from rheostat.tasks.preferences.game import Answers
        from rheostat.training.settings import configure

        every = max(1, self.steps // POINTS)
        config = configure(METHOD, options | {"evaluate_every": every, "log_every": every})
        learner = build(config, METHOD, world, Streams(self.seed), self.steps)
        rows, early, batches = [dict(learner.begin()) | {"steps": 0}], learner.policy, []
        while learner.steps < self.steps:
            found = learner.turn()
            if found:
                rows.append(found | {"steps": learner.steps})
            if keep:
                batches.append(learner.context.batch)
                if learner.steps == max(1, int(EARLY * self.steps)):
                    early = copy.deepcopy(learner.policy)
        self.curves[name] = {column: [float(f"{row[column]:.6g}") for row in rows if column in row] for column in ("steps", *KEPT)}
        stream = None
        if keep:
            stream = Answers(*(torch.cat([getattr(each, part) for each in batches]) for part in ("prompt", "answer", "reward")))
        return learner.policy, early, stream


# --- what is read from curves ------------------------------------------------------------------------------------------------------------


def peak(curve: Curve, by: str = "win_rate") -> int:
    """The place of the best measurement after the start."""
    return max(range(1, len(curve[by])), key=lambda place: curve[by][place])


def best_within(curves: list[Curve], kl: float) -> float:
    """The most wins with at most so many nats, over all curves; the start counts."""
    points = [(k, w) for curve in curves for k, w in zip(curve["kl_to_reference"], curve["win_rate"], strict=True)]
    return max((w for k, w in points if k <= kl), default=0.0)


Arms = Mapping[str, Curve]


def sweep(arms: Arms) -> list[Curve]:
    """The offline frontier's runs."""
    return [arms[name] for name in SWEEP]


def frontier(arms: Arms) -> tuple[Curve, int]:
    """The offline run, and the place in it, with the most wins."""
    best = max(sweep(arms), key=lambda curve: curve["win_rate"][peak(curve)])
    return best, peak(best)


def top(curve: Curve, by: str = "win_rate") -> float:
    """The most wins."""
    return curve[by][peak(curve, by)]


def claims(sizes: Sizes) -> list[Claim]:
    """The gap, and what does and does not explain it."""
    shared = {"steps": sizes.steps, "pairs": sizes.pairs, "small": sizes.small, "method": METHOD}
    cells = {
        seed: Cell("studies.online_offline_gap:play", shared | {"seed": seed}, f"every arm, seed {seed}", 180.0, (), SOURCES)
        for seed in range(sizes.first_seed, sizes.first_seed + sizes.seeds)
    }
    setting = (
        f"preference-game, {sizes.steps} steps of 32 pairs in every arm, Adam, 100,000 weights or fewer; gold wins against a gold-trained "
        "policy on 128 prompts, two answers each"
    )

    def by_seed(result: Results, read: Any) -> dict[int, float]:
        return {seed: float(read(result(cell)["arms"])) for seed, cell in cells.items()}

    def curves_of(result: Results) -> dict[str, dict[int, Any]]:
        names = ("online", *SWEEP, "shuffled", "of the last", "base and early", "best-of-2 online", "best-of-2 offline")
        return {name: {seed: result(cell)["arms"][name] for seed, cell in cells.items()} for name in names}

    def offline_top(arms: Arms) -> float:
        curve, place = frontier(arms)
        return curve["win_rate"][place]

    def judge_gap(result: Results) -> Judgement:
        online, offline = by_seed(result, lambda arms: top(arms["online"])), by_seed(result, offline_top)
        near = {kl: by_seed(result, lambda arms, kl=kl: best_within([arms["online"]], kl)) for kl in KL}
        far = {kl: by_seed(result, lambda arms, kl=kl: best_within(sweep(arms), kl)) for kl in KL}
        mean = [{seed: sum(side[kl][seed] for kl in KL) / len(KL) for seed in cells} for side in (near, far)]
        conditions = [
            better("peak of wins, online and offline frontier", online, offline, margin=MARGINS["wins"]),
            better(f"wins within {', '.join(f'{kl:g}' for kl in KL)} nats, mean", mean[0], mean[1], margin=MARGINS["wins"]),
        ]
        metrics = {f"within {kl:g} nats": {"online": summary(near[kl]), "offline": summary(far[kl])} for kl in KL}
        return Judgement(conditions, {"peak": {"online": summary(online), "offline": summary(offline)}} | metrics, curves_of(result))

    def judge_discrimination(result: Results) -> Judgement:
        def offline(arms: Arms) -> float:
            curve, place = frontier(arms)
            return curve["accuracy_on_data"][place]

        there = by_seed(result, offline)
        here = by_seed(result, lambda arms: arms["online"]["accuracy_on_data"][peak(arms["online"])])
        wins = by_seed(result, lambda arms: top(arms["online"])), by_seed(result, offline_top)
        conditions = [
            better("accuracy on the data at the peaks, offline and online", there, here, margin=MARGINS["accuracy"]),
            better("peak of wins, online and offline frontier", *wins, margin=MARGINS["wins"]),
        ]
        return Judgement(conditions, {"accuracy": {"offline": summary(there), "online": summary(here)}})

    def judge_own(result: Results) -> Judgement:
        found = {
            "online": by_seed(result, lambda arms: arms["online"]["accuracy_on_own_samples"][-1]),
            "offline": by_seed(result, lambda arms: arms[MIDDLE]["accuracy_on_own_samples"][-1]),
        }
        conditions = [within(f"accuracy of {name} on its own answers", values, 0.4, 0.6) for name, values in found.items()]
        return Judgement(conditions, {"accuracy": {name: summary(values) for name, values in found.items()}})

    def judge_winners(result: Results) -> Judgement:
        def offline(arms: Arms) -> float:
            curve, place = frontier(arms)
            return curve["winner_log_ratio_on_data"][place]

        here = by_seed(result, lambda arms: arms["online"]["winner_log_ratio_on_data"][peak(arms["online"])])
        condition = better(
            "winners' log-ratio at the peaks, online and offline", here, by_seed(result, offline), margin=MARGINS["log-ratio"]
        )
        last = {
            name: summary(by_seed(result, lambda arms, name=name: arms[name]["winner_log_ratio_on_data"][-1]))
            for name in ("online", *SWEEP)
        }
        return Judgement([condition], {"at the end": last})

    def judge_decline(result: Results) -> Judgement:
        def lost(curve: Curve) -> tuple[float, float]:
            return top(curve), curve["win_rate"][-1]

        far = "offline, rate 0.001, beta 0.1"
        conditions = []
        for name in ("online", far):
            best = by_seed(result, lambda arms, name=name: lost(arms[name])[0])
            last = by_seed(result, lambda arms, name=name: lost(arms[name])[1])
            conditions.append(better(f"{name}: peak and end", best, last, margin=MARGINS["wins"]))
        return Judgement(conditions)

    def compared(what: str, one: Any, other: Any, margin: float) -> Any:
        def judge(result: Results) -> Judgement:
            a, b = by_seed(result, one), by_seed(result, other)
            return Judgement([better(what, a, b, margin=margin)], {"first": summary(a), "second": summary(b)})

        return judge

    def judge_early(result: Results) -> Judgement:
        a, b = (by_seed(result, lambda arms, name=name: top(arms[name])) for name in ("base and early", MIDDLE))
        condition = not_worse("peak of wins, base and early against the data", a, b, margin=MARGINS["wins of data"])
        return Judgement([condition], {"base and early": summary(a), "the data": summary(b)})

    def number(name: str, measures: str, read: Any, least: float | None, most: float | None = None) -> Precondition:
        return Precondition(name, measures, lambda result: {seed: float(read(result(cell))) for seed, cell in cells.items()}, least, most)

    proxy = number("imperfect proxy", "accuracy of the proxy on held-out pairs", lambda found: found["proxy_accuracy"], 0.6, 0.95)
    learns = number(
        "online learns",
        "peak of online wins against the start",
        lambda found: top(found["arms"]["online"], "win_rate_against_start"),
        0.6,
    )
    room = number("room", "peak of online wins against the opponent", lambda found: top(found["arms"]["online"]), 0.1, 0.9)
    moves = number(
        "KL in reach", "largest KL of the offline frontier", lambda found: max(max(c["kl_to_reference"]) for c in sweep(found["arms"])), 2.0
    )
    learning = (proxy, learns, room)

    def claim(
        name: str, title: str, published: str, judge: Any, margins: dict[str, float], preconditions: tuple[Precondition, ...]
    ) -> Claim:
        return Claim(name, title, published, setting, {"every arm": cells}, judge, margins=margins, preconditions=preconditions)

    wins, data, losses = ({name: MARGINS[name]} for name in ("wins", "wins of data", "wins of losses"))
    return [
        claim(
            "gap",
            "Online ends above offline, at its peak and at equal KL",
            "Four tasks: online reaches a higher peak and a better win rate at equal KL",
            judge_gap,
            wins,
            (*learning, moves),
        ),
        claim(
            "coverage",
            "Offline on the shuffled stream of the online run stays below it",
            "Data coverage does not explain the gap: the same data in another order stay below online",
            compared(
                "peak of wins, online and its shuffled stream",
                lambda arms: top(arms["online"]),
                lambda arms: top(arms["shuffled"]),
                MARGINS["wins of data"],
            ),
            data,
            learning,
        ),
        claim(
            "quality",
            "Pairs of the last online policy make offline no better than the base's pairs do",
            "Data quality does not explain it: pairs of the final online policy barely improve on the start",
            compared(
                "peak of wins, the base's pairs and the last policy's",
                lambda arms: top(arms[MIDDLE]),
                lambda arms: top(arms["of the last"]),
                MARGINS["wins of data"],
            ),
            data,
            learning,
        ),
        claim(
            "discrimination",
            "Offline classifies the data better and generates worse",
            "Offline policies classify the preference set at 60 to 70 %, online ones at or below 50 %, yet online generates better",
            judge_discrimination,
            {"accuracy": MARGINS["accuracy"]} | wins,
            learning,
        ),
        claim(
            "own answers",
            "No policy classifies its own answers better than chance",
            "On their own samples all policies classify near 50 %",
            judge_own,
            {"accuracy": MARGINS["accuracy"]},
            (learns,),
        ),
        claim(
            "winners fall",
            "The winners of the data fall further below the start offline than online",
            "log pi(y_w) on the data set falls below its start in all runs, most for offline",
            judge_winners,
            {"log-ratio": MARGINS["log-ratio"]},
            (learns,),
        ),
        claim(
            "over-optimisation",
            "Wins fall again at large KL, online and offline",
            "Both families rise then fall with KL",
            judge_decline,
            wins,
            learning,
        ),
        claim(
            "loss",
            "The gap remains for best-of-2, which pushes nothing down",
            "The gap remains for the non-contrastive best-of-2 loss",
            compared(
                "peak of wins, best-of-2 online and offline",
                lambda arms: top(arms["best-of-2 online"]),
                lambda arms: top(arms["best-of-2 offline"]),
                MARGINS["wins of losses"],
            ),
            losses,
            learning,
        ),
        claim(
            "scale",
            "The gap remains with a policy of twice the width",
            "The gap shrinks only slowly with policies sixteen times larger",
            compared(
                "peak of wins against the start, larger online and offline",
                lambda arms: top(arms["larger online"], "win_rate_against_start"),
                lambda arms: top(arms["larger offline"], "win_rate_against_start"),
                MARGINS["wins of losses"],
            ),
            losses,
            learning,
        ),
        claim(
            "base and early",
            "Pairs of the base against an early policy are at least as good as the data",
            "Among changes of data only more on-policy ones help: one side from the start, one from an 800-step policy",
            judge_early,
            data,
            learning,
        ),
    ]


STUDY = Study("online-offline-gap", "Online-offline gap", "arXiv 2405.08448", claims, full=Sizes(), smoke=SMOKE, draw=draw_game)
