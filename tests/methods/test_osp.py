"""OSP: strengths and rankings, the policy as a judge, runs without a reward, and what is refused."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import rheostat
from rheostat.collect.language.self_judge import SelfJudge, judging_rows
from rheostat.credit.preference_measures import both_orders
from rheostat.credit.preference_strength import Form, first_of_each, middle, ranking, strengths
from rheostat.errors import RheostatError
from rheostat.objectives.preference import preference_loss, soft_preference_loss
from rheostat.tasks.language import ChainSum, FilePrompts
from rheostat.tasks.language.prompt_files import load_prompts
from rheostat.tasks.language.task_interface import LanguageTask, Prompt
from rheostat.tasks.language.word_sums import WordSums
from tests.learners import credited
from tests.methods.test_language_methods import Hopeless, built, save

PROBABILITIES = st.lists(st.floats(0, 1), min_size=2, max_size=5)
ASKED: dict[str, Any] = {"comparison": "{prompt}{first}:{second}?", "verdicts": ["1", "2"]}
"""How a model of digits is asked."""
FORMS: tuple[Form, ...] = ("composed", "difference", "hard")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("model"))


def sums() -> FilePrompts:
    return FilePrompts([{"prompt": f"{a}+1=", "answer": str(a)} for a in range(40)], validation_share=0.3)


def tensor(x: Any) -> torch.Tensor:
    return torch.tensor(x, dtype=torch.float64)


# --- laws --------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@given(q=PROBABILITIES)
def test_exchanging_two_answers_exchanges_their_strength(form: Form, q: list[float]) -> None:
    found = strengths(tensor([q]), form)[0]
    whole = found + found.T
    assert bool(((whole - 1).abs() < 1e-12)[~whole.isnan()].all())
    assert bool(((found >= 0) & (found <= 1))[~found.isnan()].all())


@given(q=PROBABILITIES)
def test_what_is_ranked_higher_is_at_least_as_strong(q: list[float]) -> None:
    order = ranking(tensor([q]))[0].tolist()
    assert [q[place] for place in order] == sorted(q, reverse=True)
    assert all(one < other for one, other in itertools.pairwise(order) if q[one] == q[other])
    for form in FORMS:
        found = strengths(tensor([q]), form)[0]
        assert all(not found[one, other] < 0.5 for place, one in enumerate(order) for other in order[place + 1 :])


@given(a=st.floats(0.05, 0.95), b=st.floats(0.05, 0.95))
def test_strengths_against_the_baseline_compose_to_themselves(a: float, b: float) -> None:
    """A baseline at 1/2 leaves the judge's word as it is, and odds multiply."""
    found = strengths(tensor([[a, 0.5, b]]), "composed")[0]
    assert abs(found[0, 1] - a) < 1e-12
    odds = found / (1 - found)
    assert abs(odds[0, 1] * odds[1, 2] - odds[0, 2]) < 1e-9 * float(odds[0, 2])


@given(margin=st.floats(-20, 20), p=st.floats(0, 1))
def test_the_loss_of_a_pair_is_that_of_the_exchanged_pair(margin: float, p: float) -> None:
    one, other = (soft_preference_loss(tensor(d), tensor(s), 0.3) for d, s in ((margin, p), (-margin, 1 - p)))
    assert abs(one - other) < 1e-9


@given(p=st.floats(0.05, 0.95))
def test_the_optimum_is_finite(p: float) -> None:
    margin = tensor(math.log(p / (1 - p)) / 0.3).requires_grad_()
    (slope,) = torch.autograd.grad(soft_preference_loss(margin, tensor(p), 0.3), margin)
    assert abs(slope) < 1e-9


def test_certain_labels_are_dpo_and_nearly_certain_ones_conservative_dpo() -> None:
    margin = torch.linspace(-3, 3, 7, dtype=torch.float64)
    for p, smoothing in ((1.0, 0.0), (0.9, 0.1)):
        ours = soft_preference_loss(margin, torch.full_like(margin, p), 0.5)
        theirs = preference_loss(margin, torch.zeros_like(margin), beta=0.5, smoothing=smoothing)
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)
    with pytest.raises(RheostatError, match="strength"):
        soft_preference_loss(margin, torch.ones(3), 0.5)


def test_what_the_judge_does_not_know_makes_no_pair() -> None:
    q = tensor([[0.9, math.nan, 0.2]])
    assert ranking(q).tolist() == [[0, 2, 1]]
    for form in FORMS:
        found = strengths(q, form)[0]
        assert bool(found[1].isnan().all() and found[:, 1].isnan().all()) and float(found[0, 2]) > 0.5


