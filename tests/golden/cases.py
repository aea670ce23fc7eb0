"""The golden runs: what each of them is, as plain dictionaries. Options have today's names; when names change, they change here alone.

A case is called ``method/what is special``. Its options are those of its family (``LANGUAGE``, ``ON_POLICY``, ``REPLAY``, ``DATA``), then
those of its method (``OWN``), then its own; a ``preset`` gives what none of these do. One key belongs to the harness: ``stop``, the row of
the log after which the interrupted run is stopped. Values that begin with ``@`` are made by ``inputs.py``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

RENAMED: dict[str, str] = {
    f"{prefix}limited_share": f"{prefix}clip_fraction"
    for prefix in (
        "behaviour_", "meter/", "meter/expert/", "meter/fresh/", "meter/hinted/", "meter/replay/", "meter/stale/",
        "column/meter/", "row/meter/", "digger/meter/", "porter/meter/", "scout/meter/",
    )
}  # fmt: skip
"""Metrics that were deliberately renamed, ``{old: new}``: the table keeps the old name."""
ADDED: set[str] = {
    "meter/parity_worst", "abstained_share", "reward_spread", "rare/share", "rare/rewarded", "rare/penalised", "meter/noise_share",
    "validation_calibration_error", "validation_preference_loss", "validation_chosen_log_ratio", "validation_rejected_log_ratio",
}  # fmt: skip
"""Metrics that were deliberately added, by their new names; the table does not know them."""
REMOVED: set[str] = set()
"""Metrics of the table that were deliberately removed."""

Options = dict[str, Any]
ABSENT = object()
"""In the place of a value: the method has no such option."""

LANGUAGE: Options = {
    "task": "@easy", "model": "@model", "steps": 3, "checkpoint_every": 2, "stop": 1, "threads": 1, "rollouts_kept": 0,
    "prompts_per_batch": 4, "group_size": 4, "max_new_tokens": 12, "learning_rate": 1e-3,
    "evaluate_every": 2, "evaluation_prompts": 4, "evaluation_episodes": 0,
}  # fmt: skip
ON_POLICY: Options = {
    "task": "CartPole-v1", "backend": "gymnasium", "steps": 256, "checkpoint_every": 100, "stop": 3, "threads": 1,
    "num_envs": 4, "batch_steps": 64, "epochs": 2, "minibatches": 2, "hidden": (8,), "evaluation_episodes": 0,
    "learning_rate": 1e-2, "clip": 0.05, "clip_value": True,
}  # fmt: skip
REPLAY: Options = {
    "task": "Pendulum-v1", "backend": "gymnasium", "steps": 100, "checkpoint_every": 45, "stop": 4, "threads": 1,
    "num_envs": 2, "batch_size": 16, "hidden": (8,), "start_steps": 30, "update_to_data": 0.5, "replay_capacity": 300, "log_every": 20,
    "evaluation_episodes": 0,
}  # fmt: skip
MODELLED: Options = {
    "rollouts_per_step": 2, "model_every": 10, "model_networks": 3, "model_elites": 2, "model_hidden": (8,), "model_batch_size": 8,
    "model_passes": 2, "imagined_kept": 20, "imagined_share": (0.2, 0.9), "imagined_share_steps": (0, 40),
    "rollout_length": (1, 3), "rollout_length_steps": (0, 60),
}  # fmt: skip
"""Of methods that imagine: rounds of few rollouts in a small model."""
DATA: Options = REPLAY | {"offline": "@pendulum-data", "start_steps": ABSENT, "steps": 110, "online_steps": 40, "stop": 4}
"""Two turns of the loop on a data set, then environment steps."""
REWARD_FREE: Options = DATA | {
    "num_envs": ABSENT, "update_to_data": ABSENT, "replay_capacity": ABSENT, "start_steps": ABSENT,
    "steps": 300, "checkpoint_every": 150, "online_steps": 0, "stop": 2, "task_features": 4, "task_hidden": (8,),
    "evaluation_episodes": 1,
}  # fmt: skip
"""Of methods that learn no rewards from a data set, and nothing else."""
FLEET: Options = {
    "task": "city", "environment_options": {"size": 5, "minutes": 6, "vehicles": 8, "demand": 3.0},
    "steps": 60, "checkpoint_every": 24, "stop": 3, "threads": 1,
    "cities": 2, "batch_size": 16, "updates_per_turn": 3, "hidden": (8,), "judge_every": 2, "judge_cities": 2, "evaluation_episodes": 0,
}  # fmt: skip

PICTURES: Options = {
    "task": "shapes", "environment_options": {"side": 6, "classes": 2, "images": 180, "noise": 0.05}, "teacher": "@chain",
    "steps": 4, "checkpoint_every": 2, "stop": 1, "threads": 1, "rollouts": 3, "child_epochs": 1, "child_batch_size": 30,
    "child_learning_rate": 0.01, "student_epochs": 2, "evaluation_episodes": 1,
}  # fmt: skip
"""Of methods that compress."""

LONGER: Options = {"steps": 4, "stop": 3}
"""Of language runs whose data are older than one update."""
ANSWERS: Options = {
    "task": "bandit-away", "steps": 36, "checkpoint_every": 14, "stop": 2, "threads": 1, "evaluation_episodes": 1,
    "prompts_per_batch": 4, "samples": 4, "reuse": 5, "log_every": 6, "evaluate_every": 12,
}  # fmt: skip
"""On a world of preferences."""

FAMILIES: dict[str, Options] = (
    dict.fromkeys(("a2c", "ippo", "pmoe-ppo", "ppo", "ppo-buffer", "props", "recurrent-ppo", "relic", "robust-acting", "ros"), ON_POLICY)
    | dict.fromkeys(("dqn", "mbpo", "pmoe", "sac", "td3", "vagram"), REPLAY)
    | dict.fromkeys(("awac", "bc", "cql", "famo2o", "famo2o-cql", "iql", "td3-bc", "uni-o4"), DATA)
    | dict.fromkeys(("forward-backward", "laplacian", "td-jepa"), REWARD_FREE)
    | {"rlpd": REPLAY | {"offline": "@pendulum-data"}, "ospo": FLEET, "n2n": PICTURES}
    | dict.fromkeys(("online-offline-gap", "suboptimal-onpolicy-prefs"), ANSWERS)
)
"""All others are language methods."""

OWN: dict[str, Options] = {
    "a2c": {"clip": ABSENT, "clip_value": ABSENT, "epochs": 1, "minibatches": 1},
    "bc": {
        "num_envs": ABSENT, "update_to_data": ABSENT, "replay_capacity": ABSENT,
        "steps": 300, "checkpoint_every": 150, "online_steps": 0, "stop": 2,
    },
    "chord": {"max_new_tokens": 48},
    "cog-rethinker": {"group_size": 2, "prompts_per_batch": 12, "steps": 4, "stop": 3},
    "cql": {"learning_rate": 3e-4, "penalty_actions": 3, "steps": 105, "online_steps": 30, "stop": 3},
    "ctrls": {
        "max_new_tokens": 24, "step_separator": "+", "states": 3, "lesson_prompts": 8, "lesson_samples": 4, "encoder_steps": 10,
        "offline_steps": 3, "offline_chains": 2, "latent_width": 16,
    },
    "dapo": {"overlong_buffer": 4, "max_sampling_rounds": 3},
    "ded": {"group_size": ABSENT, "max_new_tokens": 48, "experts": "@answers", "per_question": 2},
    "dialtree-rpo": {
        "task": "guess-number", "environment_options": {"largest": 1, "smallest_range": 2, "turns": 4}, "max_new_tokens": 1,
        "branches": 2, "width": 3,
    },
    "dqn": {"task": "CartPole-v1", "target_every": 10, "exploration_share": 0.8},
    "famo2o-cql": {"learning_rate": 3e-4, "penalty_actions": 3, "steps": 105, "online_steps": 30, "stop": 3},
    "ghpo": {"task": "@hard", "hint_after": 0, "hint_place": "answer"},
    "ippo": {"task": "@dominance", "backend": ABSENT},
    "light-r1": {"length_margin": 1},
    "luffy": {"max_new_tokens": 48},
    "mbpo": MODELLED,
    "online-offline-gap": {"task": "preference-game-tiny", "samples": 2, "reuse": 2},
    "oorl": {"task": "@translated", "groups_per_batch": 2, "equivalents": 2, "inequivalents": 3, "max_new_tokens": 31},
    "pmoe": {"mixture_size": 3},
    "pmoe-ppo": {"task": "Pendulum-v1", "mixture_size": 3, "judge_hidden": (8,)},
    "ppo-lm": {"group_size": 1, "prompts_per_batch": 8, "minibatches": 2},
    "props": {
        "behaviour_steps": 32, "behaviour_epochs": 2, "behaviour_minibatches": 4, "behaviour_clip": 0.02, "behaviour_learning_rate": 0.01,
        "stop": 5,
    },
    "recurrent-ppo": {"lstm_units": 8},
    "relic": {
        "hidden": ABSENT, "task": "darkroom", "environment_options": {"size": 3, "horizon": 5}, "updates_per_trial": 3, "batch_steps": 48,
        "minibatches": 4, "accumulated_minibatches": 3, "layers": 2, "width": 8, "heads": 2, "inner": 8,
        "warmup_steps": 100, "decay_steps": 200,
    },
    "remix": {"switch_after": 1, "window": 1, "convex_start": 1, "convex_interval": 1},
    "rl-plus": {"max_new_tokens": 48},
    "rlfr": {"max_new_tokens": 48, "offline_steps": 2, "offline_rows": 8, "flow_blocks": 2, "minibatches": 2},
    "rlpd": {"critics": 3, "update_to_data": 1.0, "policy_delay": 2},
    "ros": {"behaviour_steps": 32, "stop": 5},
    **{
        name: {"group_size": ABSENT, "prompts_per_batch": ABSENT, "pairs_per_batch": 4}
        for name in ("cdpo", "dpo", "ipo", "orpo", "polar", "reward-model", "robust-dpo", "simpo")
    },
    "kto": {"group_size": ABSENT, "prompts_per_batch": ABSENT, "answers_per_batch": 4},
    "pairwise-policy-gradient": {"group_size": ABSENT},
    "nft": {"minibatches": 2, "warmup": 0, "max_sampling_rounds": 3},
    "oprl": {
        "task": "guess-number", "environment_options": {"largest": 1, "smallest_range": 2, "turns": 6}, "max_new_tokens": 1,
        "reward_learning_rate": 1e-2, "process_beta": 0.5,
    },
    "treepo": {"segment": 4, "warmup": 0, "overlong_buffer": 4},
    "sft": {"group_size": ABSENT, "max_new_tokens": 48},
    "uni-o4": {
        "update_to_data": ABSENT, "replay_capacity": ABSENT,
        "steps": 240, "online_steps": 32, "checkpoint_every": 100, "log_every": 1, "stop": 4,
        "critic_part": 1.0, "model_part": 1.0, "cloning_part": 1.0, "policy_part": 1.0,
        "critic_hidden": (8,), "value_hidden": (8,), "model_hidden": (8,), "model_networks": 3, "model_elites": 2, "model_batch_size": 16,
        "members": 2, "gate_every": 20, "horizon": 5, "starts": 8,
        "online_batch_steps": 16, "online_minibatch": 8, "online_epochs": 2,
    },
    "vagram": MODELLED | {"model_decay": (5e-5, 5e-5), "target_every": 2},
}  # fmt: skip

LAG: Options = {"dial.lag": 2}
STALE: Options = {"dial.lag": 1}
REPLAYED: Options = {"dial.replay_share": 0.5, "dial.replay_age": 2}
EXPERT: Options = {"dial.expert_share": 0.25, "max_new_tokens": 48}
PASSES_BY_DIAL: Options = {"epochs": ABSENT, "minibatches": ABSENT}
REPEATED: Options = {"dial.updates_per_batch": 3} | PASSES_BY_DIAL
EVERYTHING: Options = LAG | {"dial.replay_share": 0.4, "dial.expert_share": 0.25, "dial.updates_per_batch": 2} | PASSES_BY_DIAL
STEPS: Options = {"epochs": 2, "minibatches": 2}
"""Ratios are 1 in the first gradient step."""

COMPARED: Options = {"comparison": "{prompt}{first}:{second}?", "verdicts": ["1", "2"], "validation_share": 0.3}
"""How a model of digits is asked which of two answers is better."""
PREFERENCES: Options = {"task": "prompts", "preferences": "@pairs"}

GRPO: dict[str, Options] = {
    "grpo/plain": {"evaluation_episodes": 4},
    "grpo/tiny": {"preset": "tiny", "learning_rate": 2e-4},
    "grpo/steps": STEPS,
    "grpo/micro-batches": STEPS | {"micro_batch_rows": 3},
    "grpo/optimizer": {"warmup": 2, "weight_decay": 0.1, "max_grad_norm": 0.01},
    "grpo/searched": {"clip": "searched", "clip_low": 0.4, "epochs": 2, "minibatches": 4},
    "grpo/searched-released": {"clip": "searched", "search": "released", "target": 1.0, "clip_low": 0.4, "clip_low_end": 0.2} | STEPS,
    "grpo/searched-micro-batches": {"clip": "searched", "clip_low": 0.4, "micro_batch_rows": 3} | STEPS,
    "grpo/detached": {"clip": "detached", "clip_low": None, "clip_high": 0.28} | STEPS,
    "grpo/log-clip": {"clip": "log-clip", "clip_low": 0.2, "clip_high": 0.2, "ratio": "sequence"} | STEPS,
    "grpo/unlimited": {"clip": "none"} | STEPS,
    "grpo/dual-clip": {"dual_clip": 1.05, "clip_low": 0.02, "clip_high": 0.02} | STEPS,
    "grpo/unclamped": {"clamp_log_ratio": False, "learning_rate": 0.1, "epochs": 3, "minibatches": 2},
    "grpo/ratio-sequence": {"ratio": "sequence"} | STEPS,
    "grpo/ratio-sequence-token": {"ratio": "sequence-token"} | STEPS,
    "grpo/ratio-sequence-product": {"ratio": "sequence-product"} | STEPS,
    "grpo/token-mean": {"aggregation": "token-mean"} | STEPS,
    "grpo/sequence-sum": {"aggregation": "sequence-sum"} | STEPS,
    "grpo/constant": {"aggregation": "constant"} | STEPS,
    "grpo/constant-given": {"aggregation": "constant", "constant_denominator": 100.0},
    "grpo/advantage-mean-baseline": {"advantage": "mean-baseline"},
    "grpo/advantage-rloo": {"advantage": "rloo"},
    "grpo/advantage-reward": {"advantage": "reward"},
    "grpo/advantage-reinforce-pp": {"advantage": "reinforce-pp"},
    "grpo/advantage-reinforce-pp-baseline": {"advantage": "reinforce-pp-baseline"},
    "grpo/kl-k1": {"kl_estimator": "k1"} | STEPS,
    "grpo/kl-k2": {"kl_estimator": "k2"} | STEPS,
    "grpo/kl-abs": {"kl_estimator": "abs"} | STEPS,
    "grpo/kl-in-reward": {"kl": "reward", "kl_coefficient": 0.04, "advantage": "rloo"} | STEPS,
    "grpo/entropy": {"entropy_coefficient": 0.01},
    "grpo/correction-token": {"sampler_correction": "token", "sampler_cap": 1.01} | STALE | LONGER,
    "grpo/correction-sequence": {"sampler_correction": "sequence", "sampler_cap": 1.01} | STALE | LONGER,
    "grpo/dynamic": {"dynamic": "on", "max_sampling_rounds": 3},
    "grpo/overlong": {"overlong_buffer": 6, "mask_truncated": False},
    "grpo/mask-truncated": {"mask_truncated": True},
    "grpo/top-k-top-p": {"top_k": 10, "top_p": 0.9, "temperature": 0.8} | STEPS,
    "grpo/tokens": {"budget": "generated tokens", "steps": 400, "checkpoint_every": 200},
    "grpo/adapters": {"adapter_rank": 2},
    "grpo/bfloat16": {"dtype": "bfloat16"},
    "grpo/ungraded": {"task": "@ungraded", "max_invalid_share": 1.0},
    "grpo/own-prompts": {"task": "prompts", "prompts": "@prompts", "rewards": ("exact",), "entropy_coefficient": 0.01},
    "grpo/lag": LAG | LONGER,
    "grpo/replayed": REPLAYED | LONGER,
    "grpo/refreshed": LONGER | {"dial.refresh_every": 2},
    "grpo/expert": EXPERT,
    "grpo/expert-file": EXPERT | {"task": "prompts", "prompts": "@prompts", "rewards": ("exact",), "experts": "@prompts"},
    "grpo/repeated": REPEATED,
    "grpo/everything": EVERYTHING | LONGER | {"max_new_tokens": 48},
    "grpo/corrected-everything": EVERYTHING | LONGER | {"max_new_tokens": 48, "sampler_correction": "token", "sampler_cap": 1.05},
    "grpo/searched-everything": EVERYTHING | LONGER | {"max_new_tokens": 48, "clip": "searched", "clip_low": 0.4},
}

RELATIVES: dict[str, Options] = {
    "bapo/plain": {},
    "bapo/tiny": {"preset": "tiny", "learning_rate": 2e-4},
    "bapo/released": {"preset": "released", "learning_rate": 1e-3},
    "bapo/released-script": {"preset": "released-script", "learning_rate": 1e-3, "top_k": 20},
    "bapo/lag": LAG | LONGER,
    "bapo/expert": EXPERT,
    "chord/plain": {},
    "chord/mu": {"preset": "mu", "mu_warmup": 1, "mu_decay": 2},
    "chord/linear": {"preset": "released", "mu_warmup": 1, "mu_decay": 2, "mu_decay_form": "linear"},
    "chord/switch": {"mu_peak": 0.5, "mu_decay": 2, "mu_decay_form": "switch", "expert_weight": "importance"},
    "chord/cutoff": {"cutoff": 0.5, "expert_weight": "shaping"},
    "chord/exploration": {"expert_weight": "exploration"},
    "chord/searched": {"preset": "searched"},
    "chord/replayed": REPLAYED | LONGER,
    "acereason/plain": {},
    "acereason/steps": STEPS | {"easy": "drop", "micro_batch_rows": 3},
    "cispo/plain": {},
    "cog-rethinker/plain": {},
    "cog-rethinker/steps": STEPS | {"last_stage": 1, "shots": 1, "sft_weight": 0.5, "micro_batch_rows": 3},
    "cog-rethinker/lag": LAG | LONGER,
    "cog-rethinker/direct": {"last_stage": 0},
    "dapo/plain": {},
    "dapo/lag": LAG | LONGER,
    "dapo/replayed": REPLAYED | LONGER,
    "dapo/expert": EXPERT,
    "dapo/repeated": REPEATED,
    "dr-grpo/plain": {},
    "dr-grpo/everything": EVERYTHING | LONGER | {"max_new_tokens": 48},
    "ghpo/plain": {},
    "ghpo/question": {"hint_place": "question", "hint_after": 1, "hint_unit": "characters", "hint_separator": "#"},
    "ghpo/accuracy": {"task": "@shaped", "accuracy_part": "right"},
    "ghpo/lag": LAG | LONGER,
    "gmpo/plain": {},
    "gmpo/lag": LAG | LONGER,
    "gspo/plain": {},
    "gspo/everything": EVERYTHING | LONGER | {"max_new_tokens": 48},
    "luffy/plain": {},
    "luffy/steps": STEPS | {"shaping": 0.3},
    "luffy/lag": LAG | LONGER,
    "ppo-lm/plain": {},
    "ppo-lm/discounted": {"gamma": 0.9, "lam": 0.8, "value_clip": None, "kl": "loss", "kl_coefficient": 0.0},
    "ppo-lm/lag": LAG | LONGER,
    "ppo-lm/replayed": REPLAYED | LONGER,
    "ppo-lm/repeated": REPEATED,
    "light-r1/plain": {},
    "light-r1/options": STEPS | {"clip_upper": 1.2, "most_right": 2.0, "least_wrong": -2.0, "exceed_reward": -3.0, "length_margin": 3},
    "light-r1/none": {"length": "none", "length_margin": ABSENT, "entropy_coefficient": 0.01},
    "dpo/taught": LONGER
    | {"data": "taught", "link": "nca", "pairs_per_batch": ABSENT, "prompts_per_batch": 4, "group_size": 4, "max_new_tokens": 48}
    | {"dial.refresh_every": 0},
    "lp-reg/plain": {"rare_share": 0.3, "threshold": 0.2},
    "lp-reg/steps": STEPS | {"rare_share": 0.5, "threshold": 0.3, "threshold_form": "fixed", "delete": False, "micro_batch_rows": 3},
    "self-curation/plain": {"minibatches": 2},
    "self-curation/rehearsed": STEPS | {"rehearsal_coefficient": 0.1, "rehearse": "all", "micro_batch_rows": 3},
    "rise/plain": {"solution_rewards": "task", "minibatches": 3},
    "rise/three": STEPS | {"task": "@spoken", "verification_prompts": 3, "micro_batch_rows": 5, "kl_coefficient": 0.0},
    "dpo/plain": {"task": "prompts", "prompts": "@pairs"},
    "dpo/ipo": {"task": "prompts", "prompts": "@pairs", "link": "ipo", "micro_batch_rows": 2} | STEPS,
    "dpo/sampled": {"data": "sampled", "pairs_per_batch": ABSENT, "prompts_per_batch": 4, "group_size": 4} | STEPS,
    "cdpo/plain": PREFERENCES,
    "ipo/plain": PREFERENCES,
    "ipo/mean": PREFERENCES | {"scale": "mean", "micro_batch_rows": 2} | STEPS,
    "ipo/scaled": PREFERENCES | {"scale": "scaled"} | STEPS,
    "kto/plain": PREFERENCES | {"micro_batch_rows": 3, "undesirable_weight": 1.5} | STEPS,
    "kto/sampled": {"data": "sampled", "answers_per_batch": ABSENT, "prompts_per_batch": 4, "group_size": 4},
    "orpo/plain": PREFERENCES,
    "orpo/answer": PREFERENCES | {"likelihood_of": "answer", "micro_batch_rows": 2} | STEPS,
    "polar/plain": {"task": "prompts", "preferences": "@zoo"},
    "polar/ranked": {"task": "prompts", "preferences": "@zoo", "data": "ranked", "separator": "#", "join": ":", "focal": True}
    | {"penalty": "log-barrier", "micro_batch_rows": 2}
    | STEPS,
    "reward-model/plain": PREFERENCES,
    "reward-model/centred": PREFERENCES | {"centring": 0.01, "micro_batch_rows": 2} | STEPS,
    "robust-dpo/plain": PREFERENCES,
    "simpo/plain": PREFERENCES,
    "simpo/cpo": PREFERENCES | {"preset": "cpo", "micro_batch_rows": 2} | STEPS,
    "simpo/hinge": PREFERENCES | {"link": "hinge"},
    "best-of-n/plain": {},
    "best-of-n/token-mean": {"aggregation": "token-mean", "dynamic": "on", "max_sampling_rounds": 3} | STEPS,
    "online-dpo/plain": {},
    "online-dpo/semi-online": LONGER | {"dial.refresh_every": 2, "ties": "first", "missing_end_penalty": 0.5},
    "online-dpo/offline": LONGER | {"dial.refresh_every": 0},
    "online-dpo/lag": LONGER | LAG,
    "oorl/plain": {"evaluation_episodes": 4},
    "oorl/steps": STEPS
    | {"variance": "sample", "beta_inside_variance": True, "micro_batch_rows": 5, "kl_coefficient": 0.1, "flat_batches": "whiten"},
    "oorl/pairs": LAG | LONGER | {"equivalents": 1, "inequivalents": 1, "kl": "loss", "kl_coefficient": 0.1},
    "oorl/alone": {"preference_weight": 0.0, "groups_per_batch": 32, "equivalents": 4, "inequivalents": 4},
    "oorl/file": {"task": "@easy", "representations": "@groups"},
    "oorl/replayed": REPLAYED | LONGER | {"spread_weight": 0.0},
    "osp/plain": {"evaluation_episodes": 4},
    "osp/difference": LONGER | {"labels": "difference", "baseline": "first", "dial.refresh_every": 2, "judge_refresh_every": 2},
    "osp/direct": {
        "labels": "direct",
        "task": "prompts",
        "preferences": "@pairs",
        "evaluation_episodes": 4,
        "environment_options": COMPARED,
    }
    | STEPS,
    "osp/judged": {"compare_by": "judge", "judge": "@judge", "label_clip": 0.1},
    "osp/hard": LAG | LONGER | {"labels": "hard", "judge_refresh_every": 0},
    "pairwise-policy-gradient/plain": {},
    "pairwise-policy-gradient/joint": {"clip": "joint", "kl_coefficient": 0.04} | STEPS,
    "rwr/plain": {},
    "rwr/softmax": {"weights": "softmax", "weight_temperature": 0.5} | STEPS,
    "rwr/refreshed": LONGER | {"dial.refresh_every": 3},
    "nft/plain": {},
    "nft/odds": {"prompt_weight": "odds", "ratio": "sequence", "divisor": 10.0, "dynamic": "none", "max_sampling_rounds": ABSENT},
    "treepo/plain": {},
    "dialtree-rpo/plain": {},
    "dialtree-rpo/masked": STEPS | {"tags": "1", "prune": "none", "mask": "static", "prefix_mode": "mean", "tree_replies": 6},
    "dialtree-rpo/single-turn": {
        "task": "@easy",
        "max_new_tokens": 12,
        "environment_options": ABSENT,
        "branches": 4,
        "kl_coefficient": 0.0,
    },
    "oprl/plain": {"evaluation_episodes": 4},
    "oprl/released": STEPS | {"preset": "released", "reward_passes": 2, "micro_batch_rows": 3, "reward_learning_rate": 1e-2},
    "oprl/single-turn": {"task": "@easy", "max_new_tokens": 12, "environment_options": ABSENT, "combine": "outcome", "advantage": "rloo"},
    "prime/plain": {"evaluation_episodes": 4},
    "prime/passes": STEPS
    | {"dynamic": "on", "max_sampling_rounds": 3, "reward_passes": 2, "reward_learning_rate": 1e-2, "micro_batch_rows": 3}
    | {"process_beta": 0.5, "whiten": True, "gamma": 0.9},
    "process-reward/plain": {},
    "process-reward/passes": {"reward_passes": 2, "reward_learning_rate": 1e-2, "micro_batch_rows": 3} | STEPS,
    "reinforce/plain": {},
    "reinforce/reward": {"advantage": "reward"},
    "reinforce/lag": LAG | LONGER,
    "reinforce/replayed": REPLAYED | LONGER,
    "reinforce/expert": EXPERT,
    "reinforce-pp/plain": {},
    "reinforce-pp/steps": STEPS,
    "reinforce-pp/lag": LAG | LONGER,
    "remix/plain": LONGER,
    "remix/mixing": LONGER | {"switch_after": 0, "window": 2},
    "remix/no-anchor": LONGER
    | {"kl_coefficient": 0.0, "correction": "none", "switch_after": 3, "window": 2, "convex_start": ABSENT, "convex_interval": ABSENT},
    "remix/behaviour": LONGER | {"correction": "behaviour", "reset_base": False, "switch_after": 3, "convex_drop": 0.3},
    "remix/lag": LONGER | LAG | {"switch_after": 3},
    "rft/plain": {},
    "rft/all": {"threshold": 0.0},
    "rft/replayed": REPLAYED | LONGER,
    "rl-plus/plain": {},
    "rl-plus/learner": {"external": "learner", "statistics": "own", "expert_rows": 2, "external_weight": 0.5},
    "rl-plus/certain": {"external": "certain", "external_cap": 0.5, "exploration": 0.0},
    "rl-plus/lag": LAG | LONGER,
    "rlfr/plain": {},
    "rlfr/options": STEPS
    | {"flow_coefficient": 0.2, "flow_form": "bilateral", "flow_threshold": None, "flow_top_k": 5, "flow_released": True}
    | {"flow_layers": (1,), "flow_pairing": "token-pre", "flow_times": (0.3, 0.8), "flow_passes": 2, "flow_entropy_share": 0.5}
    | {"micro_batch_rows": 3},
    "rlfr/alone": LAG | LONGER | {"offline_steps": 0, "offline_rows": ABSENT, "max_new_tokens": 12, "flow_coefficient": 0.1},
    "rloo/plain": {},
    "rloo/lag": LAG | LONGER,
    "rloo/replayed": REPLAYED | LONGER,
    "rloo/expert": EXPERT,
    "rloo/repeated": REPEATED,
    "ctrls/plain": {},
    "ctrls/options": {"normalise_by_n": True, "eigenvectors": 2, "elbo_beta": 0.5, "adapt_learning_rate": 1e-3, "exploration": 0.0}
    | {"entropy_coefficient": 0.0, "micro_batch_rows": 3, "max_steps": 2},
    "ctrls/control": {"permute_states": True, "encoder_held": 0.0, "adapt_learning_rate": 1e-3, "entropy_coefficient": 0.1},
    "ded/plain": {},
    "ded/whole sets": {"choice": "max-sum", "distance_unit": "characters", "normalise_distance": True, "most_solved": 0.9},
    "ded/own teacher": {"experts": None, "questions": 6, "answers_per_question": 2, "most_solved": 1.0},
    "sft/plain": {},
    "sft/file": {"task": "prompts", "prompts": "@prompts", "rewards": ("exact",)},
    "sft/repeated": REPEATED,
    "tis/plain": {},
    "tis/everything": EVERYTHING | LONGER | {"max_new_tokens": 48},
    "tis/sequence": LAG | LONGER | {"sampler_correction": "sequence", "sampler_cap": 1.01},
}

COMPRESSION: dict[str, Options] = {
    "n2n/plain": {},
    "n2n/authors": {"signal": "epoch", "baseline_divisor": "epochs+1", "step_per": "rollout", "strided_convolutions": "fixed"},
    "n2n/residual": {"teacher": "@blocks", "stop": 3, "most_parameters": 3_000, "child_targets": "labels"},
}

CONTROL: dict[str, Options] = {
    "a2c/plain": {"evaluation_episodes": 1},
    "a2c/envpool": {"backend": "envpool"},
    "a2c/lag": LAG | {"sampler_correction": "token", "sampler_cap": 1.01},
    "a2c/replayed": REPLAYED,
    "ippo/plain": {"evaluation_episodes": 2},
    "ippo/shared": {"share_policies": True, "task": "@coordination"},
    "ippo/quarry": {"task": "@quarry", "share_policies": True},
    "ippo/lag": LAG | {"task": "@quarry"},
    "ippo/replayed": REPLAYED | {"task": "@quarry"},
    "ospo/plain": {"evaluation_episodes": 2},
    "ospo/to-go": {"advantage": "to-go", "fairness": -1.0, "spread": True, "stored_minutes": True},
    "ospo/critic": {"advantage": "critic", "fairness": 0.0, "exploration": 0.2, "forced_rows": False},
    "ospo/held": {"judge_every": 1, "judge_cities": 1, "learning_rate": 0.05, "kl_gate": 0.001, "kl_direction": "both", "steps": 96},
    "ospo/corner": {"task": "city-corner", "learning_rate_decay": 0.5, "standardise": "none", "seed": 3},
    "pmoe-ppo/plain": {"evaluation_episodes": 1},
    "pmoe-ppo/gumbel": {"mixture_gradient": "gumbel", "gumbel_temperature": 0.7, "judge_coefficient": 0.5},
    "pmoe-ppo/score": {"mixture_gradient": "score", "deterministic": "sampled", "entropy_coefficient": 0.01, "evaluation_episodes": 1},
    "pmoe-ppo/goals": {"task": "rheostat/TwoGoals-v0", "mixture_coefficient": 0.3},
    "pmoe-ppo/lag": LAG,
    "ppo/plain": {"evaluation_episodes": 2},
    "ppo/envpool": {"backend": "envpool"},
    "ppo/pendulum": {"task": "Pendulum-v1", "entropy_coefficient": 0.01},
    "ppo/pendulum-envpool": {"task": "Pendulum-v1", "backend": "envpool", "tanh_mean": True},
    "ppo/grid": {"task": "rheostat/GridWorld5x5-v0"},
    "ppo/window": {"window": 2},
    "ppo/target-kl": {"target_kl": 1e-3, "epochs": 4},
    "ppo/target-kl-before": {"target_kl": 1e-3, "kl_stop": "before-step", "epochs": 4},
    "ppo/detached": {"clip_kind": "detached"},
    "ppo/unlimited": {"clip_kind": "none"},
    "ppo/ratio-to-sampler": {"ratio_to": "sampler"} | STALE,
    "ppo/correction": {"sampler_correction": "token", "sampler_cap": 1.01} | STALE,
    "ppo/raw": {"normalise_observations": False, "normalise_rewards": False, "normalise_advantage": False, "clip_value": False},
    "ppo/timeouts": {"task": "rheostat/GridWorld5x5-v0", "bootstrap_on_truncation": False, "anneal": False, "activation": "relu"},
    "ppo/sampling-error": {"sampling_error_every": 2},
    "ppo/images": {"task": "@images", "hidden": ABSENT},
    "ppo/own-network": {"policy": "@network", "hidden": ABSENT},
    "ppo/lag": LAG,
    "ppo/lag-envpool": LAG | {"backend": "envpool"},
    "ppo/replayed": REPLAYED,
    "ppo/expert": {"dial.expert_share": 0.5, "experts": "@expert"},
    "ppo/repeated": REPEATED,
    "ppo/everything": EVERYTHING | {"experts": "@expert", "steps": 384, "stop": 5},
    "ppo/everything-envpool": EVERYTHING | {"experts": "@expert", "steps": 384, "stop": 5, "backend": "envpool"},
    "ppo-buffer/plain": {},
    "ppo-buffer/lag": LAG,
    "ppo-buffer/expert": {"dial.expert_share": 0.5, "experts": "@expert"},
    "props/plain": {"evaluation_episodes": 1},
    "props/envpool": {"backend": "envpool"},
    "props/pendulum": {"task": "Pendulum-v1", "preset": "hopper", "batch_steps": 64, "behaviour_steps": 32, "behaviour_minibatches": 4},
    "props/discrete": {"preset": "discrete", "batch_steps": 64, "behaviour_steps": 32, "behaviour_minibatches": 4},
    "props/discrete-v2": {"preset": "discrete-v2", "batch_steps": 64, "behaviour_steps": 16, "behaviour_minibatches": 4},
    "props/weighted": {"advantage_weighted": True, "sampling_error_every": 2},
    "props/repeated": REPEATED,
    "recurrent-ppo/plain": {"evaluation_episodes": 2},
    "recurrent-ppo/envpool": {"backend": "envpool"},
    "recurrent-ppo/pendulum": {"task": "Pendulum-v1", "hidden": (), "target_kl": 1e-3},
    "recurrent-ppo/recall": {"task": "rheostat/Recall-v0", "normalise_observations": False, "minibatches": 3, "evaluation_episodes": 2},
    "recurrent-ppo/images": {"task": "@images", "hidden": ABSENT},
    "recurrent-ppo/lag": LAG | {"sampler_correction": "token", "sampler_cap": 1.01},
    "recurrent-ppo/repeated": REPEATED,
    "relic/plain": {"evaluate_every": 90, "evaluate_episodes": 3},
    "relic/keys": {"task": "keys-and-doors", "full_updates": 3, "ratio_to": "start", "evaluation_episodes": 2},
    "relic/stale": {
        "shuffle_episodes": False, "refresh_cache": False, "sink": "key", "evaluate_every": 90, "evaluate_actions": "deterministic",
    },
    "relic/permuted": {"refresh_cache": False, "sink": "value", "depth_dropout": 0.4, "full_updates": 0},
    "relic/token": {"sink": "token", "normalise_observations": True, "normalise_rewards": True},
    "relic/single-episode": {"across_episodes": False, "updates_per_trial": 1, "sink": "none", "reads_reward": False},
    "relic/envpool": {"task": "CartPole-v1", "environment_options": ABSENT, "backend": "envpool", "sink": "zero"},
    "relic/continuous": {"task": "Pendulum-v1", "environment_options": ABSENT, "longest_episode": 12, "batch_steps": 16},
    "relic/images": {"task": "@images", "environment_options": ABSENT},
    "relic/repeated": REPEATED | {"accumulated_minibatches": ABSENT},
    "robust-acting/plain": {},
    "robust-acting/envpool": {"backend": "envpool"},
    "robust-acting/pendulum": {"task": "Pendulum-v1", "quantiles": 5},
    "robust-acting/pendulum-envpool": {"task": "Pendulum-v1", "backend": "envpool"},
    "robust-acting/always": {"repair_probability": 1.0, "window": 3},
    "ros/plain": {},
    "ros/envpool": {"backend": "envpool"},
    "ros/pendulum": {"task": "Pendulum-v1"},
    "ros/window": {"window": 1, "behaviour_steps": 16},
    "dqn/plain": {"evaluate_every": 60, "evaluate_episodes": 1},
    "dqn/envpool": {"backend": "envpool"},
    "dqn/double": {"double": True, "huber": None, "tau": 0.3},
    "dqn/ranked": {"n_step": 3, "priority": 0.6},
    "dqn/images": {"task": "@images", "hidden": ABSENT},
    "dqn/atari": {"preset": "atari", "start_steps": 30, "update_to_data": 0.5, "replay_capacity": 60, "batch_size": 16, "target_every": 7},
    "sac/plain": {"evaluate_every": 60, "evaluate_episodes": 1, "evaluation_episodes": 1},
    "sac/envpool": {"backend": "envpool"},
    "sac/probe": {"task": "rheostat/Probe-DelayedReward-Continuous-v0"},
    "sac/n-step": {"n_step": 3},
    "sac/ranked": {"priority": 0.6},
    "sac/fixed-temperature": {"temperature": 0.1, "entropy_in_backup": False},
    "sac/log-temperature": {"temperature_form": "log", "initial_temperature": 0.5, "target_entropy": -2.0},
    "sac/critics": {"critics": 3, "critic_normalisation": True, "over_critics": "mean", "critic_scale": 0.5, "critic_learning_rate": 1e-3},
    "sac/overflow": {"replay_capacity": 60, "num_envs": 1, "gamma": 0.9, "tau": 0.1},
    "sac/rewards": {"reward_scale": 0.1, "reward_shift": 1.0},
    "td3/plain": {},
    "td3/envpool": {"backend": "envpool"},
    "td3/noise": {"policy_delay": 3, "target_noise": 0.5, "noise_clip": 0.2, "exploration_noise": 0.3, "n_step": 2},
    "mbpo/plain": {},
    "mbpo/batches": {"imagined_mixing": "batches", "act": "mean"},
    "mbpo/never": {"task": "rheostat/TwoGoals-v0", "imagined_end": "never", "temperature": 0.1},
    "mbpo/small": {"preset": "small"},
    "vagram/plain": {},
    "vagram/small": {"preset": "small"},
    "vagram/released": {"preset": "released", "gradient_quantile": 0.9},
    "vagram/targets": {"value_functions": "targets", "squared_error_steps": 0},
    "vagram/unbounded": {"model_loss": "unbounded"},
    "vagram/itervaml": {"model_loss": "itervaml"},
    "vagram/mse": {"model_loss": "mse"},
    "vagram/distractors": {"environment_options": {"distractors": 3, "distractor_kind": "noise"}},
    "pmoe/plain": {},
    "pmoe/all": {"update": "all", "entropy_of": "mixture"},
    "pmoe/sampled": {"update": "sampled", "mixture_gradient": "gumbel"},
    "pmoe/score": {"mixture_gradient": "score", "mixture_coefficient": 0.5},
    "pmoe/authors": {
        "preset": "authors", "actor_hidden": (8, 8), "mixture_hidden": (4,), "initial_output": None,
        "evaluate_every": 60, "evaluate_episodes": 1,
    },
    "rlpd/plain": {},
    "rlpd/alone": {"offline": None},
    "rlpd/one-buffer": {"offline_share": None, "target_critics": 1},
    "rlpd/antmaze": {"preset": "antmaze", "hidden": (8, 8)},
    "rlpd/adroit": {"preset": "adroit", "hidden": (8, 8)},
}  # fmt: skip

OFFLINE: dict[str, Options] = {
    "awac/plain": {},
    "awac/normalised": {"weights": "normalised", "log_std": (-6.0, 0.0), "offline_share": 0.25},
    "awac/antmaze": {"preset": "antmaze"},
    "awac/ranked": {"priority": 0.6, "weight_cap": 1.05},
    "bc/plain": {},
    "bc/likelihood": {"imitation": "stochastic", "best_share": 0.5},
    "bc/discrete": {"task": "CartPole-v1", "offline": "@cartpole-data", "normalise_states": True},
    "awac/discrete": {"task": "CartPole-v1", "offline": "@cartpole-data"},
    "cql/discrete": {"task": "CartPole-v1", "offline": "@cartpole-data", "entropy_in_backup": True, "penalty_actions": ABSENT},
    "iql/discrete": {"task": "CartPole-v1", "offline": "@cartpole-data"},
    "cql/plain": {},
    "cql/corl": {"preset": "corl"},
    "cql/corl-antmaze": {"preset": "corl-antmaze", "hidden": (8, 8), "learning_rate": 1e-4},
    "cql/gap-plain": {"gap_form": "plain", "gap_temperature": 0.5, "largest_gap": 1.0, "conservative_weight_online": 1.0},
    "cql/imitation": {"imitation_steps": 20, "offline_share": 0.5, "n_step": 2},
    "famo2o/plain": {},
    "famo2o/antmaze": {"preset": "antmaze"},
    "famo2o/random": {"balance": "random", "normalise_states": True, "values_in_use": "before"},
    "famo2o/broadcast": {"released_broadcast": True, "offline_share": 0.5},
    "famo2o-cql/plain": {},
    "famo2o-cql/released": {"released_map": True, "next_coefficient": "current", "simultaneous": True},
    "famo2o-cql/random": {"balance": "random", "imitation_steps": 20},
    "iql/plain": {"evaluate_every": 60, "evaluate_episodes": 1},
    "iql/envpool": {"backend": "envpool"},
    "iql/authors": {"values_in_use": "after", "over_critics": "sum", "normalise_states": False, "log_std": (-5.0, 2.0)},
    "iql/antmaze": {"preset": "antmaze"},
    "iql/offline": {
        "online_steps": 0, "steps": 210, "stop": 1, "offline": "@long-data", "replay_capacity": 500, "scale_returns_to": 100.0,
        "update_to_data": ABSENT,
    },
    "iql/share": {"offline_share": 0.25, "n_step": 2, "anneal": True},
    "forward-backward/plain": {"evaluate_every": 100, "evaluate_episodes": 1},
    "forward-backward/pessimistic": {"pessimism": 0.5, "predictors": 3, "scale_goals": True, "imitation": 0.5},
    "laplacian/plain": {},
    "laplacian/flow": {"actor": "flow", "imitation": 1.0, "normalise_states": True},
    "td-jepa/plain": {"state_features": 5, "evaluate_every": 100, "evaluate_episodes": 1},
    "td-jepa/symmetric": {"form": "symmetric", "state_features": 5, "task_features": ABSENT, "task_hidden": ABSENT, "imitation": 0.3},
    "td-jepa/flow": {"state_features": 5, "actor": "flow", "imitation": 3.0, "actor_reads": "observation", "scale_goals": True},
    "td-jepa/small": {"preset": "small", "task_features": ABSENT, "task_hidden": ABSENT, "hidden": ABSENT, "steps": 120, "stop": 1},
    "td3-bc/plain": {},
    "td3-bc/share": {"offline_share": 0.25},
    "td3-bc/ranked": {"priority": 0.6, "n_step": 2, "alpha": 1.0},
    "uni-o4/plain": {"steps": 440, "stop": 3},
    "uni-o4/envpool": {"backend": "envpool", "stop": 5},
    "uni-o4/iql": {"critics": "iql", "expectile": 0.8, "gate": "always", "fixed_starts": True, "stop": 2},
    "uni-o4/no-model": {
        "model_part": 0.0, "gate": "never", "diversity_kind": "heuristic", "activation": "tanh", "model_hidden": ABSENT,
        "model_networks": ABSENT, "model_elites": ABSENT, "model_batch_size": ABSENT, "gate_every": ABSENT, "horizon": ABSENT,
        "starts": ABSENT,
    },
    "uni-o4/choose": {"choose": "return", "choose_among": 2, "choose_episodes": 1, "deploy": "best", "online_steps": 440},
    "uni-o4/released": {
        "log_std_online": "double-tanh", "clip_actions": True, "clip_decay": "released", "bootstrap_on_truncation": False,
        "online_anneal": False, "offline_entropy": 0.01,
    },
    "uni-o4/small": {
        "preset": "small", "steps": 370, "hidden": (8,), "critic_hidden": (8,), "value_hidden": (8,), "model_hidden": (8,),
        "batch_size": 16, "horizon": 5,
    },
}  # fmt: skip

PREFERENCES: dict[str, Options] = {
    "online-offline-gap/plain": {},
    "online-offline-gap/offline": {"on_policy_sampling": False},
    "online-offline-gap/best-of-2": {"loss": "best-of-n"},
    "suboptimal-onpolicy-prefs/plain": {},
    "suboptimal-onpolicy-prefs/offline": {"on_policy_sampling": False, "reuse": 0, "loss": "best-of-n", "learning_rate": 1e-3},
    "suboptimal-onpolicy-prefs/pushed": {"loss": "best-of-n", "negative_gradient": "worst", "negative_weight": 0.3, "static_share": 0.5},
    "suboptimal-onpolicy-prefs/reinforce": {"loss": "reinforce", "baseline": "moving-average", "max_grad_norm": 1.0},
    "suboptimal-onpolicy-prefs/ppo": {"loss": "ppo", "task": "sequence-away", "kl_coefficient": 0.05, "learning_rate": 1e-3},
    "suboptimal-onpolicy-prefs/dpo": {"loss": "dpo", "pair_threshold": 0.01},
    "suboptimal-onpolicy-prefs/rwr": {"loss": "rwr", "temperature": 0.5},
}

CASES: dict[str, Options] = GRPO | RELATIVES | CONTROL | OFFLINE | PREFERENCES | COMPRESSION


QUICK = ("plain", "steps")
"""Cases of every run of the tests, two of most methods; the others are compared at night, and by ``python -m tests.golden``."""


class Setting(NamedTuple):
    """A case, spelled out."""

    method: str
    task: str
    options: Options
    stop: int
    slow: bool


def setting(name: str) -> Setting:
    """The whole setting of a case."""
    method = name.partition("/")[0]
    options = FAMILIES.get(method, LANGUAGE) | OWN.get(method, {}) | CASES[name]
    options = {key: value for key, value in options.items() if value is not ABSENT}
    task, stop = options.pop("task"), options.pop("stop")
    return Setting(method, task, options, stop, name.partition("/")[2] not in QUICK)
