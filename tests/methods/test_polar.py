"""POLAR: how rows with a reference are written, which triples there are, both stages and the use as a reward, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

import rheostat
from rheostat.cli.entry import parse
from rheostat.collect.language.learned_reward import LearnedReward
from rheostat.collect.language.referenced import Form, ReferenceReader, pieces
from rheostat.credit.verifiers.verifier_interface import Rollout
from rheostat.errors import RheostatError
from rheostat.objectives.policy_discriminator import same_policy_loss, score_penalty
from rheostat.policies.language.model import LanguagePolicy
from rheostat.tasks.language import character_tokenizer
from rheostat.tasks.language.preference_rows import PreferencePrompts, triples_of
from rheostat.tasks.language.task_interface import Prompt
from rheostat.training.run import Run
from tests.methods.test_language_methods import save
from tests.methods.test_preferences import built

OPTIONS: dict[str, Any] = {
    "max_new_tokens": 8, "learning_rate": 1e-2, "evaluate_every": 0, "evaluation_episodes": 8, "steps": 8, "threads": 1,
    "pairs_per_batch": 16, "progress": False,
}  # fmt: skip
Answers = st.lists(st.integers(3, 9), max_size=6)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A zoo whose policies write the digit of the sum or of the next one, a ranking, and prompts with references."""
    folder = tmp_path_factory.mktemp("files")
    sums = [(f"{a}+{b}=", str((a + b) % 10), str((a + b + 1) % 10)) for a in range(10) for b in range(10)]
    every = {
        "zoo": [{"prompt": p, "completions": [r, r * 2, w * 4], "policies": ["right", "right", "wrong"]} for p, r, w in sums],
        "ranked": [{"prompt": p, "completions": [w * 4, r * 2, r], "ranks": [3, 2, 1]} for p, r, w in sums],
        "prompts": [{"prompt": p, "reference": r} for p, r, _ in sums],
        "bare": [{"prompt": p, "answer": r} for p, r, _ in sums],
    }
    for name, rows in every.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {name: str(folder / f"{name}.jsonl") for name in every}