def test_the_baseline_is_the_median_of_those_that_are_there() -> None:
    score = tensor([[-3.0, -1.0, -2.0, -4.0], [-3.0, -1.0, -2.0, -4.0]])
    there = torch.tensor([[True, True, True, True], [True, True, False, False]])
    assert middle(score, there).tolist() == [0, 0]
    assert middle(score[:1], torch.tensor([[True, True, True, False]])).tolist() == [2]


def test_repetitions_are_found_within_a_group_alone() -> None:
    action = torch.tensor([[5, 6, 0], [5, 6, 0], [5, 6, 7], [5, 6, 0]])
    mask = torch.tensor([[True, True, False], [True, True, False], [True, True, True], [True, True, False]])
    assert first_of_each(action, mask, 2).tolist() == [True, False, True, True]


# --- the policy as a judge ---------------------------------------------------------------------------------------------------------------


def test_the_judge_says_what_the_models_next_token_says(model: str) -> None:
    one = built("osp", model)
    task, policy = one.context.setup.task, one.policy
    prompts = task.validation(3)
    said = SelfJudge(one.context, "policy")(prompts, ["1", "23", "#4"], ["5", "6", "#78"])
    for prompt, first, second, p in zip(prompts, ["1", "23", "#4"], ["5", "6", "#78"], said.tolist(), strict=True):
        ids = policy.tokenizer(f"{prompt.content}{first}:{second}?", add_special_tokens=False, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            logits = policy.causal(input_ids=ids).logits[0, -1].double()
        a, b = (policy.tokenizer.convert_tokens_to_ids(each) for each in task.verdicts)
        assert abs(p - torch.sigmoid(logits[a] - logits[b]).item()) < 1e-5


def test_strengths_are_constants_and_do_not_depend_on_the_order(model: str) -> None:
    one = built("osp", model, labels="direct")
    batch = credited(one)
    strength, rank, units = batch.columns["strength"], batch.columns["rank"], batch.units
    assert not strength.requires_grad and strength.dtype == torch.float64 and units is not None
    judge, graded = SelfJudge(one.context, "policy"), batch.facts["graded"]
    known = ~strength.isnan()
    assert bool(known.any())
    for i, r in known.nonzero().tolist()[:6]:
        j = next(row for row in range(len(rank)) if units[row] == units[i] and int(rank[row]) == r)
        said = both_orders(judge, [graded.prompts[i]] * 2, [graded.completions[k] for k in (i, j)], [graded.completions[k] for k in (j, i)])
        mine, theirs = (0.5 * (said[0] + said[1])).tolist()
        assert abs(float(strength[i, r]) - mine) < 1e-5 and abs(mine + theirs - 1) < 1e-9


def test_a_question_that_is_too_long_is_not_asked(model: str) -> None:
    one = built("osp", model)
    said = SelfJudge(one.context, "policy")(one.context.setup.task.validation(2), ["1", "1" * 200], ["2", "2"])
    assert said.isnan().tolist() == [False, True]


def test_an_earlier_policy_judges_where_that_is_asked(model: str) -> None:
    """With a copy of the start, updates change nothing of what is said."""
    said = {}
    for every in (0, 1):
        one = built("osp", model, judge_refresh_every=every, learning_rate=0.05)
        pairs = (one.context.setup.task.validation(2), ["1", "2"], ["3", "4"])
        before = one.config.strength.asked(one.context)(*pairs)
        one.turn()
        said[every] = torch.equal(before, one.config.strength.asked(one.context)(*pairs))
    assert said == {0: True, 1: False}


def test_answers_without_another_one_teach_nothing(model: str) -> None:
    one = built("osp", model)
    batch = one.retain(one.collect())
    whole = batch.rows.mask.clone()
    batch.rows.mask[1:4] = False  # the first group has one answer left
    found = one.credit(batch)
    assert found.rows.mask.any(1).tolist()[:4] == [False] * 4 and bool(found.rows.mask[4:].any())
    batch.rows.mask = whole & (torch.arange(len(batch)) % 4 == 0)[:, None]
    assert one.improve(one.credit(batch))["gradient_steps"] == 0


@pytest.mark.parametrize("task", [ChainSum(), WordSums()])
def test_demonstrations_of_judging_show_both_orders(task: LanguageTask) -> None:
    prompt = task.validation(1)[0]
    rows = judging_rows(task, [(prompt, "11", "22")])
    shown = [json.dumps(row["prompt"]) for row in rows]
    assert [row["completion"] for row in rows] == list(task.verdicts) and len(set(task.verdicts)) == 2
    assert shown[0].index("11") < shown[0].index("22") and shown[1].index("22") < shown[1].index("11")
    assert isinstance(rows[0]["prompt"], type(prompt.content))


def test_the_question_of_a_text_ends_where_the_verdict_follows() -> None:
    asked = WordSums().comparison(Prompt("Which?"), "this", "that").content
    assert isinstance(asked, str) and asked.endswith("The better answer is (") and asked.index("this") < asked.index("that")


# --- runs --------------------------------------------------------------------------------------------------------------------------------


def test_no_reward_is_needed(model: str, tmp_path: Path) -> None:
    """Prompts without answers: everything is learned, and nothing is said of rewards."""
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"{a}+{b}="}) + "\n" for a in range(10) for b in range(4)))
    options: dict[str, Any] = {"model": model, "prompts_per_batch": 4, "max_new_tokens": 8, "evaluation_episodes": 4, "progress": False}
    options |= {"environment_options": ASKED | {"validation_share": 0.3}}
    run = rheostat.train("osp", prompts=path, directory=tmp_path / "run", steps=2, evaluate_every=1, **options)
    last = run.metrics[-1]
    assert last["gradient_steps"] == 1 and not any("reward" in name and name != "reward_calls" for name in last)
    with pytest.raises(RheostatError, match="reference answer"):
        rheostat.train("online-dpo", prompts=path, directory=tmp_path / "other", steps=2, **options)


