"""A flow field over the policy's latents as a trained model: taught by an expert's rows first, then by the policy's own right completions.

RLFR, arXiv 2510.10201. The latents are constants: the field's loss carries no gradient into the policy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from rheostat.collect.language.experts import ExpertStream
from rheostat.credit.flow_rewards import flow_seeds
from rheostat.errors import RheostatError
from rheostat.learner.models import Trainable
from rheostat.learner.update import DECAYS, Update, usable_rows
from rheostat.objectives.flow_matching import FlowMatching, Pairing, deviation, logistic_normal, neighbours, partners
from rheostat.options import option
from rheostat.parts import Aggregate, Batch, Metrics, Tokens, Weighted, row_reward
from rheostat.policies.flops import FORWARD, TRAIN, matrix_weights
from rheostat.policies.language.flow_field import FlowField
from rheostat.policies.language.model import LanguagePolicy
from rheostat.streams import derive_seed
from rheostat.trajectories import Trajectories

DEPTHS = (0.25, 0.5, 0.75)
"""Where latents are read if no layers are named, as shares of the policy's depth."""
AT_ONCE = 2**13
"""Tokens whose deviations are computed in one pass without a gradient."""


@dataclass(frozen=True)
class FlowOptions:
    """The field, and what it is a field of."""

    layers: tuple[int, ...] = option((), short="flow_layers", at_least=0)
    """Layers of the policy whose outputs are the latents, numbered from 0; none takes those at 25, 50 and 75 % of its depth."""
    pairing: Pairing = option("token-post", short="flow_pairing")
    """Predict a token's latent from that of the token before it, or (token-pre) of the token after it."""
    times: tuple[float, ...] = option((0.8,), short="flow_times", above=0, below=1)
    """Times at which the deviation is measured, between noise (0) and the latent (1)."""
    blocks: int = option(4, short="flow_blocks", at_least=1)
    """Residual blocks of the field's network, whose width is that of the policy (the authors: 6 for 7B models)."""

    def __post_init__(self) -> None:
        for name in ("layers", "times"):
            values = getattr(self, name)
            if list(values) != sorted(set(values)):
                raise RheostatError(f"flow_{name} are {values}: name each once, in rising order.")
        if not self.times:
            raise RheostatError("flow_times are none: name at least one time between 0 and 1, as (0.8,).")


def layers_of(policy: LanguagePolicy, named: Sequence[int] = ()) -> tuple[int, ...]:
    """The layers whose outputs are the latents: those named, else the ones at :data:`DEPTHS`, each once.

    Raises:
        RheostatError: the policy has no such layer.
    """
    count = policy.layers
    missing = [layer for layer in named if layer >= count]
    if missing:
        raise RheostatError(
            f"flow_layers names the layer {missing[0]}, and this {policy.causal.config.model_type} has {count}, numbered from 0 to "
            f"{count - 1}: name others, or none for those at 25, 50 and 75 % of its depth."
        )
    return tuple(named) or tuple(sorted({min(round(share * count), count - 1) for share in DEPTHS}))


