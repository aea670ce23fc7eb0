"""A language run's frozen batch through several methods: known relations, the chain rule, what is limited and dropped, and refusals."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import rheostat
from rheostat.api import save as save_result
from rheostat.api import show
from rheostat.cli.entry import parse
from rheostat.credit.verifiers import Grade, Scores
from rheostat.diagnostics.disagreement.disagreement_result import Disagreement
from rheostat.errors import RheostatError
from rheostat.methods import table
from rheostat.training.run import Interrupted, Run
from tests.methods.test_language_methods import Lenient, save, small
from tests.training.test_run import StopAfter

EVERY = [
    "grpo",
    "rloo",
    "reinforce",
    "reinforce-pp",
    "dr-grpo",
    "dapo:overlong_buffer=4",
    "gspo",
    "gmpo",
    "cispo",
    "tis",
    "luffy",
    "rft",
    "ppo-lm",
]
SEVERAL = [name for name in EVERY if name != "reinforce"]  # which takes one step per batch


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("model"))


def trained(directory: Path, model: str, method: str = "grpo", task: Any = None, **options: Any) -> Path:
    task = task or Lenient()
    Run.create(directory, small(method, model, task, **({"steps": 3, "learning_rate": 4e-3} | options)), task=task).train().close()
    return directory


@pytest.fixture(scope="module")
def run(model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """GRPO on samples two updates old: 4 prompts, 4 completions each."""
    return trained(tmp_path_factory.mktemp("runs") / "lagged", model, checkpoint_every=1, **{"dial.lag": 2})


@pytest.fixture(scope="module")
def still(run: Path) -> Disagreement:
    return rheostat.disagree(run, [*EVERY, "grpo:clip_high=0.2"], task=Lenient(), kl_coefficient=0)


@pytest.fixture(scope="module")
def moved(run: Path) -> Disagreement:
    return rheostat.disagree(run, [*SEVERAL, "grpo:clip=none"], steps=3, task=Lenient(), kl_coefficient=0)


def contents(directory: Path) -> dict[str, str]:
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(directory.rglob("*")) if path.is_file()}


# --- relations that must hold ------------------------------------------------------------------------------------------------------------


def test_a_method_agrees_with_itself(still: Disagreement) -> None:
    names = [row.name for row in still.rows]
    for place, name in enumerate(names):
        assert still.cosines[place][place] == pytest.approx(1, abs=1e-6) and still.signs[place][place] == 0, name
        assert still.distances[place][place] == pytest.approx(0, abs=1e-9)
    assert still.cosine("grpo", "grpo:clip_high=0.2") == pytest.approx(1, abs=1e-6)
    assert torch.equal(still.weight("grpo"), still.weight("grpo:clip_high=0.2"))
    assert still.cosines == [list(column) for column in zip(*still.cosines, strict=True)]


def test_on_one_step_rloo_reinforce_and_dr_grpo_are_parallel(still: Disagreement) -> None:
    for one, other in (("rloo", "reinforce"), ("rloo", "dr-grpo")):
        assert still.cosine(one, other) == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(still.weight("rloo"), still.weight("reinforce") * 4 / 3)  # the mean without oneself: G / (G - 1)
    assert still["rloo"].gradient_norm == pytest.approx(still["reinforce"].gradient_norm * 4 / 3, rel=1e-4)
    assert still.cosine("grpo", "rloo") < 0.999


def test_grpo_is_reinforce_over_deviation_and_length(still: Disagreement) -> None:
    mask = still.tensors["mask"]
    grpo, plain = (torch.zeros(mask.shape).double().masked_scatter(mask, still.weight(name)) for name in ("grpo", "reinforce"))
    length = mask.sum(1, keepdim=True)
    for group in range(4):
        rows = slice(4 * group, 4 * group + 4)
        baseline = plain[rows].abs().amax(1)  # |R - mean| / B of every row
        deviation = 16 * (baseline.square().sum() / 3).sqrt() + 1e-6
        torch.testing.assert_close(grpo[rows] * length[rows] * deviation, plain[rows], rtol=1e-4, atol=1e-9)


def test_in_one_group_grpo_and_rloo_are_parallel(model: str, tmp_path: Path) -> None:
    single = trained(tmp_path / "run", model, prompts_per_batch=1, group_size=16)
    found = rheostat.disagree(single, ["grpo:aggregation=sequence-sum", "rloo"], task=Lenient(), kl_coefficient=0)
    assert found.cosine("grpo:aggregation=sequence-sum", "rloo") == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("which", ["still", "moved"])
def test_weights_and_log_probabilities_make_the_gradient(which: str, request: pytest.FixtureRequest) -> None:
    """The chain rule: the sum of weight times grad log pi is what the method handed to its optimiser."""
    found: Disagreement = request.getfixturevalue(which)
    for row in found.rows:
        if row.gradient_norm == 0:  # gspo's window is so narrow that nothing is left in it
            assert row.tokens.clipped + row.tokens.idle == pytest.approx(1) and row.tokens.clipped > 0, row.name
        else:
            assert row.elsewhere is not None and row.elsewhere < 1e-4, row.name
    assert sum(row.gradient_norm > 0 for row in found.rows) >= len(EVERY) - 2
    assert not [note for note in found.notes if "log-probabilities" in note]


def test_what_does_not_go_through_log_probabilities_is_said(run: Path) -> None:
    found = rheostat.disagree(run, ["rloo", "rloo:entropy_coefficient=1"], task=Lenient(), kl_coefficient=0)
    assert found["rloo:entropy_coefficient=1"].elsewhere > 0.01
    assert "does not come through log-probabilities" in found.notes[0]
    assert torch.equal(found.weight("rloo"), found.weight("rloo:entropy_coefficient=1"))


def test_the_kl_to_the_reference_reaches_every_token(run: Path) -> None:
    """The reference is where the run began, whatever method asks for it."""
    found = rheostat.disagree(run, ["grpo:kl_coefficient=0", "grpo:kl_coefficient=10"], task=Lenient())
    assert found["grpo:kl_coefficient=10"].gradient_norm > 2 * found["grpo:kl_coefficient=0"].gradient_norm
    assert found["grpo:kl_coefficient=10"].elsewhere < 1e-4


# --- limited and dropped -----------------------------------------------------------------------------------------------------------------


def test_nothing_is_limited_before_the_policy_has_moved(still: Disagreement) -> None:
    assert all(row.tokens.clipped == 0 for row in still.rows)
    assert still.facts["kl_moved"] == 0 and still.facts["age_mean"] == 2 and still.facts["kl_behaviour_k3"] > 1e-4


def test_limited_tokens_have_no_weight(moved: Disagreement) -> None:
    clipped, free = moved.tensors["clipped/grpo"], moved.weight("grpo:clip=none")
    assert moved.facts["kl_moved"] > 1e-3 and 0.01 < clipped.double().mean() < 0.99
    for row in moved.rows:
        assert bool((moved.weight(row.name)[moved.tensors[f"clipped/{row.name}"]] == 0).all()), row.name
    assert bool((free[clipped] != 0).all())
    torch.testing.assert_close(moved.weight("grpo")[~clipped], free[~clipped])
    assert moved["grpo:clip=none"].tokens.clipped == moved["cispo"].tokens.clipped == 0
    assert sum(moved["gspo"].mostly.values()) <= round(moved["gspo"].tokens.clipped * moved.facts["tokens"])


def test_shares_are_shares_of_all_tokens(moved: Disagreement) -> None:
    for row in moved.rows:
        parts = row.tokens
        assert parts.up + parts.down + parts.clipped + parts.idle + parts.left_out == pytest.approx(1)
        weight = moved.weight(row.name)
        assert parts.up == pytest.approx((weight > 0).double().mean().item())
        assert 0 <= parts.effective <= 1 and (parts.effective > 0) == (row.gradient_norm > 0)


def test_filters_leave_out_what_they_filter(still: Disagreement, run: Path) -> None:
    mask, kept = still.tensors["mask"], still.tensors["kept/rft"]
    rows = torch.zeros(mask.shape, dtype=torch.bool).masked_scatter(mask, kept)
    assert bool((rows.any(1) == (rows == mask).all(1)).all()) and 0 < int(rows.any(1).sum()) < len(mask)  # whole completions
    right = int(rows.any(1).sum()) / len(mask)
    assert right == pytest.approx(still.facts["reward"])
    assert still["rft"].tokens.down == 0 and still["rft"].tokens.left_out == pytest.approx(1 - kept.double().mean().item())
    assert bool(still.tensors["kept/grpo"].all())


def test_dynamic_sampling_leaves_out_groups_that_agree(model: str, tmp_path: Path) -> None:
    narrow = trained(tmp_path / "run", model, prompts_per_batch=12, group_size=2)
    found = rheostat.disagree(narrow, ["dr-grpo", "dapo:overlong_buffer=0"], task=Lenient())
    groups, informative = found.facts["groups"], found.facts["informative_groups"]
    assert 0 < informative < groups == 12
    kept = found.tensors["kept/dapo:overlong_buffer=0"]
    assert torch.equal(kept, found.weight("dr-grpo") != 0) and found["dr-grpo"].tokens.idle == pytest.approx((~kept).double().mean().item())
    assert found.cosine("dr-grpo", "dapo:overlong_buffer=0") is not None


def test_scaled_is_what_departs_from_the_advantage(still: Disagreement) -> None:
    assert still["dr-grpo"].tokens.scaled == 0 and still["tis"].tokens.scaled > 0.01  # the weight between sampler and learner
    assert still["grpo"].tokens.scaled > 0.1  # by length


# --- the batch ---------------------------------------------------------------------------------------------------------------------------


def test_the_run_is_not_changed_and_the_batch_is_its_next(model: str, tmp_path: Path) -> None:
    """What the run's own method is said to do is what it does when it is continued."""
    settings = small("grpo", model, steps=4, learning_rate=1e-2, **{"dial.lag": 2})
    halted = Run.create(tmp_path / "run", settings, task=Lenient())
    with pytest.raises(Interrupted):
        halted.train(progress=StopAfter(2))
    before = contents(tmp_path / "run")
    found = rheostat.disagree(tmp_path / "run", ["grpo", "rloo"], task=Lenient())
    rheostat.disagree(tmp_path / "run", ["grpo", "rloo"], steps=2, task=Lenient())
    assert contents(tmp_path / "run") == before
    continued = Run.load(tmp_path / "run", task=Lenient()).train()
    assert found["grpo"].gradient_norm == pytest.approx(continued.metrics[2]["meter/gradient_norm"], rel=1e-5)
    assert found.facts["ess"] == pytest.approx(continued.metrics[2]["meter/ess"], rel=1e-5)
    assert (
        found.facts["update"] == 2
        and found.facts["tokens"] == continued.metrics[2]["generated_tokens"] - continued.metrics[1]["generated_tokens"]
    )


