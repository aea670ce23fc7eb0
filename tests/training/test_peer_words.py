"""A newcomer's words: names of settings in other libraries are answered with the name here."""

from __future__ import annotations

import dataclasses

import pytest

import rheostat
from rheostat.cli.entry import parse
from rheostat.cli.train import ControlOptions, LanguageOptions
from rheostat.errors import RheostatError
from rheostat.methods import table
from rheostat.options import options_of
from rheostat.training import peer_words
from rheostat.training.settings import Settings

OPTIONS = {name: options_of(row.load()()) for name, row in table.METHODS.items()}
SETTINGS = {
    "language": {item.name for each in (LanguageOptions, Settings) for item in dataclasses.fields(each)},
    "control": {item.name for each in (ControlOptions, Settings) for item in dataclasses.fields(each)},
}
TABLES = {"language": (*peer_words.LANGUAGE, *peer_words.RUNS), "control": (*peer_words.CONTROL, *peer_words.RUNS)}


@pytest.mark.parametrize("domain", TABLES)
def test_every_word_is_of_something_that_exists(domain: str) -> None:
    paths = {each.path for name, options in OPTIONS.items() if table.entry(name).domain == domain for each in options}
    for word in TABLES[domain]:
        assert word.peers and set(word.peers) <= set(peer_words.PEERS)
        assert all(here in paths | SETTINGS[domain] for here in word.here), word


@pytest.mark.parametrize(
    ("method", "name", "here"),
    [
        ("grpo", "num_generations", "of TRL is group_size (groups.size) here"),
        ("grpo", "max-completion-length", "of TRL is max_new_tokens (sampling.max_new_tokens) here"),
        ("grpo", "beta", "of TRL is kl_coefficient (kl.coefficient) here"),
        ("grpo", "dataset", "of TRL is prompts here"),
        ("grpo", "train_batch_size", "of verl is prompts_per_batch (groups.prompts) here"),
        ("sft", "dataset_path", "of TRL is experts here"),
        ("ppo", "n_steps", "of Stable-Baselines3 is batch_steps (collect.steps) here"),
        ("ppo", "batch_size", "It counts steps"),
        ("ppo", "ent_coef", "of Stable-Baselines3 and CleanRL is entropy_coefficient"),
        ("ppo", "total_timesteps", "of Stable-Baselines3 and CleanRL is steps here"),
        ("sac", "buffer_size", "of Stable-Baselines3 and CleanRL is replay_capacity (replay.capacity) here"),
        ("grpo", "resume_from_checkpoint", "`rheostat resume RUN` continues a run"),
    ],
)
def test_a_word_of_a_peer_is_answered_with_the_one_here(method: str, name: str, here: str) -> None:
    with pytest.raises(RheostatError) as typed:
        parse(["train", method, "task", f"--{name}", "1"])
    assert here in str(typed.value)
    with pytest.raises(RheostatError) as called:
        rheostat.train(method, "CartPole-v1" if table.entry(method).domain == "control" else "chain-sum", **{name.replace("-", "_"): 1})
    assert here in str(called.value)


def test_an_option_of_the_method_is_never_taken_for_a_peers() -> None:
    assert parse(["train", "dpo", "task", "--beta", "0.3"]).beta == 0.3
    assert parse(["train", "sac", "task", "--batch-size", "32"]).batches__size == 32


def test_a_name_that_is_like_no_other_is_not_guessed() -> None:
    with pytest.raises(RheostatError, match=r"Unknown option of grpo 'banana': `rheostat train grpo --help` lists them\."):
        parse(["train", "grpo", "task", "--banana", "1"])
