"""The dial in control and in language: what acts, what is kept, exact resume, and what is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rheostat.api import settings_for
from rheostat.collect.language.language_collectors import experts_of
from rheostat.errors import RheostatError
from rheostat.experiments.language_runs import evaluate_language
from rheostat.learner.dial import Dial
from rheostat.methods import table
from rheostat.training.building import build_method
from rheostat.training.run import Interrupted, Run
from rheostat.training.settings import configure, derived
from rheostat.trajectories import Source
from tests.crash import differences
from tests.methods.test_language_methods import Lenient, built, save, small
from tests.training.test_run import StopAfter
from tests.training.test_run import small as small_control


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def expert(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A finished control run."""
    directory = tmp_path_factory.mktemp("expert") / "run"
    Run.create(directory, small_control("ppo", steps=128)).train().close()
    return str(directory)


PASSES = {"epochs": 10, "minibatches": 32}
"""The method's own, which the dial replaces."""


def control(**options: Any) -> Any:
    settings = small_control("ppo", **((PASSES if "dial.updates_per_batch" in options else {}) | options))
    return build_method(settings, settings.task)


def weights(method: Any) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in method.policy.parameters()]


# --- who acts ----------------------------------------------------------------------------------------------------------------------------


def test_a_lagged_language_policy_samples_with_old_weights(model: str) -> None:
    one = built("grpo", model, steps=6, **{"dial.lag": 2})
    states = []
    for update in range(5):
        states.append({name: value.clone() for name, value in one.policy.state_dict().items()})
        retained = one.retain(one.collect())
        batch = retained.rows
        then = max(0, update - 2)
        assert batch.version[batch.mask].unique().tolist() == [then]
        assert set(batch.source[batch.mask].tolist()) == {int(Source.STALE if update else Source.FRESH)}
        now = one.policy.state_dict()
        now = {name: value.clone() for name, value in now.items()}
        one.policy.load_state_dict(states[then])
        with torch.no_grad():
            logp = one.context.score(batch).logp
        torch.testing.assert_close(logp[batch.mask], batch.sampler_logp[batch.mask], atol=1e-4, rtol=0)
        one.policy.load_state_dict(now)
        one.context.sync_engine()
        metrics = one.improve(one.credit(retained))
    assert metrics["meter/age_mean"] == 2 and metrics["meter/kl_behaviour_k3"] > 0 and metrics["meter/age_share_2_3"] == 1


def test_a_lagged_actor_acts_with_old_weights_and_statistics() -> None:
    one = control(steps=1000, **{"dial.lag": 2})
    seen = []
    for update in range(5):
        context = one.context
        observation = context.collector.observation.clone()
        policy = context.act_on_target(observation).parameters.detach().clone()
        seen.append((observation, policy, context.stores["observations"].mean.clone()))
        batch = one.collect()
        assert batch.rows.version.unique().tolist() == [max(0, update - 2)]
        assert torch.equal(context.models["acting"].statistics.mean, seen[max(0, update - 2)][2])
        one.improve(one.credit(one.retain(batch)))
    old, expected, _ = seen[3]
    acting = context.models["acting"].exploring(context.see(old, "acting"))
    torch.testing.assert_close(acting.parameters, expected)  # after five updates, that of update 3 acts


def test_measuring_is_of_the_present_policy(model: str) -> None:
    plain, lagged = built("grpo", model), built("grpo", model, **{"dial.lag": 1})
    for one in (plain, lagged):
        one.turn()  # the first batch is the same: both sample with the initial weights
    assert all(torch.equal(a, b) for a, b in zip(weights(plain), weights(lagged), strict=True))
    assert plain.context.measure(8) == lagged.context.measure(8)
    old, new = lagged.collect().rows, plain.collect().rows
    assert old.version.max() == 0 and new.version[new.mask].unique().tolist() == [1]


def test_experts_join_every_group(model: str) -> None:
    one = built("grpo", model, max_new_tokens=48, **{"dial.expert_share": 0.5})
    metrics = one.turn()
    batch = one.context.graded.trajectories
    expert = batch.source[:, 0] == int(Source.EXPERT)
    groups, sizes = batch.group[:, 0].unique(return_counts=True)
    assert sizes.tolist() == [4] * len(groups) and int(expert.sum()) == 2 * len(groups)
    assert sorted(batch.group[expert, 0].tolist()) == sorted(2 * groups.tolist())
    assert metrics["meter/age_max"] == 0 and metrics["expert_reward"] >= 0  # what nobody's version sampled has no age
    assert {"meter/expert/logp", "meter/fresh/ess", "meter/expert/clip_fraction"} <= set(metrics) and "meter/expert/ess" not in metrics


def test_an_expert_acts_in_worlds_of_its_own(expert: str) -> None:
    one = control(experts=expert, **{"dial.expert_share": 0.5})
    kept = one.retain(one.collect())
    assert len(kept) == 8 and [int(source) for source in kept.rows.source[:, 0]] == [int(Source.FRESH)] * 4 + [int(Source.EXPERT)] * 4
    metrics = one.improve(one.credit(kept))
    assert metrics["meter/share_expert"] == pytest.approx(0.5, abs=0.05) and metrics["meter/expert/kl_behaviour_k3"] > 0
    one.close()


