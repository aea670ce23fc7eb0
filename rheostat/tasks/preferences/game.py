"""The preference game: one gold reward, a proxy that was trained on the very pairs that offline methods learn from.

After Tang et al. 2024 (arXiv 2405.08448), who have no released code and much larger models; the world is ours.

    prompt       4 tokens, answer 10, from a vocabulary of 24; both from one random Markov chain
    gold         a fixed random perceptron on the counts of neighbouring tokens, and 1 for a motif of two tokens that follow each other
                 anywhere in the answer
    base         a small transformer, trained by likelihood on the better one of two answers of the chain
    data         pairs of answers of the base to new prompts, ordered by the gold reward
    proxy        a transformer over prompt, first answer and second answer, trained on those pairs in both orders, stopped where it is best
                 on a tenth of them that is held out; it decides by the difference of both orders
    opponent     a policy trained online with the gold reward in the place of the proxy, where one was handed over; else the base

Online methods are told the proxy's preference, never the gold reward: they know nothing that the offline data do not hold. Evaluation is by
the gold reward.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from rheostat.errors import RheostatError
from rheostat.objectives.preference import best_of_n
from rheostat.objectives.preference_model import both_orders_loss, debiased_preference, prefers, win_rate
from rheostat.policies.answers import TokenTransformer, TransformerPolicy
from rheostat.policies.parameters import OptimizedNetwork
from rheostat.tasks.preferences.didactic import kl_along, seeded
from rheostat.tasks.preferences.problem import Answers, Measured

VOCABULARY, PROMPT, ANSWER = 24, 4, 10


@dataclass(frozen=True)
class GameSizes:
    """What the world is made of."""

    width: int = 48
    """Of base and policy."""
    layers: int = 2
    heads: int = 4
    corpus: int = 4000
    """Answers that the base is trained on."""
    base_steps: int = 300
    pairs: int = 2000
    """Of the offline data."""
    judge_width: int = 48
    judge_steps: int = 500
    held_out: int = 128
    """Prompts of a measurement."""


TINY = GameSizes(16, 1, 2, 200, 20, 100, 16, 20, 16)
"""A world that is made in a second and teaches nothing: for tests."""


class GoldReward:
    """The gold reward of prompts and answers.

    Args:
        seed: of its weights.
    """

    def __init__(self, seed: int) -> None:
        draw = seeded(seed, "gold")
        self.hidden = 0.5 * torch.randn(VOCABULARY**2, 64, generator=draw)
        self.out = torch.randn(64, generator=draw) / 8
        self.motif = torch.randint(VOCABULARY, (2,), generator=draw)

    def __call__(self, prompt: Tensor, answer: Tensor) -> Tensor:
        """``[S, N]`` of int64 ``[S, 4]`` and ``[S, N, 10]``."""
        row = torch.cat([prompt[:, None].expand(-1, answer.shape[1], -1), answer], -1)
        pair = VOCABULARY * row[..., :-1] + row[..., 1:]
        counts = self.hidden[pair].sum(-2)  # a bag of pairs times the first layer
        found = (answer[..., :-1] == self.motif[0]) & (answer[..., 1:] == self.motif[1])
        return counts.tanh() @ self.out + found.any(-1).float()


class Chain:
    """The Markov chain that prompts and the corpus come from.

    Args:
        seed: of its transitions.
    """

    def __init__(self, seed: int) -> None:
        self.table = (1.5 * torch.randn(VOCABULARY, VOCABULARY, generator=seeded(seed, "chain"))).softmax(-1)

    def sample(self, count: int, length: int, generator: torch.Generator, after: Tensor | None = None) -> Tensor:
        """``count`` rows int64 ``[count, length]``, which go on after given tokens int64 ``[count]``."""
        now = torch.randint(VOCABULARY, (count,), generator=generator) if after is None else after
        found = []
        for _ in range(length):
            now = torch.multinomial(self.table[now], 1, generator=generator).squeeze(-1)
            found.append(now)
        return torch.stack(found, -1)


class PairJudge:
    """A preference model over both answers.

    Args:
        network: a logit for "the first one is better" at the last place of prompt, first and second answer.
    """

    def __init__(self, network: TokenTransformer) -> None:
        self.network = network

    def logit(self, prompt: Tensor, one: Tensor, other: Tensor) -> Tensor:
        """``[P]`` of int64 ``[P, 4]`` and ``[P, 10]`` each; carries the gradient."""
        found: Tensor = self.network(torch.cat([prompt, one, other], 1))
        return found[:, -1, 0]

    @torch.no_grad()
    def preference(self, prompt: Tensor, one: Tensor, other: Tensor) -> Tensor:
        """``[P]``, above 0 where the first answer is better, from both orders."""
        return debiased_preference(self.logit(prompt, one, other), self.logit(prompt, other, one))


@dataclass
class PreferenceGame:
    """The world, with its base, data and proxy trained.

    Attributes:
        labelled: the pairs of the base with their gold rewards, by which policies are measured as classifiers.
        data: what offline methods learn from: those pairs, or others.
        window: rows of the data within which their order is shuffled; None shuffles all of them, 1 keeps their order.
        accuracy: of the proxy on the pairs that were held out of its training.
        judge: who rewards training: the proxy, or None for the gold reward itself.
        opponent: whose answers are compared with.
    """

    seed: int
    sizes: GameSizes
    gold: GoldReward
    chain: Chain
    base: TransformerPolicy
    labelled: Answers
    judge: PairJudge | None
    accuracy: float
    opponent: TransformerPolicy
    data: Answers
    window: int | None = None
    drawn: dict[str, Tensor] = field(default_factory=dict)
    """What the opponents answered."""

    name = "preference-game"
    length = ANSWER

    @staticmethod
    def of(seed: int, sizes: GameSizes | None = None) -> PreferenceGame:
        """A new world."""
        sizes = sizes or GameSizes()
        gold, chain = GoldReward(seed), Chain(seed)
        base = trained_base(seed, sizes, gold, chain)
        data = draw_pairs(base, gold, chain, sizes.pairs, seeded(seed, "pairs"))
        judge, accuracy = trained_judge(seed, sizes, data)
        return PreferenceGame(seed, sizes, gold, chain, base, data, judge, accuracy, base, data)

    @property
    def reference(self) -> TransformerPolicy:
        """The base."""
        return self.base

    def start(self) -> TransformerPolicy:
        """A copy of the base."""
        return copy.deepcopy(self.base).requires_grad_(True)

    def prompts(self, count: int, generator: torch.Generator) -> Tensor:
        """New ones, int64 ``[count, 4]``."""
        return self.chain.sample(count, PROMPT, generator)

    def reward(self, prompt: Tensor, answer: Tensor) -> Tensor:
        """``[S, N]``: how many of the others the judge prefers an answer to; the gold reward where there is no judge."""
        if self.judge is None:
            return self.gold(prompt, answer)
        prompts, count, _ = answer.shape
        first, second = torch.triu_indices(count, count, offset=1)
        found = torch.zeros(prompts, count)
        for one, other in zip(first.tolist(), second.tolist(), strict=True):
            better = self.judge.preference(prompt, answer[:, one], answer[:, other])
            found[:, one] += better
            found[:, other] -= better
        return found

    def with_data(self, data: Answers, window: int | None = None) -> PreferenceGame:
        """The same world with other offline data, shuffled within windows of so many rows (None: all of them, 1: not at all)."""
        return replace(self, data=data, window=window)

    def with_opponent(self, opponent: TransformerPolicy) -> PreferenceGame:
        """The same world with another policy to win against."""
        return replace(self, opponent=opponent, drawn={})

    def with_gold(self) -> PreferenceGame:
        """The same world, in which training is told the gold reward."""
        return replace(self, judge=None)

    def offline(self, turn: int, count: int, samples: int) -> Answers:
        """The ``turn``-th batch of passes over the data, each in an order of its own.

        Raises:
            RheostatError: more answers per prompt than the data have, or more prompts than there are.
        """
        rows, kept = self.data.answer.shape[:2]
        if samples != kept or count > rows:
            raise RheostatError(
                f"The data of {self.name} are {rows} prompts with {kept} answers each, and batches of {count} with {samples} are asked "
                f"for: set samples to {kept}, and prompts_per_batch to at most {rows}."
            )
        places = range(turn * count, (turn + 1) * count)
        orders = {epoch: self.order(epoch) for epoch in {place // rows for place in places}}
        chosen = torch.stack([orders[place // rows][place % rows] for place in places])
        return Answers(self.data.prompt[chosen], self.data.answer[chosen], self.data.reward[chosen])

    def order(self, epoch: int) -> Tensor:
        """Rows of the data, int64, in the order of a pass."""
        rows, draw = len(self.data.answer), seeded(self.seed, "order", epoch)
        window = rows if self.window is None else self.window
        return torch.cat([begin + torch.randperm(min(window, rows - begin), generator=draw) for begin in range(0, rows, window)])

    @torch.no_grad()
    def measure(self, policy: TransformerPolicy, generator: torch.Generator) -> Measured:
        """Gold wins against the opponent and the base, KL both ways, how likely the base finds the policy's answers (how well its data
        cover them), and what the policy is worth as a classifier of the data."""
        prompt = self.chain.sample(self.sizes.held_out, PROMPT, seeded(self.seed, "held out"))
        answer = policy.sample(prompt, 2, generator)
        rivals = self.rivals(prompt)
        paid = self.gold(prompt, answer)
        ratio = self.log_ratio(policy, prompt, answer)
        own = prefers(*ordered(paid, ratio))
        found = {
            "evaluation_return": float(paid.mean()),
            "win_rate": float(win_rate(paid - self.gold(prompt, rivals["opponent"]))),
            "win_rate_against_start": float(win_rate(paid - self.gold(prompt, rivals["start"]))),
            "kl_to_reference": kl_along(policy, self.base, prompt, answer[:, :1]),
            "kl_from_reference": kl_along(self.base, policy, prompt, rivals["start"][:, :1]),
            "reference_logp": float(self.base.logp(prompt, answer).sum(-1).mean()),
            "accuracy_on_own_samples": float(own.float().mean()),
            "evaluation_episodes": len(prompt),
        }
        if self.judge is not None:
            better = self.judge.preference(prompt, answer[:, 0], rivals["start"][:, 0])
            found["proxy_win_rate"] = float(win_rate(better))
        return found | self.classified(policy, self.labelled)

    def rivals(self, prompt: Tensor) -> dict[str, Tensor]:
        """Two answers of opponent and base to every held-out prompt, the same in every measurement."""
        if not self.drawn:
            sides = (("opponent", self.opponent), ("start", self.base))
            self.drawn = {name: each.sample(prompt, 2, seeded(self.seed, name)) for name, each in sides}
        return self.drawn

    def log_ratio(self, policy: TransformerPolicy, prompt: Tensor, answer: Tensor) -> Tensor:
        """``[S, N]`` log-ratios of answers to the base."""
        return (policy.logp(prompt, answer) - self.base.logp(prompt, answer)).sum(-1)

    @torch.no_grad()
    def classified(self, policy: TransformerPolicy, data: Answers, most: int = 256) -> Measured:
        """Accuracy on pairs by log-ratios to the base, and the mean log-ratio of winners and losers (of the first ``most`` pairs)."""
        prompt, answer, reward = data.prompt[:most], data.answer[:most], data.reward[:most]
        winner, loser = ordered(reward, self.log_ratio(policy, prompt, answer))
        return {
            "accuracy_on_data": float(prefers(winner, loser).float().mean()),
            "winner_log_ratio_on_data": float(winner.mean()),
            "loser_log_ratio_on_data": float(loser.mean()),
        }


def ordered(reward: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Values ``[S, 2]`` of the better and of the worse answer, ``[S]`` each; the first is the better one of equal ones."""
    best = best_of_n(reward).unsqueeze(-1)
    return value.gather(-1, best).squeeze(-1), value.gather(-1, 1 - best).squeeze(-1)