def test_the_same_twice_is_the_same(run: Path, still: Disagreement) -> None:
    again = rheostat.disagree(run, ["rloo", "grpo"], task=Lenient(), kl_coefficient=0)
    assert torch.equal(again.weight("grpo"), still.weight("grpo")) and again.cosine("grpo", "rloo") == still.cosine("grpo", "rloo")


def test_an_older_checkpoint(run: Path) -> None:
    older = rheostat.disagree(run, ["grpo", "rloo"], update=2, task=Lenient())
    newest = rheostat.disagree(run, ["grpo", "rloo"], update=3, task=Lenient())
    assert older.facts["update"] == 2 and newest.facts["update"] == 3 and older.cosines != newest.cosines
    with pytest.raises(RheostatError, match="has no checkpoint of update 7: the ones kept are of 2 and 3"):
        rheostat.disagree(run, ["grpo", "rloo"], update=7, task=Lenient())


@pytest.mark.parametrize("dial", [{"dial.replay_share": 0.5}, {"dial.expert_share": 0.5, "max_new_tokens": 48}])
def test_replayed_and_expert_rows(dial: dict[str, Any], model: str, tmp_path: Path) -> None:
    mixed = trained(tmp_path / "run", model, **dial)
    found = rheostat.disagree(mixed, ["grpo", "tis", "luffy", "dapo:overlong_buffer=0"], task=Lenient(), kl_coefficient=0)
    other = "replay" if "dial.replay_share" in dial else "expert"
    assert 0.1 < found.facts[f"share_{other}"] < 0.95 and found.facts["rows"] == (32 if other == "replay" else 16)
    assert all(row.elsewhere < 1e-4 for row in found.rows)


