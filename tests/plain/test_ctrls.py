"""CTRLS against loops: what a transition policy reads, the gradients of one update and of one lesson on the bound, by the raw model."""

from __future__ import annotations

import copy
import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from rheostat.learner.latent_training import Steps, fit_of
from rheostat.objectives import dirichlet
from rheostat.objectives.state_likelihood import step_bound
from tests.learners import credited
from tests.methods.test_ctrls import OPTIONS, gradient_of
from tests.methods.test_language_methods import built, save


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("model"))


def embedded(causal: Any, ids: list[int], count: int) -> Tensor:
    """The leading eigenvectors of one step's Gram matrix, one after another."""
    table = causal.get_input_embeddings().weight
    gram = sum(torch.outer(table[token], table[token]) for token in ids)
    assert isinstance(gram, Tensor)
    values, vectors = torch.linalg.eigh(gram)
    rows = []
    for place in range(count):
        value, vector = values[-1 - place].clamp(min=0), vectors[:, -1 - place]
        vector = vector if vector[vector.abs().argmax()] > 0 else -vector
        rows.append(value.sqrt() * vector if place < len(ids) else torch.zeros_like(vector))
    return torch.cat(rows)


def read(one: Any, text: list[int], state: int, step: list[int] | None) -> Tensor:
    """What the transition policy reads, float64."""
    causal, states = copy.deepcopy(one.policy.causal).double(), one.context.models["states"].network
    with torch.no_grad():
        summary = causal.model(input_ids=torch.tensor([text])).last_hidden_state[0, -1]
        scaled = torch.zeros(3 * len(summary)).double() if step is None else embedded(causal, step, 3) / states.scale.double()
    chosen = torch.zeros(states.count).double()
    if state >= 0:
        chosen[state] = 1.0
    return torch.cat([summary, chosen, scaled])


def concentrations(network: Any, inputs: Tensor) -> Tensor:
    """Of one step, by the weights of the policy (float64)."""
    summary, rest = inputs[: network.summary], inputs[network.summary :]
    centred = summary - summary.mean()
    summary = centred / (centred.square().mean() + 1e-5).sqrt()
    inner, outer = network.network[0], network.network[2]
    hidden = inner.weight @ torch.cat([summary, rest]) + inner.bias
    scores = outer.weight @ (hidden * hidden.sigmoid()) + outer.bias
    return torch.log1p(scores.exp()) + 0.1


def density(alpha: Tensor, action: Tensor, epsilon: float) -> Tensor:
    """Of one action."""
    own = torch.lgamma(alpha.sum()) - torch.lgamma(alpha).sum() + ((alpha - 1) * action.log()).sum()
    return own if not epsilon else ((1 - epsilon) * own.exp() + epsilon * math.gamma(len(alpha))).log()


def spread(alpha: Tensor) -> Tensor:
    """Entropy of one Dirichlet."""
    total, k = alpha.sum(), len(alpha)
    norm = torch.lgamma(alpha).sum() - torch.lgamma(total)
    return norm + (total - k) * torch.digamma(total) - ((alpha - 1) * torch.digamma(alpha)).sum()


def plain_update(one: Any, batch: Any, epsilon: float, bonus: float) -> Tensor:
    """The gradient of one update, step by step."""
    network = copy.deepcopy(one.context.models["transition"].network).double()
    rows, columns = batch.rows, batch.columns
    groups: dict[int, list[float]] = {}
    for row in range(len(batch)):
        groups.setdefault(int(rows.group[row, 0]), []).append(float(rows.reward[row].sum()))
    total, count = torch.zeros(()).double(), 0
    for row in range(len(batch)):
        mine = groups[int(rows.group[row, 0])]
        worth = float(rows.reward[row].sum()) - sum(mine) / len(mine)
        for step in columns["latent_steps"][row].nonzero().flatten().tolist():
            alpha = concentrations(network, columns["latent_input"][row, step].double())
            total = total - worth * density(alpha, columns["latent_action"][row, step].double(), epsilon) - bonus * spread(alpha)
            count += 1
    return torch.cat([each.flatten() for each in torch.autograd.grad(total / count, list(network.parameters()))])


def real_update(one: Any, batch: Any) -> Tensor:
    """The gradient that the real update leaves."""
    (update,) = one.composition.improve
    one.improve(batch)
    assert update.max_grad_norm == 1e6
    return gradient_of(one.context.models["transition"].parameters).double()


def test_one_update_is_the_plain_one(model: str) -> None:
    one = built("ctrls", model, **OPTIONS | {"max_grad_norm": 1e6, "entropy_coefficient": 0.05, "micro_batch_rows": 3, "steps": 10})
    batch = credited(one)
    expected = plain_update(one, batch, 0.2, 0.05)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(real_update(one, batch), expected, atol=1e-5, rtol=1e-4)