# --- what is kept ------------------------------------------------------------------------------------------------------------------------


def test_whole_groups_are_replayed_until_they_are_too_old(model: str) -> None:
    one = built("grpo", model, steps=6, **{"dial.replay_share": 0.5, "dial.replay_age": 2})
    seen: dict[int, int] = {}
    for update in range(5):
        retained = one.retain(one.collect())
        batch = retained.rows
        replayed = batch.source[:, 0] == int(Source.REPLAY)
        assert int(replayed.sum()) == (16 if update else 0)
        for group in batch.group[replayed, 0].unique().tolist():
            assert int((batch.group[:, 0] == group).sum()) == 4 and 1 <= update - seen[group] <= 2
        seen |= dict.fromkeys(batch.group[~replayed, 0].tolist(), update)
        metrics = one.improve(one.credit(retained))
        assert len(one.rollouts(8)) == 8 and all(row["advantage"] for row in one.rollouts(8))
    assert metrics["meter/age_max"] <= 2
    assert metrics["meter/share_replay"] == pytest.approx(0.5, abs=0.2)


def test_rows_of_environments_are_replayed() -> None:
    one = control(**{"dial.replay_share": 0.75, "dial.replay_age": 3})
    sizes = []
    for _ in range(5):
        kept = one.retain(one.collect())
        sizes.append(len(kept))
        one.improve(one.credit(kept))
    assert sizes == [4, 8, 12, 16, 16]  # four fresh rows, and at most twelve of the last three batches


# --- how the policy moves ----------------------------------------------------------------------------------------------------------------


def test_updates_per_batch(model: str) -> None:
    assert [built("grpo", model, **{"dial.updates_per_batch": n}).turn()["gradient_steps"] for n in (0, 1, 3)] == [1, 1, 3]
    assert [control(**{"dial.updates_per_batch": n}).turn()["gradient_steps"] for n in (0, 1, 3)] == [1, 1, 3]
    assert control().turn()["gradient_steps"] == 4


def test_zero_changes_nothing(model: str) -> None:
    zero = {"dial.lag": 0, "dial.replay_share": 0.0, "dial.expert_share": 0.0}
    plain, dialled = built("grpo", model), built("grpo", model, **zero)
    assert [plain.turn() for _ in range(2)] == [dialled.turn() for _ in range(2)]
    plain, dialled = control(), control(**zero)
    assert [plain.turn() for _ in range(2)] == [dialled.turn() for _ in range(2)]


def test_corrections_of_a_stale_batch() -> None:
    """Denominator sampler: the first ratio is learner over sampler; a weight beside the ratio does the same to the first gradient."""
    options: dict[str, Any] = {
        "dial.lag": 2, "dial.updates_per_batch": 1, "normalise_observations": False, "normalise_advantage": False, "max_grad_norm": 1e9,
        "value_coefficient": 0.0, "learning_rate": 0.05, "anneal": False,
    }  # fmt: skip
    ends = {}
    for name, own in {
        "none": {}, "ratio": {"ratio_to": "sampler", "clip_kind": "none"}, "weight": {"sampler_correction": "token", "sampler_cap": 1e9}
    }.items():  # fmt: skip
        one = control(**options, **own)
        for _ in range(4):
            one.turn()
        ends[name] = torch.cat([parameter.flatten() for parameter in weights(one)])
    torch.testing.assert_close(ends["ratio"], ends["weight"], atol=1e-5, rtol=0)
    assert (ends["none"] - ends["ratio"]).abs().max() > 1e-3


# --- exact resume ------------------------------------------------------------------------------------------------------------------------

EVERYTHING: dict[str, Any] = {"dial.lag": 2, "dial.replay_share": 0.4, "dial.expert_share": 0.25, "dial.updates_per_batch": 2}


@pytest.mark.parametrize("method", ["grpo", "tis", "ppo-lm"])
def test_a_dialled_language_run_is_resumed_exactly(method: str, model: str, tmp_path: Path) -> None:
    own = {"dial.expert_share": 0.0, "minibatches": configure("ppo-lm", {}).update.minibatches} if method == "ppo-lm" else {}
    options = EVERYTHING | own | {"steps": 6, "max_new_tokens": 48, "evaluate_every": 2, "evaluation_prompts": 4}
    whole = Run.create(tmp_path / "whole", small(method, model, **options), task=Lenient()).train()
    halted = Run.create(tmp_path / "halted", small(method, model, **options), task=Lenient())
    with pytest.raises(Interrupted):
        halted.train(progress=StopAfter(4))
    Run.load(tmp_path / "halted", task=Lenient()).train()
    assert differences(tmp_path / "whole", tmp_path / "halted") == []
    assert whole.metrics[-1]["meter/age_max"] >= 2