@pytest.mark.parametrize(("method", "options"), [("rft", {}), ("ppo-lm", {}), ("dapo", {"dynamic": "on"}), ("luffy", {})])
def test_runs_of_other_methods(method: str, options: dict[str, Any], model: str, tmp_path: Path) -> None:
    other = trained(tmp_path / "run", model, method, **({"max_new_tokens": 48} if method == "luffy" else {}) | options)
    names = ["reinforce-pp", "ppo-lm", method] if method != "ppo-lm" else ["reinforce-pp", "ppo-lm"]
    found = rheostat.disagree(other, list(dict.fromkeys(names)), steps=1, task=Lenient(), kl_coefficient=0)
    assert all(row.gradient_norm > 0 for row in found.rows) and found.facts["kl_moved"] > 0
    if method == "rft":
        assert found["reinforce-pp"].tokens.left_out == 0 < found["rft"].tokens.left_out


def test_a_critic_that_shares_weights_is_said(model: str, tmp_path: Path) -> None:
    other = trained(tmp_path / "run", model, "ppo-lm")
    found = rheostat.disagree(other, ["ppo-lm", "ppo-lm:value_coefficient=0"], task=Lenient(), kl_coefficient=0)
    assert found["ppo-lm"].elsewhere > 1e-3 > found["ppo-lm:value_coefficient=0"].elsewhere