def draw_pairs(policy: TransformerPolicy, gold: GoldReward, chain: Chain, count: int, generator: torch.Generator) -> Answers:
    """Two answers of a policy to each of ``count`` new prompts, with their gold rewards."""
    prompt = chain.sample(count, PROMPT, generator)
    answer = policy.sample(prompt, 2, generator)
    return Answers(prompt, answer, gold(prompt, answer))


def trained_base(seed: int, sizes: GameSizes, gold: GoldReward, chain: Chain) -> TransformerPolicy:
    """Likelihood of the better of two answers of the chain."""
    draw = seeded(seed, "corpus")
    prompt = chain.sample(sizes.corpus, PROMPT, draw)
    pair = torch.stack([chain.sample(sizes.corpus, ANSWER, draw, after=prompt[:, -1]) for _ in range(2)], 1)
    best = best_of_n(gold(prompt, pair))
    answer = pair[torch.arange(sizes.corpus), best][:, None]
    weights = seeded(seed, "base", sizes.width)
    network = TransformerPolicy(VOCABULARY, PROMPT, ANSWER, weights, width=sizes.width, layers=sizes.layers, heads=sizes.heads)
    model = OptimizedNetwork(network, 1e-3)
    for _ in range(sizes.base_steps):
        rows = torch.randint(sizes.corpus, (128,), generator=draw)
        model.step(-network.logp(prompt[rows], answer[rows]).mean())
    return network.requires_grad_(False)