class FlowModel(Trainable):
    """The field of one policy's latents and its optimiser.

    Args:
        options: of the field.
        learning_rate: AdamW step size.
        max_grad_norm: global gradient norm limit.
        of: name of the model whose latents it is a field of.
    """

    def __init__(self, options: FlowOptions, learning_rate: float, max_grad_norm: float, of: str = "policy") -> None:
        super().__init__(learning_rate, 0.0, max_grad_norm)
        self.options, self.read = options, of  # not ``of``: it does not follow that model's updates
        self.name = ""
        self.layers: tuple[int, ...] = ()
        self.depths = torch.zeros(0)

    def bind(self, context: Any, name: str) -> None:
        """Find the layers and build the network, drawn from the run's seed.

        Raises:
            RheostatError: the policy has no such layer.
        """
        self.name, policy = name, context.networks[self.read]
        self.layers = layers_of(policy, self.options.layers)
        self.depths = torch.tensor(self.layers, device=policy.device) / policy.layers
        width = policy.causal.config.get_text_config().hidden_size
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(context.streams.seed, "flow field"))
            context.networks[name] = FlowField(width, self.options.blocks).to(policy.device)
        super().bind(context, name)

    @property
    def weights(self) -> int:
        """Weights that a token is multiplied with: those of the network, once for every layer."""
        return matrix_weights(self.network) * len(self.layers)

    def restart(self, weight_decay: float = 0.0) -> None:
        """Forget the moments of the optimiser; from now on matrices are decayed so."""
        self.optimizer.state.clear()
        self.optimizer.param_groups[0]["weight_decay"] = weight_decay

    def deviations(self, context: Any, rows: Trajectories, seeds: Tensor, *, times: Sequence[float] = (), repeats: int = 1) -> Tensor:
        """The field's squared error at every masked token, a mean over layers and repeats: ``[B, T, K]``, 0 at tokens without a partner.

        Args:
            context: of the learner; the latents are those of the policy as it is now.
            rows: ``[B, T]``.
            seeds: int64 ``[B]``, of each row's noise.
            times: K of them; empty draws one for every token.
            repeats: draws of noise for every token.
        """
        moves, passes = torch.is_grad_enabled(), max(1, len(times)) * repeats
        context.count_flops(TRAIN * (passes - 1) if moves else FORWARD * passes, rows, self.name)  # a step counts one pass itself
        size = len(rows) if moves else max(1, AT_ONCE // rows.shape[1])
        places = range(0, len(rows), size)
        parts = [(rows[place : place + size], seeds[place : place + size]) for place in places]
        return torch.cat([self._deviations(context, *part, times, repeats) for part in parts])

    def _deviations(self, context: Any, rows: Trajectories, seeds: Tensor, times: Sequence[float], repeats: int) -> Tensor:
        chosen = rows.mask & partners(rows.attention, self.options.pairing)
        found = torch.zeros(*rows.shape, max(1, len(times)), device=rows.mask.device)
        if not bool(chosen.any()):
            return found
        target, condition = self.pairs(context, rows, chosen)
        noise, drawn = self.chance(chosen, seeds, repeats, target)
        target, condition = (each[:, None].expand_as(noise).flatten(0, 2) for each in (target, condition))
        depth = self.depths.expand(noise.shape[:-1]).flatten()

        def velocity(x: Tensor, t: Tensor) -> Tensor:
            moved: Tensor = self.network(x, t, condition, depth)
            return moved

        at = [torch.full_like(depth, time) for time in times] or [drawn.flatten()]
        flat = noise.flatten(0, 2)
        errors = torch.stack([deviation(velocity, target, flat, time) for time in at], -1)
        return found.masked_scatter(chosen[..., None], errors.view(len(noise), -1, len(at)).mean(1))

    def pairs(self, context: Any, rows: Trajectories, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Latents ``[n, L, D]`` of the chosen tokens ``[B, T]``, and those of their partners."""
        beside = neighbours(chosen, self.options.pairing)
        needed = chosen | beside
        latents = context.read_latents(rows, needed, self.layers, self.read)
        return latents[chosen[needed]], latents[beside[needed]]

    def chance(self, chosen: Tensor, seeds: Tensor, repeats: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Noise ``[n, R, L, D]`` and times ``[n, R, L]`` of the chosen tokens, row by row from the rows' seeds."""
        noise, times = [], []
        for seed, count in zip(seeds.tolist(), chosen.sum(1).tolist(), strict=True):
            draw = torch.Generator().manual_seed(seed)
            noise.append(torch.randn(count, repeats, *like.shape[1:], generator=draw))
            times.append(logistic_normal((count, repeats, like.shape[1]), draw))
        return torch.cat(noise).to(like.device), torch.cat(times).to(like.device)


@dataclass(frozen=True)
class FlowUpdate:
    """Gradient steps of the field on the right completions of the batch (rejection sampling)."""

    learning_rate: float = option(1e-4, short="flow_learning_rate", at_least=0)
    """Adam step size of the flow field while the policy trains."""
    passes: int = option(1, short="flow_passes", at_least=0)
    """Passes of the field over the right completions of a batch; 0 leaves it as the expert rows taught it."""
    right: float = option(1.0, short="right_at_least")
    """Smallest reward of a completion that teaches the field."""
    entropy_share: float = option(1.0, short="flow_entropy_share", above=0, at_most=1)
    """Share of the right completions' tokens that teach the field, those of the largest entropy."""
    max_grad_norm: float = option(1.0, short="flow_max_grad_norm", above=0)
    """Global gradient norm limit of the field."""
    times: tuple[float, ...] = (0.8,)
    pairing: Pairing = "token-post"
    minibatches: int = 1
    """Gradient steps of a pass."""
    micro_batch_rows: int = 0
    """Rows per forward and backward pass; 0 takes them all. The result does not depend on it."""
    model: ClassVar[str] = "flow"
    reads: ClassVar[Sequence[str]] = ("flow_seed",)

    @property
    def needs_old_logp(self) -> bool:
        """Whether the entropies at the start of the update are needed."""
        return self.entropy_share < 1

    @property
    def models(self) -> Sequence[str]:
        """Models that it evaluates."""
        return (self.model, "policy")

    @property
    def terms(self) -> tuple[Weighted, ...]:
        """What it descends."""
        return (Weighted(FlowMatching(Tokens(Aggregate("sequence-mean")), self.times), name="flow"),)

    @property
    def update(self) -> Update:
        """The loop over gradient steps of one pass."""
        return Update(
            minibatches=self.minibatches,
            micro_batch_rows=self.micro_batch_rows,
            learning_rate=self.learning_rate,
            max_grad_norm=self.max_grad_norm,
            terms=self.terms,
            model=self.model,
        )

    def trained(self, options: FlowOptions) -> FlowModel:
        """The model that this moves."""
        return FlowModel(options, self.learning_rate, self.max_grad_norm)

    def lessons(self, batch: Batch) -> Batch:
        """The right completions, and of their tokens with a partner those of the largest entropy."""
        found = paired(batch[(row_reward(batch) >= self.right).nonzero().flatten()], self.pairing)
        rows = found.rows
        if self.entropy_share < 1 and rows.count():
            order = torch.where(rows.mask, rows.entropy, -torch.inf).flatten().argsort(descending=True, stable=True)
            kept = order[: max(1, round(self.entropy_share * rows.count()))]
            rows.mask = torch.zeros_like(rows.mask).flatten().index_fill(0, kept, True).view(rows.shape)
        return found[usable_rows(found)]

    def improve(self, context: Any, batch: Batch) -> Metrics:
        """Move the field; nothing moves where no completion is right.

        Raises:
            NonFinite: a loss or the gradient is not finite; carries the batch.
        """
        lessons = self.lessons(batch)
        metrics: Metrics = {"flow/right_rows": float(len(lessons))}
        for number in range(1, self.passes + 1 if len(lessons) else 1):
            seeds = {"flow_seed": lessons.columns["flow_seed"] + number}
            metrics |= told(self.update.improve(context, replace(lessons, columns=lessons.columns | seeds)))
        return metrics


def paired(batch: Batch, pairing: Pairing) -> Batch:
    """A batch of rows of its own whose tokens all have a partner."""
    batch.rows.mask = batch.rows.mask & partners(batch.rows.attention, pairing)
    return batch


def told(found: Metrics) -> Metrics:
    """What the log says of the field's gradient steps."""
    names = {"flow_loss": "loss", "meter/gradient_norm": "gradient_norm"}
    return {f"flow/{names[name]}": value for name, value in found.items() if name in names}


class FlowLessons:
    """Teaches the field from an expert's rows before the first update of anything; the policy stays as it is (a retainer).

    Args:
        options: how.
        update: of the field while the policy trains, whose settings but the step size are taken over.
    """

    def __init__(self, options: LessonOptions, update: FlowUpdate) -> None:
        self.options, self.update = options, update
        self.stream: ExpertStream | None = None
        self.done = False

    uses_experts = True
    beside_the_loss = True
    keeps_units = True
    models = ("flow",)

    def bind(self, context: Any) -> None:
        """Begin the stream of expert rows.

        Raises:
            RheostatError: there is no expert, or the file has too few rows.
        """
        self.stream = ExpertStream(context.setup, context.streams.seed)
        experts, wanted = context.setup.experts, self.options.rows
        if experts is not None and len(experts) < wanted:
            raise RheostatError(
                f"The flow field learns from {wanted} expert rows per gradient step, and {experts.name} has {len(experts)}: add rows, "
                "lower offline_rows, or leave the expert out with offline_steps 0."
            )
        try:
            ExpertStream(context.setup, context.streams.seed).take(1)
        except RheostatError as error:
            raise RheostatError(
                f"The flow field cannot learn from an expert: {str(error).rstrip('.')}. Give rows with --experts, or set offline_steps 0."
            ) from error

    def describe(self) -> dict[str, int | str]:
        """Derived numbers, for printing."""
        return {"expert rows for the flow field": self.options.steps * self.options.rows}

    def retain(self, context: Any, batch: Batch) -> Batch:
        """The batch as it is, after the lessons."""
        if not self.done:
            batch.metrics |= self.teach(context)
            self.done = True
        return batch

    def teach(self, context: Any) -> Metrics:
        """All gradient steps on expert rows; returns the mean loss of the last tenth."""
        assert self.stream is not None
        model, losses = context.models["flow"], []
        model.restart(self.options.weight_decay)
        for update in self.options.updates(self.update):
            rows = self.stream.take(self.options.rows)
            lesson = Batch(rows, {"flow_seed": flow_seeds(context, len(rows))})
            found = told(update.improve(context, paired(lesson, self.update.pairing)))
            losses += [found["flow/loss"]] if found else []
        model.restart()
        last = losses[-max(1, len(losses) // 10) :]
        return {"flow/offline_loss": sum(last) / len(last)} if last else {}

    def state_dict(self) -> dict[str, Any]:
        """The cursor of the stream, and whether all is over."""
        assert self.stream is not None
        return {"stream": self.stream.state_dict(), "done": self.done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a saved state."""
        assert self.stream is not None
        self.stream.load_state_dict(state["stream"])
        self.done = state["done"]


@dataclass(frozen=True)
class LessonOptions:
    """What the field learns from an expert before the policy trains."""

    steps: int = option(100, short="offline_steps", at_least=0)
    """Gradient steps of the field on an expert's rows before the first update; 0 has no expert."""
    rows: int = option(64, short="offline_rows", at_least=1)
    """Expert rows per gradient step."""
    repeats: int = option(4, short="offline_repeats", at_least=1)
    """Draws of noise and time for every token of an expert (the authors: 2 for 7B models)."""
    learning_rate: float = option(1e-4, short="offline_learning_rate", at_least=0)
    """AdamW step size on expert rows: it rises over a tenth of the steps, and falls to 0 by half a cosine."""
    weight_decay: float = option(0.01, short="offline_weight_decay", at_least=0)
    """AdamW weight decay of the field on expert rows."""

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        names = ("rows", "repeats", "learning_rate", "weight_decay")
        return {} if self.steps else dict.fromkeys(names, "offline_steps is 0, so the field learns from no expert; leave it alone")

    def updates(self, online: FlowUpdate) -> Iterator[Update]:
        """One gradient step after the other, each with its step size."""
        term = Weighted(FlowMatching(Tokens(Aggregate("token-mean")), repeats=self.repeats), name="flow")
        for step in range(self.steps):
            rate = self.learning_rate * warm_cosine(step, self.steps)
            yield replace(online.update, learning_rate=rate, minibatches=1, terms=(term,))


def warm_cosine(step: int, steps: int, warmup: float = 0.1) -> float:
    """Of a step size: up by a line over a share of the steps, then down to 0 by half a cosine."""
    warm = max(1, round(warmup * steps))
    if step < warm:
        return (step + 1) / warm
    return DECAYS["cosine"]((step - warm) / max(1, steps - warm))