class Equal:
    """Everything is worth 1."""

    name = "equal"

    def score(self, rollouts: Any, progress: Any = None) -> Scores:
        return Scores.from_grades([Grade(1.0) for _ in rollouts])


class Same(Lenient):
    """Every completion is right."""

    def verifier(self) -> Any:
        return Equal()


def test_equal_rewards_leave_cosines_undefined(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    barren = trained(tmp_path / "run", model, task=Same())
    found = rheostat.disagree(barren, ["grpo", "dapo:overlong_buffer=0", "rft"], steps=1, task=Same(), kl_coefficient=0)
    assert found.facts["informative_groups"] == 0 and found["grpo"].gradient_norm == 0 < found["rft"].gradient_norm
    assert found.cosine("grpo", "grpo") is None and found.cosine("grpo", "rft") is None and found.cosine("rft", "rft") == pytest.approx(1)
    assert found["grpo"].tokens.idle == 1 and found["dapo:overlong_buffer=0"].tokens.left_out == 1
    assert "In none of the 4 groups of this batch do rewards differ" in found.notes[0]
    assert "The gradient of grpo, dapo:overlong_buffer=0 is 0" in found.notes[1]
    show(found)
    printed = capsys.readouterr().out
    assert "–" in printed and "did not move the policy" in printed
    save_result(found, tmp_path / "out")


def test_every_method_replays_or_says_why_not(model: str, tmp_path: Path) -> None:
    long = trained(tmp_path / "run", model, max_new_tokens=48)
    replayed = []
    for name, row in table.METHODS.items():
        if row.domain != "language" or name == "grpo":
            continue
        label = f"{name}:overlong_buffer=4" if name == "dapo" else name
        try:
            found = rheostat.disagree(long, ["grpo", label], task=Lenient(), entropy_coefficient=0)
        except RheostatError as error:
            assert "cannot" in str(error) and "\n" not in str(error), name
            continue
        assert found[label].gradient_norm > 0 and found[label].elsewhere < 1e-3, name
        assert bool(found[label].added) == any("rows of its own" in note for note in found.notes), name
        replayed.append(name)
    assert {"rloo", "cispo", "luffy", "ppo-lm"} <= set(replayed)


# --- refusals ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["grpo"], {}, "at least two methods"),
        ([], {}, "at least two methods"),
        (["grpo", "grop"], {}, "Unknown method 'grop': did you mean grpo"),
        (["grpo", "ppo"], {}, "ppo is a control method and the run is one of grpo, which is for language: name language methods"),
        (["grpo", "sft"], {}, "sft cannot replay the batch of another method: it imitates demonstrations"),
        (["grpo", "dpo"], {}, "dpo cannot replay the batch of another method: its loss compares the two completions"),
        (["grpo", "grpo"], {}, "grpo is named twice"),
        (["grpo", "rloo:limit"], {}, "without a name or a value, 'limit': write rloo:NAME=VALUE"),
        (["grpo", "rloo:"], {}, "without a name or a value"),
        (["grpo", "rloo:clp=none"], {}, "Unknown option of rloo 'clp': did you mean"),
        (["grpo", "rloo:clip=some"], {}, "it must be one of clip, searched, clip-cov, kl-cov, detached, log-clip, none"),
        (["grpo", "rloo"], {"limt": "none"}, "Unknown option of grpo 'limt'"),
        (["grpo", "rloo:group_size=2"], {}, "rloo:group_size=2: group_size is the run's"),
        (["grpo", "rloo:epochs=2"], {}, "epochs is left alone"),
        (["grpo", "rloo"], {"dial.lag": 2}, "the batch is frozen; leave dial.lag out"),
        (["grpo", "reinforce"], {"steps": 1}, "reinforce cannot replay this batch: REINFORCE takes one gradient step per batch"),
        (["grpo", "dapo:overlong_buffer=13"], {}, "cannot replay this batch: overlong_buffer is 13, more than the 12 tokens"),
        (["grpo", "rloo"], {"steps": -1}, "--steps is -1"),
        (["grpo", "rloo"], {"rows": 0}, "--rows is 0"),
    ],
)
def test_bad_input_is_one_sentence(run: Path, names: list[str], options: dict[str, Any], message: str) -> None:
    with pytest.raises(RheostatError) as error:
        rheostat.disagree(run, names, task=Lenient(), **options)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_runs_that_cannot_be_frozen(model: str, tmp_path: Path) -> None:
    with pytest.raises(RheostatError, match="There is no run in"):
        rheostat.disagree(tmp_path / "nothing", ["grpo", "rloo"])
    imitated = trained(tmp_path / "sft", model, "sft")
    with pytest.raises(RheostatError, match="is a run of sft: it imitates demonstrations"):
        rheostat.disagree(imitated, ["grpo", "rloo"], task=Lenient())
    with pytest.raises(RheostatError, match="give a list of names"):
        rheostat.disagree(imitated, "grpo")


