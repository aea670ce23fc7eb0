"""Compositions that cannot work are refused in one sentence before anything is spent, and what every learner does alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch

from rheostat.buffers.control_retainers import DataAlone, Draw, ReplayBuffer
from rheostat.buffers.retainers import AtLeast, MarkStale, RecentGroups, Valid
from rheostat.collect.control.running_statistics import Normalisation
from rheostat.collect.language.language_collectors import Demonstrations, Dynamic, ExpertsInside, Groups
from rheostat.credit.annotations import GroupAdvantage, ModelScores, OldScores
from rheostat.errors import RheostatError
from rheostat.learner.dial import Dial
from rheostat.learner.going_online import FreshRows
from rheostat.learner.language import composition_of
from rheostat.learner.learner import Composition
from rheostat.learner.models import Frozen, Trainable
from rheostat.learner.update import Update
from rheostat.methods import table
from rheostat.objectives.preference_terms import PreferenceTerm
from rheostat.objectives.terms import Likelihood, PolicyGradient, ReferenceKL
from rheostat.parts import Batch, Weighted
from rheostat.training.settings import configure
from rheostat.trajectories import Source
from tests.learners import credited, step_plainly, weights
from tests.methods.test_language_methods import LANGUAGE, Lenient, built, save
from tests.tiny_control import learner


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("model"))


def plain(**changes: Any) -> Composition:
    """Groups, an advantage and a policy gradient."""
    whole = Composition(
        collect=Groups(4, 4),
        retain=[Valid()],
        credit=[OldScores(), GroupAdvantage()],
        improve=[Update().of(Weighted(PolicyGradient()))],
        models={"policy": Trainable(1e-3)},
    )
    return replace(whole, **changes)


def refused(sentence: str, composition: Composition) -> None:
    with pytest.raises(RheostatError, match=sentence) as error:
        composition.check("mine")
    assert "\n" not in str(error.value) and str(error.value).endswith(".")


class Pairs:
    """A retainer that makes units."""

    makes_units = True

    def retain(self, context: Any, batch: Batch) -> Batch:
        return batch


@dataclass(frozen=True)
class NeedsMargin(Likelihood):
    reads: ClassVar[tuple[str, ...]] = ("margin",)


class WritesMargin:
    writes = ("margin",)

    def __call__(self, context: Any, batch: Batch) -> Batch:
        batch.columns["margin"] = batch.rows.reward.sum(1)
        return batch


class WritesChosen:
    writes = ("chosen",)


# --- what is refused ---------------------------------------------------------------------------------------------------------------------


def test_the_plain_composition_works() -> None:
    plain().check("mine")


def test_a_term_whose_column_nobody_writes() -> None:
    improve = [Update().of(Weighted(NeedsMargin()))]
    refused("mine: NeedsMargin reads margin, which no part before it writes: add the annotation that does", plain(improve=improve))
    plain(improve=improve, credit=[WritesMargin()]).check("mine")
    refused("mine: PolicyGradient reads advantage", plain(credit=[OldScores()]))


def test_an_annotation_reads_what_was_written_before_it() -> None:
    shaped = GroupAdvantage("rloo").with_kl(0.1)
    models = {"policy": Trainable(1e-3), "reference": Frozen()}
    refused("mine: GroupAdvantage reads reference_logp", plain(credit=[OldScores(), shaped], models=models))
    refused("mine: GroupAdvantage reads reference_logp", plain(credit=[OldScores(), shaped, ModelScores()], models=models))
    plain(credit=[OldScores(), ModelScores(), shaped], models=models).check("mine")


def test_units_that_a_part_cannot_keep() -> None:
    refused("mine: RecentGroups cannot keep whole the units that Pairs makes: leave it out", plain(retain=[Pairs(), RecentGroups(2, 0.5)]))
    plain(retain=[RecentGroups(2, 0.5), Pairs()]).check("mine")  # what comes before them does not see them


def test_what_may_leave_one_row_of_two_cannot_keep_units() -> None:
    plain(retain=[Pairs(), MarkStale()]).check("mine")
    for part in (Valid(), AtLeast()):
        refused(f"mine: {type(part).__name__} cannot keep whole the units that Pairs makes", plain(retain=[Pairs(), MarkStale(), part]))


def with_units(batch: Batch) -> Batch:
    return replace(batch, units=torch.arange(len(batch)))


def test_what_says_that_it_keeps_units_does(model: str) -> None:
    language = built("grpo", model)
    kept, recent = with_units(language.collect()), RecentGroups(2, 0.5)
    assert MarkStale.keeps_units and torch.equal(MarkStale().retain(language.context, kept).units, torch.arange(len(kept)))  # type: ignore[arg-type]
    recent.retain(language.context, kept)
    language.context.updates += 1
    grown = recent.retain(language.context, kept)
    assert not getattr(recent, "keeps_units", False) and len(grown) > len(kept)  # rows that belong to no unit
    replay, ppo = learner("sac", backend="gymnasium"), learner("ppo", backend="gymnasium")
    for one, part in ((replay, ReplayBuffer()), (replay, DataAlone()), (replay, FreshRows()), (ppo, Normalisation())):
        batch = with_units(one.collect())
        found = part.retain(one.context, batch)
        assert part.keeps_units and torch.equal(found.units, torch.arange(len(found.rows)))
        assert torch.equal(found.rows.action, batch.rows.action)
    drawn = Draw(4, lambda context: 0).retain(replay.context, with_units(replay.collect()))
    assert not getattr(Draw, "keeps_units", False) and drawn.units is None


def test_a_term_that_compares_rows_of_one_unit() -> None:
    update = Update().of(Weighted(PreferenceTerm()))
    credit = [ModelScores(), WritesChosen()]
    models = {"policy": Trainable(1e-3), "reference": Frozen()}
    needing = plain(improve=[update], credit=credit, models=models, retain=[])
    refused("mine: PreferenceTerm compares rows of one unit, and no part makes units", needing)
    replace(needing, retain=[Pairs()]).check("mine")
    refused("mine: RecentGroups cannot keep whole the units that Pairs makes", replace(needing, retain=[Pairs(), RecentGroups(2, 0.5)]))


def test_two_updates_of_one_model_share_its_optimiser() -> None:
    first = Update(learning_rate=1e-3).of(Weighted(PolicyGradient()))
    for change in ({"learning_rate": 2e-3}, {"warmup": 3}, {"weight_decay": 0.1}, {"max_grad_norm": 2.0}):
        refused("mine has two updates of the model 'policy' with different optimisers", plain(improve=[first, replace(first, **change)]))
    plain(improve=[first, replace(first, epochs=3)]).check("mine")


def test_models_that_are_not_there() -> None:
    refused("mine updates the model 'critic', which it does not have: it has policy", plain(improve=[Update().of(model="critic")]))
    refused("mine asks for the model 'reference', which it does not have: it has policy", plain(credit=[ModelScores(), GroupAdvantage()]))
    update = Update().of(Weighted(PolicyGradient()), Weighted(ReferenceKL(), 0.1, ""))
    refused("mine: ReferenceKL reads reference_logp", plain(improve=[update]))


def test_members_of_a_group_of_one_cannot_be_compared() -> None:
    refused("The advantage 'grpo' compares the members of a group: group_size must be at least 2", plain(collect=Groups(4, 1)))


def test_old_names_say_where_they_went() -> None:
    for sentence, method, options in (
        (r"grpo: the option limit of version 0\.1 is now clip\.kind: say clip\.kind detached\.", "grpo", {"limit": "detached"}),
        (r"rloo: the option kl_in_reward of version 0\.1 is now kl\.kind: say kl\.kind loss\.", "rloo", {"kl_in_reward": False}),
        (r"the option dynamic_sampling of version 0\.1 is now dynamic\.kind: say dynamic\.kind", "dapo", {"dynamic_sampling": False}),
        (r"gspo has no option limit: nothing in this method depends on it, so leave it out\.", "gspo", {"limit": "none"}),
    ):  # fmt: skip
        with pytest.raises(RheostatError, match=sentence):
            configure(method, options)


# --- the dial ----------------------------------------------------------------------------------------------------------------------------


def kinds(parts: list[Any]) -> list[type]:
    return [type(part) for part in parts]


def test_the_dial_rewrites_a_composition_and_leaves_the_old_one_alone() -> None:
    whole = plain()
    found = Dial(lag=2, replay_share=0.5, expert_share=0.25, updates_per_batch=3).rewrite(whole, "mine")
    assert kinds(found.retain) == [Valid, MarkStale, RecentGroups] and "acting" in found.models
    assert isinstance(found.collect, ExpertsInside) and (found.collect.count, found.collect.inner.size) == (1, 3)
    assert found.gradient_steps == 3 and (whole.gradient_steps, kinds(whole.retain), list(whole.models)) == (1, [Valid], ["policy"])
    found.check("mine")
    assert Dial().rewrite(whole, "mine") is whole


def test_dynamic_sampling_keeps_its_experts_inside() -> None:
    found = Dial(expert_share=0.5).rewrite(plain(collect=Dynamic().over(Groups(4, 4))), "mine")
    assert isinstance(found.collect, Dynamic) and isinstance(found.collect.inner, ExpertsInside)
    assert (found.collect.group_size, found.collect.rows) == (4, 16) and found.innermost == Groups(4, 2)


def test_what_a_part_refuses_is_refused_in_its_words() -> None:
    class Stubborn(Valid):
        refuses: ClassVar[Mapping[str, str]] = {"lag": "it is in a hurry"}

    with pytest.raises(RheostatError, match=r"mine cannot honour dial\.lag: it is in a hurry\."):
        Dial(lag=1).rewrite(plain(retain=[Stubborn()]), "mine")
    with pytest.raises(RheostatError, match=r"mine cannot honour dial\.expert_share: it has experts, or prompts, of its own"):
        Dial(expert_share=0.5).rewrite(plain(collect=ExpertsInside(Groups(4, 3), 1)), "mine")
    with pytest.raises(RheostatError, match=r"mine cannot honour dial\.lag: nothing is sampled"):
        Dial(lag=1).rewrite(plain(collect=Demonstrations(4)), "mine")


# --- what every learner does alike -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", LANGUAGE)
def test_parts_have_names_that_do_not_depend_on_places(method: str) -> None:
    composition = composition_of(configure(method, {}), method)
    names = composition.parts()
    assert all(name.partition(".")[0] in ("collect", "retain", "credit", "improve") for name in names)
    shuffled = replace(composition, credit=composition.credit[::-1])
    assert set(shuffled.parts()) == set(names)


@pytest.mark.parametrize("method", LANGUAGE)
def test_composing_is_pure(method: str) -> None:
    config = table.METHODS[method].load()()
    first, second = config.compose(), config.compose()
    assert list(first.parts()) == list(second.parts()) and first.models.keys() == second.models.keys()
    assert not [model for name, model in first.models.items() if model is second.models[name]]  # nothing is shared between two learners


def test_state_is_walked_by_name(model: str) -> None:
    one = built("remix", model, **{"dial.lag": 1})
    one.turn()
    state = one.state_dict()
    assert {"context", "models.policy", "models.acting", "models.reference", "models.previous", "retain.StaleGroups"} <= set(state)
    other = built("remix", model, **{"dial.lag": 1})
    other.load_state_dict(dict(reversed(state.items())))
    assert torch.equal(weights(other.policy), weights(one.policy)) and other.updates == 1
    assert one.turn() == other.turn()


def test_two_steps_of_sft_are_two_plain_steps(model: str) -> None:
    """Maximum likelihood in every gradient step: the second has no weight p / p_start."""
    one = built("sft", model, epochs=2, max_grad_norm=1e9)
    step_plainly(one, 0.3)
    batch = credited(one)
    rows, policy = batch.rows, built("sft", model).policy
    descent = torch.optim.SGD(policy.parameters(), lr=0.3)
    for _ in range(2):
        descent.zero_grad()
        logp = policy.score(rows.action, rows.attention, rows.mask, temperature=1.0).logp
        (-logp[rows.mask].mean()).backward()
        descent.step()
    start = weights(one.policy)
    metrics = one.improve(batch)
    torch.testing.assert_close(weights(one.policy), weights(policy), atol=1e-6, rtol=0)
    assert (weights(policy) - start).abs().max() > 1e-2
    assert metrics["gradient_steps"] == 2 and not {"approx_kl", "meter/clip_fraction"} & set(metrics)


def test_two_steps_of_rft_are_two_plain_steps(model: str) -> None:
    one = built("rft", model, epochs=2, max_grad_norm=1e9)
    step_plainly(one, 0.3)
    batch = credited(one)
    rows, policy = batch.rows, built("rft", model).policy
    descent = torch.optim.SGD(policy.parameters(), lr=0.3)
    for _ in range(2):
        descent.zero_grad()
        (-policy.score(rows.action, rows.attention, rows.mask, temperature=1.0).logp[rows.mask].mean()).backward()
        descent.step()
    metrics = one.improve(batch)
    torch.testing.assert_close(weights(one.policy), weights(policy), atol=1e-6, rtol=0)
    assert metrics["gradient_steps"] == 2 and not {"approx_kl", "meter/clip_fraction"} & set(metrics)


def test_dynamic_sampling_with_experts_keeps_whole_groups(model: str) -> None:
    """Expert rows stand below the policy's own: a batch that is cut to size must not lose those of its groups."""
    one = built("dapo", model, Lenient(), max_new_tokens=48, overlong_buffer=4, max_sampling_rounds=4, **{"dial.expert_share": 0.25})
    for _ in range(3):
        batch = one.collect()
        rows, graded = batch.rows, batch.facts["graded"]
        groups, sizes = rows.group[:, 0].unique(return_counts=True)
        expert = rows.source[:, 0] == int(Source.EXPERT)
        assert 1 <= len(groups) <= 4 and sizes.tolist() == [4] * len(groups)
        assert sorted(rows.group[expert, 0].tolist()) == groups.tolist()  # one expert in each
        assert len(graded.prompts) == len(graded.completions) == len(graded.scores) == len(rows)
        reward = rows.reward.sum(1)
        for group in groups:
            assert reward[rows.group[:, 0] == group].unique().numel() > 1  # only groups that carry a signal
        one.improve(one.credit(one.retain(batch)))
