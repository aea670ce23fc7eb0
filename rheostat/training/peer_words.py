"""Names of settings in TRL, verl, Stable-Baselines3 and CleanRL, and what they are called here: for error messages and for the glossary."""

from __future__ import annotations

from dataclasses import dataclass

from rheostat.options import Option, short_names

PEERS = ("TRL", "verl", "Stable-Baselines3", "CleanRL")


@dataclass(frozen=True)
class Word:
    """One thing that has a name here and other names elsewhere.

    Attributes:
        here: paths of options (``groups.size``) or names of run settings (``steps``); a method has at most one of the options.
        what: what it is, in the field's words.
        peers: its names by peer; of verl, the last part of the dotted name.
        note: what differs, as a sentence, or empty.
    """

    here: tuple[str, ...]
    what: str
    peers: dict[str, tuple[str, ...]]
    note: str = ""


def _word(here: str, what: str, note: str = "", *, trl: str = "", verl: str = "", sb3: str = "", cleanrl: str = "") -> Word:
    names = {peer: tuple(said.split()) for peer, said in zip(PEERS, (trl, verl, sb3, cleanrl), strict=True) if said}
    return Word(tuple(here.split()), what, names, note)


LANGUAGE = (
    _word("model", "the model to train", trl="model_name_or_path model_id", verl="model.path"),
    _word("prompts", "the prompts", trl="train_dataset dataset dataset_name", verl="train_files"),
    _word("experts", "answers to imitate", "A file of expert rows, for sft and for mixtures.", trl="data dataset_path", verl="sft_files"),
    _word("reward rewards", "reward functions", trl="reward_funcs reward_func", verl="custom_reward_function"),
    _word(
        "groups.size",
        "completions per prompt",
        trl="num_generations",
        verl="rollout.n n_samples",
    ),
    _word(
        "groups.prompts",
        "prompts of an update",
        "It counts prompts: an update has groups.prompts x groups.size completions.",
        trl="per_device_train_batch_size generation_batch_size",
        verl="train_batch_size",
    ),
    _word("sampling.max_new_tokens", "longest completion", trl="max_completion_length", verl="max_response_length response_length"),
    _word("update.epochs", "passes over a batch", trl="num_iterations", verl="ppo_epochs"),
    _word(
        "update.minibatches",
        "optimiser steps of a pass",
        "It counts steps, not rows.",
        trl="steps_per_generation",
        verl="ppo_mini_batch_size",
    ),
    _word(
        "update.micro_batch_rows",
        "rows of one forward pass",
        "It saves memory and changes no number of the update.",
        trl="gradient_accumulation_steps",
        verl="ppo_micro_batch_size ppo_micro_batch_size_per_gpu log_prob_micro_batch_size_per_gpu",
    ),
    _word("update.learning_rate", "learning rate", verl="lr", trl="lr"),
    _word("update.warmup", "warm-up of the learning rate", trl="warmup_steps warmup_ratio", verl="lr_warmup_steps lr_warmup_steps_ratio"),
    _word("update.decay", "decay of the learning rate", trl="lr_scheduler_type", verl="warmup_style lr_scheduler"),
    _word("update.max_grad_norm", "largest norm of the gradient", verl="grad_clip clip_grad", trl="max_gradient_norm"),
    _word(
        "clip.low",
        "lower width of the clip range",
        "The range is [1 - clip.low, 1 + clip.high].",
        trl="epsilon clip_epsilon cliprange",
        verl="clip_ratio_low clip_ratio",
    ),
    _word("clip.high", "upper width of the clip range", trl="epsilon_high", verl="clip_ratio_high"),
    _word("clip.upper", "bound of the ratio where the advantage is negative", trl="delta"),
    _word("clip.dual", "dual clip", verl="clip_ratio_c"),
    _word("kl.coefficient", "weight of the KL to the start", trl="beta kl_coef init_kl_coef", verl="kl_loss_coef kl_coef"),
    _word("kl.kind", "KL in the loss, in the reward or none", verl="use_kl_loss use_kl_in_reward"),
    _word("kl.estimator", "estimator of the KL", trl="kl_estimator", verl="kl_loss_type kl_penalty"),
    _word("aggregate.mode", "mean over tokens, completions or a constant", trl="loss_type", verl="loss_agg_mode"),
    _word("advantage.form", "how rewards of a group become advantages", trl="scale_rewards", verl="norm_adv_by_std_in_grpo"),
    _word("ratio", "ratio of tokens or of completions", trl="importance_sampling_level", verl="loss_mode"),
    _word(
        "correction.level",
        "correction of what the sampler's numerics differ by",
        trl="vllm_importance_sampling_correction vllm_importance_sampling_mode",
        verl="tis_imp_ratio_level rollout_is",
    ),
    _word("correction.cap", "cap of that correction", trl="vllm_importance_sampling_cap", verl="tis_imp_ratio_cap rollout_is_threshold"),
    _word("keep.mask_truncated", "leave out completions that were cut", trl="mask_truncated_completions"),
    _word("dynamic.kind", "leave out groups without a signal", verl="filter_groups"),
    _word("overlong.buffer", "tokens before the limit that are punished", trl="overlong_buffer_len", verl="overlong_buffer"),
    _word("entropy_coefficient", "weight of the entropy", trl="ent_coef", verl="entropy_coeff"),
    _word("evaluation.every", "updates between measurements", trl="eval_steps eval_strategy", verl="test_freq"),
    _word("gae.lam", "lambda of generalised advantage estimation", trl="lam", verl="lam"),
    _word("engine", "what generates", trl="use_vllm vllm_mode", verl="rollout.name"),
    _word("recompute", "gradient checkpointing", trl="gradient_checkpointing", verl="enable_gradient_checkpointing"),
    _word("dtype", "precision of the weights", trl="bf16 fp16 torch_dtype", verl="model_dtype"),
    _word("adapter_rank", "rank of a LoRA adapter", trl="lora_r use_peft", verl="lora_rank"),
    _word("adapter_alpha", "scale of a LoRA adapter", trl="lora_alpha", verl="lora_alpha"),
    _word("adapter_dropout", "dropout of a LoRA adapter", trl="lora_dropout"),
    _word("adapter_targets", "layers of a LoRA adapter", trl="lora_target_modules", verl="target_modules"),
)
"""Settings of language methods."""
CONTROL = (
    _word("collect.environments", "environments side by side", sb3="n_envs", cleanrl="num_environments"),
    _word("collect.steps", "steps of each environment in a batch", sb3="n_steps", cleanrl="num_steps"),
    _word("update.epochs", "passes over a batch", sb3="n_epochs", cleanrl="update_epochs"),
    _word(
        "batches.size",
        "rows of a gradient step",
        sb3="batch_size",
        cleanrl="batch_size",
    ),
    _word(
        "update.minibatches",
        "gradient steps of a pass",
        "It counts steps: rows of a step are environments x steps / minibatches.",
        sb3="batch_size minibatch_size",
        cleanrl="num_minibatches minibatch_size",
    ),
    _word("objective.epsilon", "width of the clip range", sb3="clip_range", cleanrl="clip_coef"),
    _word("objective.value", "clipping of values", sb3="clip_range_vf", cleanrl="clip_vloss"),
    _word("update.entropy_coefficient entropy.fixed", "weight of the entropy", sb3="ent_coef", cleanrl="ent_coef alpha"),
    _word("update.value_coefficient", "weight of the value loss", sb3="vf_coef", cleanrl="vf_coef"),
    _word("gae.lam", "lambda of generalised advantage estimation", sb3="gae_lambda", cleanrl="gae_lambda"),
    _word("gae.gamma gamma", "discount", sb3="discount_factor", cleanrl="discount"),
    _word("update.normalise_advantage", "advantages of mean 0 and deviation 1", sb3="normalize_advantage", cleanrl="norm_adv"),
    _word("update.anneal", "learning rate that falls to 0", sb3="linear_schedule", cleanrl="anneal_lr"),
    _word("stop.target", "KL at which an update ends", sb3="target_kl", cleanrl="target_kl"),
    _word("update.learning_rate learning_rate", "learning rate", sb3="lr", cleanrl="policy_lr"),
    _word("critics.learning_rate", "learning rate of the critics", cleanrl="q_lr"),
    _word("normalisation.observations", "observations of mean 0 and deviation 1", sb3="norm_obs", cleanrl="normalize_obs"),
    _word("normalisation.rewards", "rewards scaled by the return's deviation", sb3="norm_reward", cleanrl="normalize_reward"),
    _word("network.hidden hidden", "widths of the hidden layers", sb3="net_arch policy_kwargs", cleanrl="hidden_sizes"),
    _word("network.activation", "activation function", sb3="activation_fn"),
    _word("replay.capacity", "size of the replay buffer", sb3="buffer_size", cleanrl="buffer_size"),
    _word("collect.random_steps", "steps before the first update", sb3="learning_starts", cleanrl="learning_starts"),
    _word(
        "batches.per_environment_step",
        "gradient steps per environment step",
        sb3="train_freq gradient_steps",
        cleanrl="train_frequency utd_ratio",
    ),
    _word("target_every", "gradient steps between copies of the network", sb3="target_update_interval", cleanrl="target_network_frequency"),
    _word(
        "exploration.share", "share of the budget in which exploration falls", sb3="exploration_fraction", cleanrl="exploration_fraction"
    ),
    _word("exploration.start", "first share of random actions", sb3="exploration_initial_eps", cleanrl="start_e"),
    _word("exploration.end", "last share of random actions", sb3="exploration_final_eps", cleanrl="end_e"),
    _word("entropy.target", "entropy that the temperature aims at", sb3="target_entropy", cleanrl="target_entropy"),
    _word("log.evaluate_every", "steps between measurements", sb3="eval_freq"),
    _word("log.evaluate_episodes", "episodes of a measurement", sb3="n_eval_episodes"),
)
"""Settings of control methods."""
RUNS = (
    _word(
        "steps",
        "budget",
        "In environment steps for control, in updates for language (budget.unit says otherwise).",
        trl="max_steps num_train_epochs",
        verl="total_training_steps total_epochs",
        sb3="total_timesteps",
        cleanrl="total_timesteps",
    ),
    _word("directory", "where the run is kept", trl="output_dir run_name", verl="default_local_dir", sb3="save_path", cleanrl="exp_name"),
    _word("checkpoint_every", "steps between checkpoints", trl="save_steps", verl="save_freq"),
    _word("sinks", "dashboards", trl="report_to", verl="logger", sb3="tensorboard_log", cleanrl="track"),
    _word("task", "what is trained on", sb3="env", cleanrl="env_id"),
)
"""Settings of every run."""
NEEDLESS = {
    "resume_from_checkpoint": "`rheostat resume RUN` continues a run",
    "load_model": "`rheostat resume RUN` continues a run, and --from-run begins with its weights",
    "logging_steps": "every update is logged",
    "log_interval": "every update is logged",
    "progress_bar": "a terminal shows progress, and progress=False in Python shows none",
    "verbose": "a terminal shows progress, and progress=False in Python shows none",
    "push_to_hub": "`rheostat export RUN` writes an ordinary Hugging Face folder",
    "remove_unused_columns": "columns that a reward does not name are not passed to it",
    "capture_video": "`rheostat evaluate RUN --video` plays an episode",
    "torch_deterministic": "every run is deterministic",
}
"""Settings of peers that have no counterpart, and why none is needed."""


def word_of(name: str, options: list[Option], settings: tuple[str, ...], domain: str) -> str | None:
    """The sentence for a name that a peer has for an option of a method or a setting of its run; None where no peer has it.

    Args:
        name: as it was given, in any form.
        options: of the method.
        settings: names of the settings of a run of its domain; none where they cannot be told.
        domain: ``control`` or ``language``.
    """
    plain = name.replace("-", "_").lower()
    if plain in NEEDLESS:
        return f"leave {name} out, {NEEDLESS[plain]}."
    paths, shorts = {each.path for each in options}, {path: short for short, path in short_names(options).items()}
    for word in (*(LANGUAGE if domain == "language" else CONTROL), *RUNS):
        peers = [peer for peer, names in word.peers.items() if plain in names or plain in (each.rpartition(".")[2] for each in names)]
        here = next((each for each in word.here if each in paths or each in settings), None)
        if peers and here is not None:
            said = f"{shorts[here]} ({here})" if here in shorts else here
            return f"{name} of {' and '.join(peers)} is {said} here: {word.what}. {word.note}".rstrip()
    return None
