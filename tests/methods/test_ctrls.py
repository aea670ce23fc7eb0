"""CTRLS: steps and their embeddings, the densities, the bound, who acts and what moves, exact resume, and bad input."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from torch import Tensor

import rheostat
from rheostat.cli.entry import main
from rheostat.collect.language.latent_chains import drawn_action, split_steps
from rheostat.errors import RheostatError
from rheostat.experiments.language_runs import evaluate_language
from rheostat.learner.latent_training import TransitionUpdate, discover
from rheostat.objectives.dirichlet import dirichlet_entropy, dirichlet_logp, mixture_logp, on_the_simplex
from rheostat.objectives.state_likelihood import state_gap, step_bound
from rheostat.policies.language.latent_states import LEAST, TransitionPolicy, uncertainties
from rheostat.policies.language.model import LanguagePolicy
from rheostat.policies.language.soft_prefix import install
from rheostat.policies.language.spectral import spectral_embedding
from rheostat.tasks.language import character_tokenizer
from rheostat.training.run import Interrupted, Run
from tests import tiny_language as tiny
from tests.crash import differences
from tests.learners import credited, weights
from tests.methods.test_language_methods import Hopeless, Lenient, Sulking, built, save, small
from tests.training.test_run import StopAfter

OPTIONS: dict[str, Any] = {
    "max_new_tokens": 24, "step_separator": "+", "states": 3, "lesson_prompts": 8, "lesson_samples": 4, "encoder_steps": 10,
    "offline_steps": 2, "offline_chains": 2, "latent_width": 16, "learning_rate": 1e-2,
}  # fmt: skip
SEEDS = st.integers(0, 2**16)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("model"))


def gradient_of(parameters: list[Tensor]) -> Tensor:
    return torch.cat([torch.zeros_like(each).flatten() if each.grad is None else each.grad.flatten().clone() for each in parameters])


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- embeddings of steps -----------------------------------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(SEEDS, st.integers(1, 6), st.integers(1, 5), st.integers(1, 7))
def test_an_embedding_is_made_of_the_leading_eigenpairs(seed: int, tokens: int, width: int, count: int) -> None:
    step = drawn(seed, tokens, width)
    (found,) = spectral_embedding(step[None], torch.tensor([tokens]), count)
    values, vectors = torch.linalg.eigh(step.T @ step)
    kept = range(max(0, width - count), width)
    best = sum((values[i] * torch.outer(vectors[:, i], vectors[:, i]) for i in kept), torch.zeros(width, width))
    torch.testing.assert_close(found.T @ found, best, atol=1e-9, rtol=1e-9)
    assert not bool(found[min(tokens, width) :].any())
    largest = found.gather(-1, found.abs().argmax(-1, keepdim=True))
    assert bool((largest >= 0).all())


@settings(max_examples=30)
@given(SEEDS, st.integers(2, 6))
def test_neither_order_nor_padding_nor_neighbours_matter(seed: int, tokens: int) -> None:
    step, count = drawn(seed, tokens, 4), torch.tensor([tokens])
    (alone,) = spectral_embedding(step[None], count, 3)
    (turned,) = spectral_embedding(step.flip(0)[None], count, 3)
    torch.testing.assert_close(turned, alone, atol=1e-7, rtol=1e-7)
    beside = torch.full((2, tokens + 2, 4), torch.nan).double()
    beside[0, :tokens], beside[1, :1] = step, 1.0
    padded = spectral_embedding(beside, torch.tensor([tokens, 1]), 3)
    torch.testing.assert_close(padded[0], alone, atol=1e-7, rtol=1e-7)
    assert torch.allclose(padded[1, 0], torch.ones(4).double()) and not bool(padded[1, 1:].any())
    (divided,) = spectral_embedding(step[None], count, 3, normalise=True)
    torch.testing.assert_close(divided * tokens**0.5, alone)


@settings(max_examples=30)
@given(st.lists(st.sampled_from("12;"), max_size=12))
def test_steps_are_the_tokens_and_all_but_the_last_end_with_the_separator(letters: list[str]) -> None:
    tokenizer = character_tokenizer()
    ids = [tokenizer.get_vocab()[letter] for letter in letters]
    steps = split_steps(ids, tokenizer, ";")
    assert list(itertools.chain(*steps)) == ids and all(steps)
    texts = [tokenizer.decode(step) for step in steps]
    assert all(text.endswith(";") and text.count(";") == 1 for text in texts[:-1])


def test_clusters_that_lie_apart_are_found() -> None:
    centres = 10 * drawn(0, 4, 2, 3)
    labels = torch.arange(40) % 4
    found = discover(centres[labels] + 0.1 * drawn(1, 40, 2, 3), 4, seed=0)
    assert len({(int(a), int(b)) for a, b in zip(labels, found, strict=True)}) == 4
    with pytest.raises(RheostatError, match="have 4 different steps, and k-means cannot find 5 states in them: lower states"):
        discover(centres[labels], 5, seed=0)


# --- densities ---------------------------------------------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(SEEDS, st.floats(0, 0.95))
def test_the_density_is_a_mixture(seed: int, epsilon: float) -> None:
    alpha, action = drawn(seed, 5, 4).exp() + LEAST, on_the_simplex(drawn(seed + 1, 5, 4).exp())
    share = torch.full((5,), epsilon).double()
    exact = (1 - share) * dirichlet_logp(alpha, action).exp() + share * 6.0  # the uniform density of 4 entries is 3!
    torch.testing.assert_close(mixture_logp(alpha, action, share).exp(), exact)


@pytest.mark.parametrize("epsilon", [0.0, 0.2])
def test_the_score_of_the_behaviour_has_no_mean(epsilon: float) -> None:
    """The gradient of the log-density, weighted by the density and integrated over all actions, is 0: the policy gradient is unbiased."""
    share = torch.tensor(epsilon).double()

    def weighted(x: float, of: int) -> float:
        alpha = torch.tensor([1.5, 2.5]).double().requires_grad_()
        logp = mixture_logp(alpha, torch.tensor([x, 1 - x]).double(), share)
        (gradient,) = torch.autograd.grad(logp, alpha)
        return float(gradient[of] * logp.detach().exp())

    for of in range(2):
        assert abs(quad(weighted, 0, 1, args=(of,), limit=200)[0]) < 1e-6


def test_without_exploration_no_gradient_is_nan_and_far_explored_actions_have_nearly_none() -> None:
    alpha = torch.tensor([[60.0, 1.0, 1.0]]).double().requires_grad_()
    action = on_the_simplex(torch.tensor([[0.0, 0.5, 0.5]]).double())
    sizes = []
    for epsilon in (0.0, 0.2):
        (gradient,) = torch.autograd.grad(mixture_logp(alpha, action, torch.tensor([epsilon])).sum(), alpha)
        sizes.append(float(gradient.abs().max()))
    assert sizes[0] > 10 and sizes[1] < 1e-12


@settings(max_examples=30)
@given(SEEDS)
def test_the_entropy_is_largest_where_all_concentrations_are_one(seed: int) -> None:
    alpha = drawn(seed, 6, 3).exp() + LEAST
    assert bool((dirichlet_entropy(alpha) <= dirichlet_entropy(torch.ones(3).double()) + 1e-9).all())


@settings(max_examples=30)
@given(SEEDS)
def test_actions_lie_on_the_simplex_and_are_the_steps_own(seed: int) -> None:
    alpha = drawn(seed, 4).exp().float() + LEAST
    action, state = drawn_action(seed, 2, alpha, 0.5)
    assert bool((action > 0).all()) and abs(float(action.sum()) - 1) < 1e-5 and 0 <= state < 4
    again, same = drawn_action(seed, 2, alpha, 0.5)
    assert torch.equal(again, action) and same == state
    assert not torch.equal(drawn_action(seed, 3, alpha, 0.5)[0], action)


def test_actions_are_drawn_from_their_dirichlet_or_uniformly() -> None:
    alpha = torch.tensor([4.0, 1.0, 1.0])
    for epsilon, mean in ((0.0, 4 / 6), (0.5, 0.5 * 4 / 6 + 0.5 / 3)):
        found = torch.stack([drawn_action(number, 0, alpha, epsilon)[0] for number in range(1500)])
        assert abs(float(found[:, 0].mean()) - mean) < 0.025
    states = [drawn_action(number, 0, alpha, 0.0)[1] for number in range(1500)]
    assert abs(states.count(0) / 1500 - 4 / 6) < 0.04


def test_the_read_outs() -> None:
    sure, spread = uncertainties(torch.tensor([[2.0, 2.0], [30.0, 0.1]]))
    assert sure.tolist() == pytest.approx([4.0, 30.1]) and float(spread[0]) == pytest.approx(np.log(2))
    assert float(spread[1]) < 0.03


# --- the bound ---------------------------------------------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(SEEDS, st.integers(2, 3), st.integers(1, 4))
def test_the_bound_is_never_above_the_log_likelihood(seed: int, states: int, steps: int) -> None:
    """Of a chain of states, by enumeration of all of them."""
    q = drawn(seed, steps, states).softmax(-1)
    prior, loglik = drawn(seed + 1, steps, states, states).log_softmax(-1), 3 * drawn(seed + 2, steps, states)
    prior[0] = prior[0, :1]
    before = torch.cat([torch.full((1, states), 1 / states).double(), q[:-1]])
    paths = []
    for path in itertools.product(range(states), repeat=steps):
        paths.append(sum(prior[t, path[t - 1] if t else 0, z] + loglik[t, z] for t, z in enumerate(path)))
    exact = torch.logsumexp(torch.stack(paths), 0)  # type: ignore[arg-type]
    bound = step_bound(q, prior, loglik, before=before)
    assert bool((bound.kl >= -1e-12).all()) and float(bound.elbo.sum()) <= float(exact) + 1e-9
    if steps == 1:  # it is tight at the true posterior
        tight = step_bound((prior[:, 0] + loglik).softmax(-1), prior[:, 0], loglik)
        assert float(tight.elbo.sum()) == pytest.approx(float(exact))


@settings(max_examples=30)
@given(SEEDS, st.integers(2, 4))
def test_the_gap_is_what_a_shuffle_costs(seed: int, steps: int) -> None:
    q, loglik = drawn(seed, steps, 3).softmax(-1), drawn(seed + 1, steps, 3)
    own = (q * loglik).sum(-1).mean()
    shuffled = torch.stack([(q[list(order)] * loglik).sum(-1).mean() for order in itertools.permutations(range(steps))]).mean()
    torch.testing.assert_close(state_gap(q, loglik), own - shuffled)
    ignored = loglik[:, :1].expand(-1, 3)
    assert abs(float(state_gap(q, ignored))) < 1e-12


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(RheostatError, match="do not fit states"):
        step_bound(torch.ones(2, 3) / 3, torch.zeros(2, 3, 3), torch.zeros(2, 3))


# --- soft prefixes -----------------------------------------------------------------------------------------------------------------------


def test_a_prefix_is_read_as_its_vector_and_changes_nothing_else() -> None:
    causal = tiny.model()
    policy = LanguagePolicy(causal)
    ids = torch.tensor([[3, 4, 5, 6]])
    every = torch.ones_like(ids, dtype=torch.bool)
    mask = torch.tensor([[False, True, True, True]])
    plain = policy.score(ids, every, mask).logp
    vectors = torch.nn.Parameter(torch.randn(2, causal.config.hidden_size, generator=torch.Generator().manual_seed(0)))
    first = install(policy, vectors)
    assert torch.equal(policy.score(ids, every, mask).logp, plain) and first == policy.vocabulary == policy.readable - 2
    assert causal.get_output_embeddings().weight.shape[0] == policy.vocabulary
    row, where = torch.tensor([[3, first + 1, 5, 6]]), torch.tensor([[False, False, True, True]])
    found = policy.score(row, every, where).logp
    table = causal.get_input_embeddings().weight
    given = torch.cat([table[3:4], vectors[1:], table[5:7]])[None]
    logits = causal(inputs_embeds=given).logits[0].log_softmax(-1)
    torch.testing.assert_close(found[0, 2:], torch.stack([logits[1, 5], logits[2, 6]]), atol=1e-5, rtol=1e-5)
    found.sum().backward()
    assert vectors.grad is not None and bool(vectors.grad[1].any()) and not bool(vectors.grad[0].any())


# --- who acts, and what moves ------------------------------------------------------------------------------------------------------------


def states_of(one: Any) -> Any:
    return one.context.models["states"].network


def test_lessons_come_once_and_afterwards_only_transitions_move(model: str) -> None:
    one = built("ctrls", model, **OPTIONS | {"adapt_learning_rate": 1e-3, "steps": 3})
    context = one.context
    start = weights(one.policy)
    metrics = one.turn()
    assert bool(states_of(one).ready) and (weights(one.policy) - start).abs().max() > 1e-4
    assert metrics["latent/right_chains"] > 4 and metrics["latent/exploration"] == pytest.approx(0.2) and context.updates == 1
    frozen = weights(one.policy), weights(states_of(one))
    before = weights(context.models["transition"].network)
    again = one.turn()
    assert torch.equal(weights(one.policy), frozen[0]) and torch.equal(weights(states_of(one)), frozen[1])
    assert (weights(context.models["transition"].network) - before).abs().max() > 1e-4
    assert "latent/elbo" not in again and again["latent/exploration"] == pytest.approx(0.2 * 2 / 3) and context.updates == 2


def test_an_encoder_that_is_held_stays_as_the_clusters_taught_it(model: str) -> None:
    encoders = []
    for held, steps in ((1.0, 1), (1.0, 3), (0.5, 3)):
        one = built("ctrls", model, **OPTIONS | {"encoder_held": held, "offline_steps": steps, "offline_learning_rate": 1e-2})
        one.turn()
        encoders.append(weights(states_of(one).encoder))
    assert torch.equal(encoders[0], encoders[1]) and (encoders[2] - encoders[0]).abs().max() > 1e-4


def test_adapters_learn_the_lessons_in_the_place_of_the_model(model: str) -> None:
    pytest.importorskip("peft")
    one = built("ctrls", model, **OPTIONS | {"adapter_rank": 2, "adapt_learning_rate": 1e-2})
    named = dict(one.policy.named_parameters())
    start = {name: value.detach().clone() for name, value in named.items()}
    one.turn()
    moved = {name for name, value in named.items() if not torch.equal(value, start[name])}
    assert moved and all("lora_" in name for name in moved)


def test_a_model_that_is_not_adapted_stays_as_it_is(model: str) -> None:
    one = built("ctrls", model, **OPTIONS | {"adapt_learning_rate": 0.0})
    start, vectors = weights(one.policy), states_of(one).vectors.detach().clone()
    one.turn()
    assert torch.equal(weights(one.policy), start) and (states_of(one).vectors - vectors).abs().max() > 1e-4


def test_tokens_have_the_probability_that_they_have_behind_their_state(model: str) -> None:
    """Each step is scored behind the plain tokens of the steps before and its own state's vector."""
    one = built("ctrls", model, **OPTIONS)
    batch = one.collect()
    rows, first = batch.rows, one.context.models["states"].first_prefix
    seen = 0
    for row in range(len(batch)):
        prompt = rows.action[row][rows.attention[row] & ~rows.mask[row]].tolist()
        ids, logp = rows.action[row][rows.mask[row]].tolist(), rows.sampler_logp[row][rows.mask[row]]
        steps = split_steps(ids, one.policy.tokenizer, "+")
        states = batch.columns["latent_state"][row].tolist()
        assert len(steps) == int(batch.columns["latent_steps"][row].sum()) and all(state == -1 for state in states[len(steps) :])
        done = 0
        for step, state in zip(steps, states, strict=False):
            text = torch.tensor([[*prompt, *ids[:done], first + state, *step]])
            every = torch.ones_like(text, dtype=torch.bool)
            mask = torch.arange(text.shape[1])[None] >= text.shape[1] - len(step)
            with torch.no_grad():
                found = one.policy.score(text, every, mask).logp[mask]
            torch.testing.assert_close(found, logp[done : done + len(step)], atol=1e-4, rtol=1e-4)
            done, seen = done + len(step), seen + 1
    assert seen > len(batch) and bool((rows.sampler_logp[rows.mask] < 0).all())


