"""Options that cannot act under the other ones are refused in one sentence; those that are left to another option are not confused by 0."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rheostat.errors import RheostatError
from rheostat.methods import table
from rheostat.options import options_of, short_names, value_or
from rheostat.policies.control.actor_critic import ActorCritic
from rheostat.tasks.control.environments import make
from rheostat.training.building import build_method
from rheostat.training.settings import configure, plain
from tests.tiny_control import CONTROL, built, learner, small

ONE_EXPERT = {"mixture_size": 1}
NO_MODEL = {"model_part": 0.0, "gate": "never"}
NO_POLICIES = {"policy_part": 0.0}

IDLE: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("ppo", {}, {"kl_stop": "before-step"}),
    ("props", {"target_kl": None}, {"kl_stop": "after-epoch"}),
    ("pmoe-ppo", {"clip_kind": "none", "clip_value": False}, {"clip": 0.1}),
    ("ppo", {"dial.updates_per_batch": 2}, {"epochs": 3}),
    ("a2c", {"dial.updates_per_batch": 2}, {"minibatches": 2}),
    ("props", {"behaviour_epochs": 1, "behaviour_minibatches": 1}, {"behaviour_target_kl": 0.1}),
    ("robust-acting", {"repair_probability": 0.0}, {"quantiles": 5}),
    ("sac", {"temperature": 0.1}, {"temperature_form": "log"}),
    ("cql", {"temperature": 0.1}, {"temperature_form": "exp"}),
    ("rlpd", {"temperature": 0.1}, {"initial_temperature": 0.5}),
    ("pmoe", {"temperature": 0.1}, {"target_entropy": -1.0}),
    ("mbpo", {"temperature": 0.1}, {"temperature_learning_rate": 1e-3}),
    ("mbpo", {"tau": 0.0}, {"target_every": 2}),
    ("mbpo", {}, {"rollout_length_steps": (0, 10)}),
    ("mbpo", {}, {"imagined_share_steps": (0, 10)}),
    ("mbpo", {"imagined_share": (1.0, 1.0)}, {"imagined_mixing": "batches"}),
    ("vagram", {"model_loss": "mse"}, {"value_functions": "targets"}),
    ("vagram", {"model_loss": "mse"}, {"squared_error_steps": 0}),
    ("vagram", {"model_loss": "itervaml"}, {"accumulate_gradients": True}),
    ("vagram", {"model_loss": "itervaml"}, {"gradient_quantile": 0.9}),
    ("sac", {"critics": 1}, {"over_critics": "mean"}),
    ("rlpd", {"critics": 1, "target_critics": 1}, {"over_critics": "sum"}),
    ("sac", {}, {"evaluate_episodes": 3}),
    ("td3", {"target_noise": 0.0}, {"noise_clip": 0.1}),
    ("td3-bc", {"noise_clip": 0.0}, {"target_noise": 0.1}),
    ("pmoe", ONE_EXPERT, {"update": "all"}),
    ("pmoe", ONE_EXPERT, {"entropy_of": "mixture"}),
    ("pmoe", ONE_EXPERT, {"mixture_hidden": (8,)}),
    ("pmoe", ONE_EXPERT, {"mixture_coefficient": 0.5}),
    ("pmoe-ppo", ONE_EXPERT, {"mixture_gradient": "score"}),
    ("pmoe-ppo", ONE_EXPERT, {"deterministic": "sampled"}),
    ("pmoe", {"mixture_coefficient": 0.0}, {"mixture_gradient": "score"}),
    ("pmoe", {"batch_reward_scale": 10.0}, {"reward_scale": 2.0}),
    ("pmoe", {"batch_reward_scale": 10.0}, {"reward_shift": 1.0}),
    ("dqn", {"exploration_share": 0.0}, {"exploration_start": 0.7}),
    ("dqn", {"exploration_start": 0.2, "exploration_end": 0.2}, {"exploration_share": 0.3}),
    ("dqn", {"tau": 0.0}, {"target_every": 7}),
    ("cql", {"conservative_weight": 0.0}, {"gap_threshold": 1.0}),
    ("iql", {"inverse_temperature": 0.0}, {"weight_cap": 10.0}),
    ("famo2o", {"balance": "random"}, {"balance_learning_rate": 1e-3}),
    ("famo2o", {"balance": "random"}, {"heat.target_entropy": -1.0}),
    ("famo2o", {"balance": "random"}, {"heat.initial": 0.5}),
    ("famo2o", {"balance": "random"}, {"temperature_learning_rate": 1e-3}),
    ("famo2o-cql", {"balance": "random"}, {"released_map": True}),
    ("uni-o4", {"gate": "never"}, {"gate_every": 7}),
    ("uni-o4", NO_POLICIES, {"gate_every": 7}),
    ("uni-o4", NO_POLICIES, {"gate": "always"}),
    ("uni-o4", NO_POLICIES, {"policy_learning_rate": 1e-3}),
    ("uni-o4", NO_POLICIES, {"clip_decay": "none"}),
    ("uni-o4", NO_MODEL, {"model_networks": 9}),
    ("uni-o4", NO_MODEL, {"horizon": 7}),
    ("uni-o4", {"members": 1, "gate": "always"}, {"starts": 7}),
    ("uni-o4", {"members": 1}, {"diversity": 0.3}),
    ("uni-o4", {"members": 1}, {"choose": "return"}),
    ("uni-o4", {"diversity": 0.0}, {"diversity_kind": "heuristic"}),
    ("uni-o4", {"diversity_kind": "heuristic"}, {"diversity_dimensions": "sum"}),
    ("uni-o4", {"tau": 0.0}, {"target_every": 7}),
]
"""A method, options under which others cannot act, and one of those."""


def refused(error: pytest.ExceptionInfo[RheostatError], method: str, option: str) -> None:
    """One sentence that names the option."""
    sentence = str(error.value)
    options = options_of(table.entry(method).load()())
    path = short_names(options).get(option, option)
    path = next((each.path for each in options if option in (each.path, each.short)), path) if "." not in option else option
    assert sentence.startswith(f"{method}: {path} would do nothing: "), sentence
    assert sentence.endswith(".") and "\n" not in sentence


@pytest.mark.parametrize(("method", "others", "idle"), IDLE, ids=[f"{row[0]}-{next(iter(row[2]))}-{n}" for n, row in enumerate(IDLE)])
def test_what_cannot_act_is_refused_and_the_rest_is_not(method: str, others: dict[str, Any], idle: dict[str, Any]) -> None:
    configure(method, others)
    with pytest.raises(RheostatError) as error:
        configure(method, others | idle)
    refused(error, method, next(iter(idle)))


@pytest.mark.parametrize("method", CONTROL)
def test_every_preset_has_options_that_act_alone(method: str) -> None:
    for preset in (None, *getattr(table.entry(method).load(), "presets", {})):
        config = configure(method, {}, preset=preset)
        assert configure(method, plain(config)) == config


DEFAULT_ROUNDS: dict[str, Any] = {"online_steps": 0, "update_to_data": 1.0}
QUIET = {"backend": "gymnasium"}
IDLE_IN_A_RUN: list[tuple[str, str | None, dict[str, Any], dict[str, Any]]] = [
    ("ppo", None, {}, {"tanh_mean": True}),
    ("bc", "CartPole-v1", {}, {"imitation": "stochastic"}),
    ("robust-acting", None, {}, {"quantiles": 5}),
    ("robust-acting", "Pendulum-v1", {}, {"sampler_correction": "token"}),
    ("robust-acting", "Pendulum-v1", {}, {"ratio_to": "sampler"}),
    ("td3-bc", None, {"online_steps": 0}, {"update_to_data": 0.5}),
    ("iql", None, DEFAULT_ROUNDS, {"offline_share": 0.5}),
    ("cql", None, DEFAULT_ROUNDS, {"conservative_weight_online": 1.0}),
    ("rlpd", None, {"offline": None}, {"offline_share": 0.25}),
    ("dqn", None, {"exploration_share": 0.1}, {"exploration_start": 0.5}),
    ("uni-o4", None, {"online_epochs": 10, "online_minibatch": 128, "online_steps": 0}, {"online_batch_steps": 16}),
    ("uni-o4", None, {}, {"gate_every": 77}),
    ("uni-o4", None, {}, {"diversity_dimensions": "sum"}),
]
"""A method, a task, options, and one that cannot act in such a run."""


@pytest.mark.parametrize(
    ("method", "task", "others", "idle"), IDLE_IN_A_RUN, ids=[f"{row[0]}-{next(iter(row[3]))}" for row in IDLE_IN_A_RUN]
)
def test_what_cannot_act_in_a_run_is_refused(method: str, task: str | None, others: dict[str, Any], idle: dict[str, Any]) -> None:
    with pytest.raises(RheostatError) as error:
        learner(method, task, **(QUIET | others | idle))
    refused(error, method, next(iter(idle)))


def test_what_acts_elsewhere_is_taken() -> None:
    learner("ppo", "Pendulum-v1", tanh_mean=True, **QUIET).close()
    learner("td3-bc", **DEFAULT_ROUNDS, **QUIET).close()
    learner("bc", "Pendulum-v1", imitation="stochastic", **QUIET).close()


def test_a_network_that_is_handed_over_has_no_hidden_layers_to_set() -> None:
    worlds = make("CartPole-v1", num_envs=1, seed=0)
    network = ActorCritic(worlds.observation_space, worlds.action_space)
    settings = small("ppo")
    with pytest.raises(RheostatError) as error:
        build_method(settings, settings.task, policy=network)
    refused(error, "ppo", "hidden")
    settings = small("ppo", hidden=(64, 64))
    build_method(settings, settings.task, policy=network).close()


# --- options that are left to another one ------------------------------------------------------------------------------------------------


def test_zero_is_a_value() -> None:
    assert value_or(None, 3.0) == 3.0 and value_or(0.0, 3.0) == 0.0 and value_or(2.0, 3.0) == 2.0


@pytest.mark.parametrize("method", ["sac", "pmoe", "rlpd", "td3", "td3-bc", "awac", "iql", "famo2o", "cql", "famo2o-cql"])
def test_a_learning_rate_of_zero_keeps_the_critics(method: str) -> None:
    one = built(method, critic_learning_rate=0.0, **QUIET)
    names = [name for name in ("critics", "values") if name in one.parts()]
    before = {name: one.parts()[name].parameters.vector.detach().clone() for name in (*names, "actor")}
    while one.updates < 25:
        one.turn()
    now = {name: one.parts()[name].parameters.vector for name in before}
    assert all(torch.equal(before[name], now[name]) for name in names)
    assert not torch.equal(before["actor"], now["actor"])
    one.close()