@pytest.mark.parametrize("backend", ["envpool", "gymnasium"])
def test_a_dialled_control_run_is_resumed_exactly(backend: str, expert: str, tmp_path: Path) -> None:
    options = EVERYTHING | PASSES | {"backend": backend, "experts": expert, "steps": 640}
    Run.create(tmp_path / "whole", small_control("ppo", **options)).train()
    halted = Run.create(tmp_path / "halted", small_control("ppo", **options))
    with pytest.raises(Interrupted):
        halted.train(progress=StopAfter(6))
    Run.load(tmp_path / "halted").train()
    assert differences(tmp_path / "whole", tmp_path / "halted") == []


# --- bad input ---------------------------------------------------------------------------------------------------------------------------


def refused(sentence: str, method: str = "grpo", **options: Any) -> None:
    with pytest.raises(RheostatError, match=sentence) as error:
        configure(method, {name.replace("dial_", "dial."): value for name, value in options.items()})
    assert "\n" not in str(error.value)


def test_what_a_method_cannot_honour_is_refused_while_parsing(model: str, expert: str) -> None:
    refused("dial.lag is -1; it must be at least 0", dial_lag=-1)
    refused(r"dial.replay_share is 1.0; it must be at least 0 and below 1", dial_replay_share=1.0)
    refused("leave nothing for the policy's own data", dial_replay_share=0.5, dial_expert_share=0.5)
    refused(
        "asks for 3 times as many old data as fresh ones, but dial.replay_age keeps only the last 2 batches",
        dial_replay_share=0.75,
        dial_replay_age=2,
    )
    refused("dial.replay_age is 0; it must be at least 1", dial_replay_share=0.25, dial_replay_age=0)
    refused("Unknown option of grpo 'dial.lagg': did you mean dial.lag", dial_lagg=1)
    refused("dial.lag is 'x'; it must be of type int", dial_lag="x")
    refused("no whole completion", group_size=4, dial_expert_share=0.05)
    refused("leaves no completion of the policy's own", group_size=4, dial_expert_share=0.95)
    refused("sft cannot honour dial.lag: nothing is sampled", "sft", dial_lag=1)
    refused("luffy cannot honour dial.expert_share", "luffy", dial_expert_share=0.5)
    refused("props cannot honour dial.lag: who acts is its own behaviour policy", "props", dial_lag=1)
    refused("robust-acting cannot honour dial.replay_share", "robust-acting", dial_replay_share=0.5)
    refused("both use earlier batches again", "ppo-buffer", dial_replay_share=0.5)
    refused("it is done twice", "ppo", ratio_to="sampler", sampler_correction="token")
    refused("a2c has no option limit", "a2c", limit="none")
    refused("a2c has no option ratio_to", "a2c", ratio_to="sampler")
    with pytest.raises(RheostatError, match=r"dial\.lag is 8, but the whole run makes about 2 updates"):
        built("grpo", model, **{"dial.lag": 8})
    with pytest.raises(RheostatError, match=r"dial\.lag is 99, but the whole run makes about 15 updates"):
        control(**{"dial.lag": 99})
    with pytest.raises(RheostatError, match="needs an expert: name the directory of a run"):
        control(**{"dial.expert_share": 0.5})
    with pytest.raises(RheostatError, match=r"--experts x has no effect without dial\.expert_share"):
        control(experts="x")
    with pytest.raises(RheostatError, match="was trained on CartPole-v1, not on Acrobot-v1"):
        settings = settings_for("ppo", "Acrobot-v1", experts=expert, **{"dial.expert_share": 0.5})
        build_method(settings, settings.task)


def test_every_method_says_what_it_cannot_honour() -> None:
    names = set(Dial.__dataclass_fields__)
    for name, row in table.METHODS.items():
        config = configure(name, {})
        if row.domain == "compression":  # every evaluation of a network is fresh: it has no dial
            continue
        assert config.dial.off
        refused: dict[str, str] = {}
        for part in config.compose().parts().values():
            refused |= getattr(part, "refuses", {})
        assert set(refused) <= names and all(refused.values()), name


def test_what_a_share_was_rounded_to_is_said() -> None:
    """A third of eight completions, or of environments beside eight, is no whole number."""
    found = derived("grpo", configure("grpo", {"group_size": 8, "dial.expert_share": 0.3}))
    assert found["expert completions per group"] == "2 of 8"
    found = derived("ppo", configure("ppo", {"num_envs": 8, "dial.expert_share": 0.3}))
    assert found["environments of the expert"] == "3 beside 8"


def test_what_cannot_act_on_the_only_step_is_refused() -> None:
    refused("takes one gradient step per batch", "reinforce", dial_updates_per_batch=4)
    refused("clip.low is None", clip_low=None)
    refused("dual_clip", clip="detached", dual_clip=3.0)


def test_the_command_that_evaluates_is_of_the_present_policy(model: str) -> None:
    """`rheostat evaluate` of a run with a lag samples as one without does, from equal weights."""
    plain, lagged = built("grpo", model), built("grpo", model, **{"dial.lag": 1})
    for one in (plain, lagged):
        one.turn()
    found = [evaluate_language(SimpleNamespace(method=one), 8, 2).scalars() for one in (plain, lagged)]
    assert found[0] == found[1]


def test_experts_of_a_group() -> None:
    assert experts_of(0.125, 8, "dial.expert_share") == 1 and experts_of(0.0, 1, "dial.expert_share") == 0