def test_a_chain_does_not_depend_on_its_neighbours_and_only_training_explores(model: str) -> None:
    one = built("ctrls", model, **OPTIONS | {"exploration": 0.9})
    one.turn()
    context = one.context
    drawn_prompts = context.setup.encoder.take(context.setup.task.prompts("train", 5), 3)

    def sample(some: list[Any], numbers: list[int], purpose: str) -> Any:
        return context.collector.sample(some, 2, context.sampling, numbers=numbers, purpose=purpose, version=7)

    whole, alone = sample(drawn_prompts, [0, 1, 2], "train"), sample(drawn_prompts[1:2], [1], "train")
    assert whole.completions[2:4] == alone.completions
    found = alone.columns["latent_action"]
    torch.testing.assert_close(whole.columns["latent_action"][2:4, : found.shape[1]], found, atol=1e-4, rtol=1e-3)
    assert float(whole.columns["exploration"][0]) > 0 and not bool(sample(drawn_prompts, [0, 1, 2], "look").columns["exploration"].any())


def test_a_permuted_state_is_a_control(model: str) -> None:
    one = built("ctrls", model, **OPTIONS | {"permute_states": True})
    one.turn()
    collector = one.context.collector
    from rheostat.collect.language.latent_chains import Chain

    read = {collector.read_state(Chain([1], stream, states=[0]), 0) for stream in range(40)}
    assert read == {0, 1, 2}