@pytest.fixture(scope="module")
def stages(model: str, files: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The runs of both stages."""
    folder = tmp_path_factory.mktemp("stages")
    first = rheostat.train("polar", preferences=files["zoo"], model=model, separator="#", join=":", directory=folder / "zoo", **OPTIONS)
    begin = str(first.directory / "model")
    rheostat.train("polar", data="ranked", preferences=files["ranked"], model=begin, directory=folder / "ranked", **OPTIONS)
    return folder / "zoo", folder / "ranked"


# --- how a row is written ----------------------------------------------------------------------------------------------------------------


@given(Answers, Answers, Answers, st.integers(0, 3), st.integers(8, 40), st.integers(1, 6))
def test_the_prompt_comes_twice_and_everything_fits(
    prompt: list[int], reference: list[int], candidate: list[int], joined: int, longest: int, most: int
) -> None:
    join = [10] * joined
    before, after = pieces(prompt, reference, candidate, join=join, separator=1, end=2, longest=longest, longest_answer=most)
    asked, first, said, middle, again, second = before
    assert asked == again and first == second == join and middle == [1] and after[1] == [2]
    assert said == reference[:most] and after[0] == candidate[:most] and asked == (prompt[-len(asked) :] if asked else [])
    total = sum(map(len, before + after))
    if longest >= 2 + 2 * joined + len(said) + len(after[0]):
        assert total <= longest
    if longest >= 4 + 2 * joined + len(said) + len(after[0]) + 2 * len(prompt):
        assert asked == prompt


@pytest.mark.parametrize("truncated", [False, True])
def test_a_row_is_token_ids_and_its_score_is_the_head_after_the_end(stages: tuple[Path, Path], truncated: bool) -> None:
    reward, policy = LearnedReward(f"run:{stages[0]}"), LanguagePolicy.load(stages[0] / "model")
    assert policy.value_head is not None
    text = "1+2=:3#1+2=:33"  # every character is a token
    ids = [*policy.tokenizer(text, add_special_tokens=False)["input_ids"], policy.tokenizer.eos_token_id]
    rollout = Rollout("1+2=", "33", columns={"reference": "3"}, truncated=truncated)
    before, after = reward.encode(rollout)
    assert before + after == ids and len(after) == 3
    hidden = policy.causal.base_model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1]
    rows = [rollout, Rollout("1=", "1", columns={"reference": "1"})]
    assert reward.score(rows).reward[0].item() == pytest.approx(policy.value_head(hidden[None]).item(), abs=1e-5)


def test_a_separator_that_the_tokenizer_would_merge_or_split_stays_one_token(model: str) -> None:
    from tokenizers import Tokenizer, models

    vocabulary = {token: number for number, token in enumerate(["<pad>", "<bos>", "<eos>", "a", "b", "|", "a|", "|b"])}
    merging = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.BPE(vocabulary, [("a", "|"), ("|", "b")])),
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
    )
    policy = LanguagePolicy.load(model)
    policy.tokenizer = merging
    before, after = ReferenceReader(Form("|", "<eos>", "", 8), policy).row(Prompt("b"), "a", "ab")
    assert before + after == [vocabulary[token] for token in ("b", "a", "|", "b", "a", "b", "<eos>")]
    assert merging("ba|bab")["input_ids"] != before + after[:-1]  # as one text it is other tokens


def test_a_block_of_thinking_is_not_scored(stages: tuple[Path, Path]) -> None:
    reward = LearnedReward(f"run:{stages[1]}")
    columns = {"reference": "3"}
    scores = reward.score([Rollout("1+2=", text, columns=columns) for text in ("3", "<think>?</think> 3", "4")]).reward.tolist()
    assert scores[0] == scores[1] != scores[2]


def test_answers_that_are_longer_than_those_it_learned_from_are_cut(stages: tuple[Path, Path]) -> None:
    reward = LearnedReward(f"run:{stages[1]}")
    columns = {"reference": "3"}
    scores = reward.score([Rollout("1+2=", text, columns=columns) for text in ("3" * 8, "3" * 9)]).reward.tolist()
    assert scores[0] == scores[1]


# --- which triples there are -------------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from("abcd")), max_size=6))
def test_triples_are_two_answers_of_one_policy_and_one_of_another(answers: list[tuple[int, str]]) -> None:
    policies, texts = [who for who, _ in answers], [text for _, text in answers]
    found = triples_of(policies, texts)
    assert found == sorted(set(found)) and set(found) <= set(triples_of(policies))
    for one, same, other in found:
        assert one != same and policies[one] == policies[same] != policies[other] and len({texts[one], texts[same], texts[other]}) == 3
    assert all((same, one, other) in found for one, same, other in found)


def test_a_prompt_gives_each_of_its_triples_in_turn(model: str) -> None:
    row = {"prompt": "1+1=", "completions": ["2", "22", "3", "33"], "policies": ["right", "right", "wrong", "wrong"]}
    task = PreferencePrompts([row], "zoo", validation_share=0.0)
    one = built("polar", model, task, pairs_per_batch=64)
    rows = one.collect().rows
    seen = {tuple(action[real].tolist()) for action, real in zip(rows.action, rows.attention, strict=True)}
    assert len(seen) == 2 * 2 * 3  # four references, each beside its like and two others
    again = built("polar", model, task, pairs_per_batch=64).collect().rows
    assert torch.equal(again.action, rows.action)


@given(st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=1, max_size=5), st.floats(-3, 3))
def test_the_loss_knows_differences_alone(pairs: list[tuple[float, float]], shift: float) -> None:
    chosen, rejected = torch.tensor(pairs, dtype=torch.float64).T
    loss = same_policy_loss(chosen, rejected)
    torch.testing.assert_close(same_policy_loss(chosen + shift, rejected + shift), loss)
    focal = same_policy_loss(chosen, rejected, focal=True)
    assert bool((focal <= loss + 1e-12).all()) and torch.equal(focal[chosen <= rejected], loss[chosen <= rejected])


def test_a_barrier_has_no_gradient_outside_and_no_penalty_costs_nothing() -> None:
    score = torch.tensor([-6.0, 0.0, 4.0, 7.0], requires_grad=True)
    (gradient,) = torch.autograd.grad(score_penalty(score, "log-barrier").sum(), score)  # type: ignore[no-untyped-call]
    assert gradient.tolist() == [0.0, 0.0, pytest.approx(1 - 1 / 9), 0.0]
    assert not bool(score_penalty(score, "none").any()) and score_penalty(score, "l2").tolist() == [36.0, 0.0, 16.0, 49.0]


# --- both stages, and the use ------------------------------------------------------------------------------------------------------------


def test_both_stages_learn_and_the_second_writes_rows_as_the_first(stages: tuple[Path, Path]) -> None:
    for stage in stages:
        run = Run.load(stage)
        assert run.summary["validation_preference_accuracy"] > 0.8 and "validation_calibration_error" in run.summary
        found = Form.of(LanguagePolicy.load(stage / "model"))
        assert found == Form("#", "<eos>", ":", 8)


def test_it_grades_answers_beside_the_reference_of_their_prompt(
    stages: tuple[Path, Path], model: str, files: dict[str, str], tmp_path: Path
) -> None:
    options = OPTIONS | {"steps": 2, "prompts_per_batch": 4, "group_size": 4, "evaluation_episodes": 4}
    del options["pairs_per_batch"]
    run = rheostat.train(
        "grpo", prompts=files["prompts"], rewards=(f"run:{stages[1]}",), model=model, directory=tmp_path / "run", **options
    )
    assert run.metrics[-1]["reward"] != 0.0 and run.metrics[-1]["invalid_share"] == 0.0
    with pytest.raises(RheostatError, match=r"Line 1 of .*bare\.jsonl has no reference answer: a policy discriminator compares with one"):
        rheostat.train("grpo", prompts=files["bare"], rewards=(f"run:{stages[1]}",), model=model, directory=tmp_path / "no", **options)
    scores = LearnedReward(f"run:{stages[1]}").score([Rollout("1=", "1"), Rollout("1=", "1", columns={"reference": "2" * 200})])
    assert scores.failed.tolist() == [True, False] and "the prompt has no reference answer" in scores.messages[0]


def test_the_form_survives_a_checkpoint_and_an_ordinary_head_has_none(stages: tuple[Path, Path], tmp_path: Path) -> None:
    policy = LanguagePolicy.load(stages[0] / "model")
    policy.save_pretrained(tmp_path / "again")
    assert Form.of(LanguagePolicy.load(tmp_path / "again")) == Form.of(policy) is not None
    assert policy.value_head is not None
    policy.value_head.form = '{"separator": "#"}'
    with pytest.raises(RheostatError, match="does not say how rows with a reference are written"):
        Form.of(policy)
    policy.value_head.form = ""
    policy.save_pretrained(tmp_path / "plain")
    assert Form.of(LanguagePolicy.load(tmp_path / "plain")) is None


def test_from_the_command_line(model: str, files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = f"train polar --preferences {files['zoo']} --model {model} --pairs-per-batch 8 --max-new-tokens 8 --steps 2 --threads 1"
    parse([*words.split(), "--evaluate-every", "0", "--evaluation-episodes", "4", "--directory", str(tmp_path / "run")]).run()
    assert "held-out pairs" in capsys.readouterr().out
    parse(["show", "polar"]).run()
    assert "2507.05197" in capsys.readouterr().out


def test_what_is_refused(model: str, files: dict[str, str], stages: tuple[Path, Path], tmp_path: Path) -> None:
    equal = tmp_path / "equal.jsonl"
    equal.write_text(json.dumps({"prompt": "1=", "reference": "2", "chosen": "2", "rejected": "3"}) + "\n")
    chats, answers = tmp_path / "chats.jsonl", {"completions": ["1", "2", "3"], "policies": [0, 0, 1]}
    rows = [{"prompt": [{"role": "user", "content": str(number)}]} | answers for number in range(40)]
    chats.write_text("".join(json.dumps(row) + "\n" for row in rows))
    second = {"model": str(stages[0] / "model")}
    for sentence, options in (
        ("it does not say who wrote the answers: give the column policies", {"preferences": files["ranked"]}),
        ("it orders no answers: give ranks, scores, or a pair with the column reference", {"preferences": files["zoo"], "data": "ranked"}),
        ("has the same text as its reference and a candidate", {"preferences": str(equal), "data": "ranked"}),
        ("has no answers of several policies: a zoo has the columns", {"prompts": files["bare"]}),
        ("has no reference answer: a policy discriminator compares with one", {"prompts": files["bare"], "data": "ranked"}),
        ("'<|reward|>' is no single token of the model's tokenizer", {"preferences": files["zoo"], "separator": "<|reward|>"}),
        ("The separator and the end are both '<eos>'", {"preferences": files["zoo"], "separator": "<eos>"}),
        (
            "The starting model reads rows with the separator '#', not ';': leave separator out",
            {"preferences": files["zoo"], "separator": ";"} | second,
        ),
        ("The starting model reads rows with the join ':', not ';': leave join out", {"preferences": files["zoo"], "join": ";"} | second),
        ("The tokenizer of the reward model cannot encode 'x'", {"preferences": files["zoo"], "join": "x"}),
        ("has no chat template", {"preferences": str(chats)}),
        ("A reward model samples nothing: leave the temperature alone", {"preferences": files["zoo"], "temperature": 0.5}),
    ):
        with pytest.raises(RheostatError, match=sentence.replace("|", r"\|").replace("(", r"\(")) as error:
            rheostat.train("polar", directory=tmp_path / "run", **OPTIONS | {"model": model} | options)
        assert "\n" not in str(error.value)


def test_a_tokenizer_without_a_beginning_token_must_be_told_the_separator(tmp_path: Path) -> None:
    tokenizer = character_tokenizer()
    tokenizer.bos_token = None
    bare = save(tmp_path / "bare", tokenizer=tokenizer)
    with pytest.raises(RheostatError, match="no beginning token of its own that could separate two answers: name a --separator"):
        built("polar", bare)
    assert Form.of(built("polar", bare, separator="#").policy) == Form("#", "<eos>", "", 8)