# --- output ------------------------------------------------------------------------------------------------------------------------------


def test_command_prints_and_writes(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reward = tmp_path / "reward.py"
    reward.write_text("def odd(completions, **kwargs):\n    return [float(sum(map(ord, text)) % 2) for text in completions]\n")
    settings = small("grpo", model, "chain-sum", steps=3, learning_rate=4e-3, rewards=(f"{reward}:odd",))
    directory = tmp_path / "run"
    Run.create(directory, settings).train().close()
    words = [
        "disagree",
        str(directory),
        "grpo",
        "dr-grpo",
        "cispo:clip_high=0.5",
        "--steps",
        "2",
        "--rows",
        "3",
        "--output",
        str(tmp_path / "out"),
    ]
    parse([*words, "--options", "kl_coefficient", "0"]).run()
    printed = " ".join(capsys.readouterr().out.split())
    for text in ("Cosine of the gradients", "cispo:clip_high=0.5", "moved by 2 of its own steps", "disagree.png"):
        assert text in printed
    parse([*words, "--json", "--options", "kl_coefficient", "0"]).run()
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((tmp_path / "out" / "disagree.json").read_text()) | {"facts": found["facts"]}
    assert found["methods"][2]["settings"] == {"kl.coefficient": 0, "clip.high": 0.5} and len(found["rollouts"]) == 3
    tensors = load_file(tmp_path / "out" / "tokens.safetensors")
    assert len(tensors["weight/dr-grpo"]) == found["facts"]["tokens"] == int(tensors["mask"].sum())
    shown = found["rollouts"][0]
    begin = int(tensors["mask"][: shown["row"]].sum()) + shown["first"]
    assert tensors["weight/grpo"][begin : begin + len(shown["tokens"])].tolist() == shown["weights"]["grpo"]
    assert (tmp_path / "out" / "disagree.png").stat().st_size > 10_000 and "dr-grpo" in (tmp_path / "out" / "disagree.svg").read_text()
    page = (tmp_path / "out" / "disagree.html").read_text()
    assert "Same data, different method</h2>" in page and "cispo:clip_high=0.5" in page


def test_a_place_that_cannot_be_written_is_an_error(still: Disagreement, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RheostatError, match="Could not write"):
        save_result(still, tmp_path / "file" / "below")