def test_equal_rewards_leave_the_entropy_alone(model: str) -> None:
    one = built("ctrls", model, **OPTIONS)
    batch = credited(one)
    batch.rows.advantage = torch.zeros_like(batch.rows.advantage)
    transition, found = one.context.models["transition"], []
    for bonus in (0.0, 0.5):
        update = TransitionUpdate(entropy_coefficient=bonus, learning_rate=0.0, max_grad_norm=1e6)
        update.improve(one.context, batch)
        found.append(float(gradient_of(transition.parameters).abs().max()))
    assert found[0] == 0 and found[1] > 1e-3


def test_micro_batches_change_nothing(model: str) -> None:
    ends = []
    for rows in (0, 1, 3):
        one = built("ctrls", model, micro_batch_rows=rows, **OPTIONS)
        batch = credited(one)
        transition = one.context.models["transition"]
        transition.optimizer = torch.optim.SGD(transition.network.parameters(), lr=1.0)
        one.improve(batch)
        ends.append(weights(transition.network))
    for other in ends[1:]:
        torch.testing.assert_close(other, ends[0], atol=1e-6, rtol=1e-4)


def test_rows_without_a_grade_teach_nothing(model: str) -> None:
    one = built("ctrls", model, Sulking(), max_invalid_share=1.0, **OPTIONS)
    batch = credited(one)
    invalid = ~batch.rows.valid[:, 0]
    assert bool(invalid.any()) and not bool(batch.rows.mask[invalid].any())
    for name in ("latent_input", "latent_action"):
        batch.columns[name][invalid] = 0.3
    first = one.improve(batch)["policy_loss"]
    assert np.isfinite(first)