@pytest.fixture
def pairs(tmp_path: Path) -> str:
    path = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"{a}+{b}=", "chosen": str((a + b) % 10), "rejected": f"{a}{b}{a}"} for a in range(10) for b in range(10)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_the_judge_is_held_to_the_pairs_of_a_file(model: str, pairs: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"model": model, "preferences": pairs, "prompts_per_batch": 4, "max_new_tokens": 8, "progress": False}
    options |= {"steps": 4, "evaluate_every": 1, "evaluation_episodes": 8, "environment_options": ASKED | {"validation_share": 0.3}}
    run = rheostat.train("osp", directory=tmp_path / "free", **options)
    accuracy = run.metrics[-1]["validation_judge_accuracy"]
    assert run.metrics[-1]["steps"] == 4 and 0 <= accuracy < 1 and "validation_preference_accuracy" in run.metrics[-1]
    held = rheostat.train("osp", directory=tmp_path / "held", judge_floor=0.999, **options)
    assert held.metrics[-1]["steps"] == 1


def test_a_judge_of_the_run_teaches_what_it_prefers(model: str, tmp_path: Path) -> None:
    path = tmp_path / "judges.py"
    path.write_text("def short(completions, other, **_):\n    return [0.5 + 0.4 * (len(a) < len(b)) for a, b in zip(completions, other)]\n")
    options: dict[str, Any] = {"compare_by": "judge", "judge": f"{path}:short", "prompts_per_batch": 8, "beta": 1.0, "learning_rate": 5e-3}
    one = built("osp", model, **options)
    lengths = [one.turn()["completion_length"] for _ in range(8)]
    assert sum(lengths[-2:]) < sum(lengths[:2])


def test_rows_without_a_grade_are_learned_from(model: str) -> None:
    assert built("osp", model, Hopeless(), max_invalid_share=1.0).turn()["gradient_steps"] == 1


@pytest.mark.parametrize(
    ("sentence", "options"),
    [
        ("compare_by judge asks a judge of pairs, and there is none", {"compare_by": "judge"}),
        ("The policy judges with one of the tokens 'A' and 'B', which its tokenizer does not write", {"task": sums()}),
        ("judge_floor is about held-out pairs, and there are none", {"judge_floor": 0.6}),
        ("judge_refresh_every is 2, but the whole run makes about 2 updates", {"judge_refresh_every": 2}),
        ("Answers are compared with each other: group_size must be at least 2", {"group_size": 1}),
        ("osp cannot honour dial.replay_share: its answers are thrown away", {"dial.replay_share": 0.5}),
        ("osp cannot honour dial.expert_share: all answers that are compared are the policy's", {"dial.expert_share": 0.25}),
    ],
)
def test_what_is_refused(sentence: str, options: dict[str, Any], model: str) -> None:
    with pytest.raises(RheostatError, match=sentence):
        built("osp", model, **options)


@pytest.mark.parametrize(
    "knob", [{"comparison": "{prompt}{first}"}, {"comparison": "{prompt}{first}{second"}, {"verdicts": ["1", "1"]}, {"verdicts": "12"}]
)
def test_a_question_has_both_answers_and_two_verdicts(knob: dict[str, Any], pairs: str) -> None:
    with pytest.raises(RheostatError, match=r"The option (comparison|verdicts) of your own prompts is .*: it must be"):
        load_prompts(pairs, **knob)


def test_verdicts_must_be_tokens(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ChainSum, "verdicts", ("12", "3"))
    with pytest.raises(RheostatError, match="judges with one of the tokens '12' and '3', which its tokenizer does not write as one token"):
        built("osp", model)