WRONG = {
    "the density of the mixture": ("mixture_logp", lambda alpha, action, epsilon: dirichlet.dirichlet_logp(alpha, action)),
    "the entropy of the mean": ("dirichlet_entropy", lambda alpha: -torch.xlogy(p := alpha / alpha.sum(-1, keepdim=True), p).sum(-1)),
    "steps of padding": ("steps_of", lambda batch: torch.ones_like(batch.columns["latent_steps"])),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_equation_leaves_the_plain_update(name: str, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = built("ctrls", model, **OPTIONS | {"max_grad_norm": 1e6, "entropy_coefficient": 0.05, "steps": 10})
    batch = credited(one)
    expected = plain_update(one, batch, 0.2, 0.05)
    place, wrong = WRONG[name]
    monkeypatch.setattr(f"rheostat.objectives.dirichlet.{place}", wrong)
    assert (real_update(one, batch) - expected).abs().max() > 1e-4


def test_what_the_policy_reads_is_what_the_raw_model_gives(model: str) -> None:
    one = built("ctrls", model, **OPTIONS)
    batch = one.collect()
    rows, columns = batch.rows, batch.columns
    tokenizer, several = one.policy.tokenizer, 0
    for row in range(len(batch)):
        prompt = rows.action[row][rows.attention[row] & ~rows.mask[row]].tolist()
        ids, text, last = rows.action[row][rows.mask[row]].tolist(), list(prompt), None
        state, now = -1, list[int]()
        for step in columns["latent_steps"][row].nonzero().flatten().tolist():
            torch.testing.assert_close(columns["latent_input"][row, step].double(), read(one, text, state, last), atol=2e-4, rtol=1e-3)
            now = []
            while ids:
                now.append(ids.pop(0))
                if "+" in tokenizer.decode(now):
                    break
            state, last, text = int(columns["latent_state"][row, step]), now, text + now
            several += step > 0
        assert not ids
    assert several > 3


def chains(one: Any) -> list[Steps]:
    """Two chains of three and of two steps."""
    encode = one.policy.tokenizer.get_vocab()
    texts = [("1+2=", ["3+", "4#+", "5"]), ("7+8=", ["15+", "=2"])]
    return [Steps([encode[c] for c in prompt], [[encode[c] for c in step] for step in steps]) for prompt, steps in texts]


def plain_fit(one: Any) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """The mean bound of the steps by enumeration of the states, with gradients; and each chain's exact log-likelihood beside its bound."""
    causal = copy.deepcopy(one.policy.causal).double()
    states = copy.deepcopy(one.context.models["states"].network).double()
    network = copy.deepcopy(one.context.models["transition"].network).double()
    table, k = causal.get_input_embeddings().weight, states.count
    total, count, pairs = torch.zeros(()).double(), 0, []
    for chain in chains(one):
        text, last, before = list(chain.prompt), None, None
        loglik, priors, posteriors = [], [], []
        for step in chain.steps:
            likely = []
            for state in range(k):
                given = torch.cat([table[text], states.vectors[state : state + 1], table[step]])
                logits = causal(inputs_embeds=given[None]).logits[0].log_softmax(-1)
                likely.append(sum(logits[len(text) + place, token] for place, token in enumerate(step)))
            loglik.append(torch.stack(likely))
            known = [-1] if last is None else list(range(k))
            alphas = [concentrations(network, read(one, text, state, last)) for state in known]
            priors.append(torch.stack([alpha / alpha.sum() for alpha in alphas]))
            mine = embedded(causal.requires_grad_(False), step, 3) / states.scale
            posteriors.append(states.encoder(mine).softmax(-1))
            text, last = text + step, step
        bound = torch.zeros(()).double()
        for q, prior, seen in zip(posteriors, priors, loglik, strict=True):
            weights = torch.ones(1).double() if before is None else before
            kl = sum(weights[j] * (q * (q.log() - prior[j].log())).sum() for j in range(len(prior)))
            bound, before = bound + (q * seen).sum() - kl, q
        paths = []
        for path in itertools.product(range(k), repeat=len(chain.steps)):
            log = torch.zeros(()).double()
            for step, state in enumerate(path):
                log = log + priors[step][path[step - 1] if step else 0, state].log() + loglik[step][state]
            paths.append(log)
        pairs.append((torch.logsumexp(torch.stack(paths), 0), bound))
        total, count = total + bound, count + len(chain.steps)
    mean = total / count
    gradients = torch.autograd.grad(mean, [*states.parameters(), *network.parameters()])
    return torch.cat([each.flatten() for each in gradients]), [(a.detach(), b.detach()) for a, b in pairs]


def test_a_lesson_climbs_the_plain_bound_which_is_below_the_likelihood(model: str) -> None:
    one = built("ctrls", model, **OPTIONS)
    one.policy.share = "beginnings"
    states, transition = one.context.models["states"], one.context.models["transition"]
    fit = fit_of(one.context, chains(one), one.composition.collect.rules)
    bound = step_bound(fit.posterior.exp(), fit.prior, fit.loglik, before=fit.before)
    for each in (states, transition):
        each.optimizer.zero_grad(set_to_none=True)
    bound.elbo.mean().backward()
    found = torch.cat([gradient_of(states.parameters), gradient_of(transition.parameters)]).double()
    expected, pairs = plain_fit(one)
    assert expected.abs().max() > 1e-2
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-3)
    counts = [len(chain.steps) for chain in chains(one)]
    for (exact, plain), mine in zip(pairs, bound.elbo.detach().double().split(counts), strict=True):
        torch.testing.assert_close(mine.sum(), plain, atol=1e-4, rtol=1e-5)
        assert mine.sum() < exact