def test_a_concentration_is_never_below_its_bound() -> None:
    network = TransitionPolicy(4, 3, 6, 5)
    with torch.no_grad():
        network.network[-1].bias.fill_(-100.0)
    assert bool((network(torch.randn(2, 4 + 3 + 6)) >= LEAST).all())


def test_a_chain_ends_with_its_room_and_its_steps(model: str) -> None:
    for options in ({"max_steps": 2}, {"max_new_tokens": 9}):
        one = built("ctrls", model, **OPTIONS | options)
        batch = one.collect()
        assert int(batch.columns["latent_steps"].sum(1).max()) <= 2 or "max_new_tokens" in options
        assert int(batch.rows.mask.sum(1).max()) <= options.get("max_new_tokens", 24)
        ended = batch.rows.terminated.any(1) | batch.rows.truncated.any(1)
        assert bool(ended.all()) and bool(batch.rows.truncated.any())


# --- runs --------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [1, 2])
def test_stopping_anywhere_changes_nothing(model: str, tmp_path: Path, at: int) -> None:
    options = OPTIONS | {"steps": 3, "evaluate_every": 2, "evaluation_prompts": 2}
    whole = Run.create(tmp_path / "whole", small("ctrls", model, **options), task=Lenient()).train()
    assert set(whole.method.state_dict()) >= {"models.policy", "models.states", "models.transition"}
    assert len(whole.metrics) == 4 and "validation_latent/concentration" in whole.metrics[2]
    halted = Run.create(tmp_path / "halted", small("ctrls", model, **options), task=Lenient())
    with pytest.raises(Interrupted, match="rheostat resume"):
        halted.train(progress=StopAfter(at))
    Run.load(tmp_path / "halted", task=Lenient()).train()
    assert differences(tmp_path / "whole", tmp_path / "halted") == []