def trained_judge(seed: int, sizes: GameSizes, data: Answers) -> tuple[PairJudge, float]:
    """The preference model at its best on a tenth of the pairs, which is held out; returns that accuracy too."""
    weights, draw = seeded(seed, "judge"), seeded(seed, "judge batches")
    places = PROMPT + 2 * ANSWER
    network = TokenTransformer(VOCABULARY, places, 1, weights, width=sizes.judge_width, layers=2, heads=4, causal=False)
    judge, model = PairJudge(network), OptimizedNetwork(network, 1e-3)
    better = best_of_n(data.reward)
    rows = torch.arange(len(better))
    winner, loser = data.answer[rows, better], data.answer[rows, 1 - better]
    held = len(rows) // 10
    best, kept = -1.0, copy.deepcopy(network.state_dict())
    for step in range(1, sizes.judge_steps + 1):
        batch = held + torch.randint(len(rows) - held, (32,), generator=draw)
        sides = (data.prompt[batch], winner[batch], loser[batch])
        model.step(both_orders_loss(judge.logit(*sides), judge.logit(sides[0], sides[2], sides[1])), max_grad_norm=1.0)
        if step % 25 == 0 or step == sizes.judge_steps:
            right = judge.preference(data.prompt[:held], winner[:held], loser[:held]) > 0
            if (accuracy := float(right.float().mean())) > best:
                best, kept = accuracy, copy.deepcopy(network.state_dict())
    network.load_state_dict(kept)
    return PairJudge(network.requires_grad_(False)), best