def test_evaluating_samples_chains_and_reads_out_how_sure_they_are(model: str) -> None:
    run: Any = type("Run", (), {"method": built("ctrls", model, **OPTIONS)})()
    assert "concentration" not in evaluate_language(run, 2, 2).task, "before the lessons there are no states"
    run.method.turn()
    start = weights(run.method.context.models["transition"].network)
    summary = evaluate_language(run, 2, 2)
    assert summary.task["concentration"].estimate > 0.3 and 0 <= summary.task["state entropy"].estimate <= np.log(3)
    assert evaluate_language(run, 2, 2) == summary and torch.equal(weights(run.method.context.models["transition"].network), start)


def test_from_the_command_line(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = "--steps 2 --prompts-per-batch 2 --group-size 2 --evaluate-every 0 --evaluation-episodes 2 --threads 1 --max-new-tokens 24"
    own = "--states 3 --step-separator + --encoder-steps 2 --offline-steps 1 --offline-chains 2 --latent-width 8 --lesson-prompts 16"
    rewards = Path(__file__).parents[1] / "border" / "rewards.py"
    where = ["--model", model, "--directory", str(tmp_path / "run"), "--reward", f"{rewards}:one"]
    main(["train", "ctrls", "chain-sum", *where, *words.split(), *own.split()])
    run = rheostat.load(tmp_path / "run")
    assert run.finished and run.metrics[0]["latent/elbo"] < 0 and run.metrics[-1]["latent/concentration"] > 0
    assert (tmp_path / "run" / "report.html").exists() and (tmp_path / "run" / "model" / "config.json").exists()
    capsys.readouterr()
    main(["evaluate", str(tmp_path / "run"), "--episodes", "3", "--samples", "2", "--json"])
    results = {row["result"] for row in json.loads(capsys.readouterr().out)["results"]}
    assert {"concentration", "state entropy", "pass@1"} <= results


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"states": 1}, "states is 1, and with fewer than 2 there is nothing to choose between: take at least 2"),
        ({"step_separator": ""}, "step_separator is empty"),
        ({"max_steps": 1}, "rules.most_steps is 1; it must be at least 2"),
        ({"exploration": 1.0}, "exploration"),
        ({"group_size": 1}, "group_size must be at least 2"),
        ({"dial.lag": 2}, r"cannot honour dial\.lag: the language model stands still"),
        ({"dial.updates_per_batch": 2}, r"cannot honour dial\.updates_per_batch: densities of actions have no clip"),
        ({"dial.replay_share": 0.5}, r"cannot honour dial\.replay_share"),
        ({"dial.expert_share": 0.5}, r"cannot honour dial\.expert_share"),
    ],
)
def test_bad_options_are_one_sentence(model: str, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RheostatError, match=sentence) as error:
        built("ctrls", model, **OPTIONS | options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "task", "sentence"),
    [
        ({"states": 100}, None, r"The right chains have \d+ different steps, and k-means cannot find 100 states in them: lower states"),
        ({"step_separator": "§"}, None, r"Each of \d+ right chains has one step, so there are no transitions to learn"),
        ({"right_at_least": 2.0}, None, "None of 32 completions is right, so there is no chain to find states in"),
        ({"max_invalid_share": 1.0}, Hopeless(), "None of 32 completions is right"),
    ],
)
def test_chains_without_states_are_one_sentence(model: str, options: dict[str, Any], task: Any, sentence: str) -> None:
    with pytest.raises(RheostatError, match=sentence) as error:
        built("ctrls", model, task, **OPTIONS | options).turn()
    assert "\n" not in str(error.value)


def test_a_task_of_several_turns_is_refused(model: str) -> None:
    from rheostat.tasks.language import GuessNumber

    with pytest.raises(RheostatError, match="a chain of reasoning steps is one completion"):
        built("ctrls", model, GuessNumber(), **OPTIONS)
