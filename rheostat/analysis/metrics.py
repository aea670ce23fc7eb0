"""Names, groups and formats of a run's metrics: one table for figures, tables and reports.

A key that is not in the table is drawn too, under a label made from its name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

PERFORMANCE, METER, ACTING, EXPLORING, LOSSES, OTHER = (
    "Performance",
    "Off-policy meter",
    "Behaviour policy",
    "Entropy and rare tokens",
    "Learning",
    "Other",
)
GROUPS = (PERFORMANCE, METER, ACTING, EXPLORING, LOSSES, OTHER)


@dataclass(frozen=True)
class Metric:
    """One number of a run."""

    key: str
    label: str
    group: str
    help: str = ""


@dataclass(frozen=True)
class Axis:
    """One budget a curve can be drawn against."""

    key: str
    label: str
    summed: bool = False
    """Whether rows hold the use of one iteration, to be added up, rather than the total so far."""


METRICS: dict[str, Metric] = {
    metric.key: metric
    for metric in (
        Metric("evaluation_return", "Evaluation return", PERFORMANCE, "Mean return of deterministic episodes"),
        Metric("episode_return", "Episode return", PERFORMANCE, "Mean return of the last 100 training episodes"),
        Metric("evaluation_deviation", "Spread of the evaluation", PERFORMANCE, "Standard deviation over the episodes of a measurement"),
        Metric("evaluation_return_first", "First episode", PERFORMANCE, "Mean return of the first episode of a trial, on a new task"),
        Metric("evaluation_return_last", "Last episode", PERFORMANCE, "Mean return of the last episode of a trial, others in context"),
        Metric("evaluation_trials", "Evaluation trials", PERFORMANCE, "Trials of a measurement"),
        Metric("evaluation_length", "Evaluation length", PERFORMANCE, "Mean length of deterministic episodes"),
        Metric("evaluation_episodes", "Evaluation episodes", PERFORMANCE, "Episodes of a measurement"),
        Metric("evaluation_nearest_return", "Return of the nearest vehicle", PERFORMANCE, "Of the matching that learns nothing, there"),
        Metric("evaluation_served", "Served in the evaluation", PERFORMANCE, "Mean number of orders that a fleet serves in an episode"),
        Metric("evaluation_pick_up_minutes", "Pick-up in the evaluation", PERFORMANCE, "Mean minutes from vehicle to pick-up"),
        Metric("judged_reward", "Judged reward", PERFORMANCE, "Discounted, in the episodes that decide about the reference (OSPO)"),
        Metric("best_judged_reward", "Best judged reward", PERFORMANCE, "That of the reference (OSPO)"),
        Metric("served", "Served orders", PERFORMANCE, "Mean of the last 100 training episodes of a fleet"),
        Metric("pick_up_minutes", "Pick-up minutes", PERFORMANCE, "Mean minutes from vehicle to pick-up in training"),
        Metric("orders", "Orders", PERFORMANCE, "Mean number of an episode"),
        Metric("orders_outside", "Orders outside", PERFORMANCE, "Order minutes beyond the table's room, mean of an episode"),
        Metric("accuracy", "Validation reward", PERFORMANCE, "Mean reward of one sample per validation prompt"),
        Metric("reward", "Reward", PERFORMANCE, "Mean reward of the sampled completions, or of the networks of an epoch"),
        Metric("network_accuracy", "Accuracy of networks", PERFORMANCE, "Mean validation accuracy of an epoch's sound networks"),
        Metric("compression", "Compression of networks", PERFORMANCE, "Mean of the teacher's weights over theirs, of sound networks"),
        Metric("best_network_reward", "Best reward", PERFORMANCE, "Reward of the best network of the stage so far, without constraints"),
        Metric("best_accuracy", "Accuracy of the best", PERFORMANCE, "Validation accuracy of the best network of the stage so far"),
        Metric("best_compression", "Compression of the best", PERFORMANCE, "The teacher's weights over those of the best network so far"),
        Metric("failed_share", "Failed share", PERFORMANCE, "Share of networks that cannot be built or are not smaller"),
        Metric("trained_networks", "Trained networks", OTHER, "Networks of the epoch that were trained; equal ones are judged once"),
        Metric("judged_networks", "Judged networks", OTHER, "Different networks that were trained so far"),
        Metric("baseline", "Baseline", LOSSES, "Mean reward of earlier epochs, which rewards are compared with"),
        Metric("context_steps", "Steps in context", OTHER, "Steps of the running trial"),
        Metric("context_episodes", "Episodes in context", OTHER, "Episodes of the running trial, a mean over environments"),
        Metric("stage", "Stage", OTHER, "Number of the stage under way, from 0"),
        Metric("episode_length", "Episode length", PERFORMANCE, "Mean length of the last 100 training episodes"),
        Metric("completion_length", "Completion length", PERFORMANCE, "Mean number of tokens of the sampled completions"),
        Metric("validation_length", "Validation length", PERFORMANCE, "Mean number of tokens of the validation completions"),
        Metric("truncated_share", "Truncated share", PERFORMANCE, "Share of completions that hit the length limit"),
        Metric("validation_win_rate", "Win rate", PERFORMANCE, "Share of held-out prompts on which the policy's answer beats the start's"),
        Metric("validation_kl", "KL to the start", PERFORMANCE, "KL(policy, start) of whole answers to held-out prompts, nats (k3)"),
        Metric("validation_preference_accuracy", "Held-out pairs", PERFORMANCE, "Share of held-out pairs ranked as the annotator did"),
        Metric("validation_label_accuracy", "Held-out labels", PERFORMANCE, "Chance that a desirable answer gained more than another one"),
        Metric("validation_margin", "Held-out margin", PERFORMANCE, "Mean difference of what is compared of both answers of a pair"),
        Metric(
            "validation_calibration_error",
            "Calibration error",
            PERFORMANCE,
            "Distance of confidence and agreement on held-out pairs, in bins",
        ),
        Metric(
            "validation_preference_loss",
            "Held-out log loss",
            PERFORMANCE,
            "Minus the mean log-probability of how held-out pairs are ordered",
        ),
        Metric("validation_chosen_log_ratio", "Chosen answers", PERFORMANCE, "How much likelier held-out chosen answers became, nats each"),
        Metric(
            "validation_rejected_log_ratio", "Rejected answers", PERFORMANCE, "How much likelier held-out rejected answers became, nats"
        ),
        Metric("validation_length_correlation", "Length bias", PERFORMANCE, "Correlation of a reward model's rewards with lengths"),
        Metric("validation_accuracy_longer_chosen", "Longer is better", PERFORMANCE, "Accuracy on pairs whose chosen answer is the longer"),
        Metric(
            "validation_accuracy_shorter_chosen", "Shorter is better", PERFORMANCE, "Accuracy on pairs whose chosen answer is the shorter"
        ),
        Metric("validation_judged_win_rate", "Judged win rate", PERFORMANCE, "By the judge of pairs, asked in both orders"),
        Metric("validation_position_bias", "Position bias", PERFORMANCE, "By how much the judge prefers whatever stands first"),
        Metric("validation_inconsistent_share", "Verdicts that turn", PERFORMANCE, "Share of pairs on which the order decides the judge"),
        Metric("validation_judge_accuracy", "Judge on held-out pairs", PERFORMANCE, "Share of held-out pairs on which the judge agrees"),
        Metric("validation_judge_bias", "Judge's bias", PERFORMANCE, "By how much the judge prefers what stands first, on held-out pairs"),
        Metric("judge_agreement", "Judge and reward", PERFORMANCE, "Share of the batch's pairs on which judge and reward agree"),
        Metric("position_bias", "Position bias", PERFORMANCE, "By how much the judge prefers the answer that stands first, beside 1/2"),
        Metric("strength_distance", "Decidedness", PERFORMANCE, "Mean distance of preference strengths from 1/2"),
        Metric("pairs_per_prompt", "Pairs per prompt", PERFORMANCE, "Ranked pairs of answers per prompt, repetitions left out"),
        Metric("repeated_share", "Repeated answers", PERFORMANCE, "Share of answers that repeat an earlier one to the same prompt"),
        Metric("paired_share", "Pairs that teach", PERFORMANCE, "Share of prompts whose sampled answers differ in reward"),
        Metric("preference_accuracy", "Training pairs", PERFORMANCE, "Share of the batch's pairs ranked as the annotator did"),
        Metric("informative_share", "Informative share", PERFORMANCE, "Share of groups that carry a signal"),
        Metric("solution_reward", "Reward of solutions", PERFORMANCE, "Mean reward of solutions alone, without judgements (RISE)"),
        Metric("verification_accuracy", "Verification accuracy", PERFORMANCE, "Share of judgements that state what a solution earned"),
        Metric("verification_balanced_accuracy", "Balanced verification", PERFORMANCE, "The same, averaged over what solutions can earn"),
        Metric("validation_verification_balanced_accuracy", "Held-out verification", PERFORMANCE, "Balanced, on held-out prompts"),
        Metric("unsolved_share", "Unsolved share", PERFORMANCE, "Share of prompts that the policy answers wrong greedily"),
        Metric("corpus/candidates", "Answers of the teacher", PERFORMANCE, "Among which a corpus was chosen (DED)"),
        Metric("corpus/good_share", "Good answers", PERFORMANCE, "Share of the teacher's answers that can be learned from"),
        Metric("corpus/student_pass_rate", "Student's pass rate", PERFORMANCE, "On the teacher's questions, before it learns"),
        Metric("corpus/questions", "Questions of the corpus", PERFORMANCE, "Those that the student does not solve too often"),
        Metric("corpus/rows", "Answers of the corpus", PERFORMANCE, "Those that are learned from"),
        Metric("corpus/questions_short", "Questions with few answers", PERFORMANCE, "With fewer different right answers than asked for"),
        Metric("corpus/too_long", "Answers too long", PERFORMANCE, "Left out of the corpus"),
        Metric("corpus/ill_formed", "Answers of another form", PERFORMANCE, "Left out of the corpus"),
        Metric("corpus/not_graded", "Answers without a grade", PERFORMANCE, "Left out of the corpus"),
        Metric("corpus/wrong", "Wrong answers", PERFORMANCE, "Left out of the corpus"),
        Metric("easy_prompts", "Easy prompts", PERFORMANCE, "Prompts that are not asked again, since whole groups were right (AceReason)"),
        Metric("stages/direct_solved_share", "Solved plainly", PERFORMANCE, "Share of problems with a right answer to the plain prompt"),
        Metric("stages/solved_share", "Solved in any stage", PERFORMANCE, "Share of problems with a right answer in some stage"),
        Metric("stages/direct_usable_share", "Usable plainly", PERFORMANCE, "Share of problems whose plain group is partly right"),
        Metric("stages/usable_share", "Usable problems", PERFORMANCE, "Share of problems that give a gradient, by any stage or imitation"),
        Metric("stages/decomposition_share", "Asked to split", PERFORMANCE, "Share of problems that came to the second stage"),
        Metric("stages/reflection_share", "Asked to correct", PERFORMANCE, "Share of problems that came to the third stage"),
        Metric("stages/decomposition_reward", "Reward of splitting", PERFORMANCE, "Mean reward of the second stage's answers"),
        Metric("stages/reflection_reward", "Reward of correcting", PERFORMANCE, "Mean reward of the third stage's answers"),
        Metric("stages/direct_tokens", "Tokens, plain", OTHER, "Generated for plain prompts in an update"),
        Metric("stages/decomposition_tokens", "Tokens, splitting", OTHER, "Generated in the second stage of an update"),
        Metric("stages/reflection_tokens", "Tokens, correcting", OTHER, "Generated in the third stage of an update"),
        Metric("stages/imitated_rows", "Imitated rows", OTHER, "Right answers of later stages, after the plain prompt"),
        Metric("stages/too_long", "Prompts too long", OTHER, "Problems whose prompt of a later stage did not fit"),
        Metric("stages/decomposition_shots", "Traces, splitting", OTHER, "Mean number of worked traces that the second stage showed"),
        Metric("stages/reflection_shots", "Traces, correcting", OTHER, "Mean number of worked traces that the third stage showed"),
        Metric("stages/decomposition_traces", "Buffer, splitting", OTHER, "Worked traces that the second stage can show"),
        Metric("stages/reflection_traces", "Buffer, correcting", OTHER, "Worked traces that the third stage can show"),
        Metric("gate_rounds", "Rounds at the gate", PERFORMANCE, "Batches of prompts drawn until some passed the gate"),
        Metric("sampling_rounds", "Sampling rounds", PERFORMANCE, "Batches sampled until enough groups carried a signal"),
        Metric("invalid_share", "Invalid share", PERFORMANCE, "Share of rows on which the grader failed"),
        Metric("abstained_share", "Abstained share", PERFORMANCE, "Share of rows on which every reward returned None"),
        Metric("turns", "Turns", PERFORMANCE, "Mean number of turns that the policy had in a conversation"),
        Metric("out_of_room_share", "Out of room", PERFORMANCE, "Share of conversations without room for another turn in the context"),
        Metric("reward_spread", "Reward spread", PERFORMANCE, "Largest less smallest reward of a batch; 0 is no signal"),
        Metric("prompts_dropped", "Prompts dropped", PERFORMANCE, "Prompts left out so far because they are too long"),
        Metric("meter/ess", "Effective sample size", METER, "Share of the batch that importance sampling would use; 1 is on-policy"),
        Metric("meter/kl_behaviour_k3", "KL to the behaviour policy", METER, "k3 estimate of KL(sampler, learner), nats per action"),
        Metric(
            "meter/clip_fraction",
            "Clip fraction",
            METER,
            "Share of actions whose gradient the clip cuts (outside the window is not enough)",
        ),
        Metric("meter/age_mean", "Mean age", METER, "Policy updates between sampling and learning"),
        Metric("meter/age_max", "Largest age", METER, "Policy updates between sampling and learning"),
        Metric("meter/sampling_error", "Sampling error", METER, "KL of the data's action frequencies from the policy (PROPS)"),
        Metric("meter/ratio_low", "Ratio, 5 % quantile", METER, "Learner over sampler probability"),
        Metric("meter/ratio_median", "Ratio, median", METER, "Learner over sampler probability"),
        Metric("meter/ratio_high", "Ratio, 95 % quantile", METER, "Learner over sampler probability"),
        Metric("meter/ratio_max", "Ratio, maximum", METER, "Learner over sampler probability"),
        Metric("meter/gap", "Log-probability gap", METER, "Mean absolute difference between learner and sampler log-probabilities"),
        Metric("meter/parity_worst", "Parity gap", METER, "Largest gap of a few fresh tokens between engine and announced policy, nats"),
        Metric("meter/rejected_token_share", "Rejected tokens", METER, "Share of tokens too far from their sampler to learn from"),
        Metric("meter/rejected_completion_share", "Rejected completions", METER, "Share of completions of which no token was left"),
        Metric("meter/kl_behaviour_k1", "KL to the behaviour policy, k1", METER, "k1 estimate of KL(sampler, learner), nats per action"),
        Metric("meter/kl_behaviour_k2", "KL to the behaviour policy, k2", METER, "k2 estimate of KL(sampler, learner), nats per action"),
        Metric("meter/gradient_snr", "Gradient signal to noise", METER, "|g|^2 over the variance of one step's gradient"),
        Metric("meter/total_variation", "Total variation", METER, "Distance of sampler and learner per action, in [0, 1] (score centring)"),
        Metric("meter/clip_low", "Lower bound", METER, "Lower bound of the ratio that was searched for (mean over gradient steps)"),
        Metric("meter/clip_high", "Upper bound", METER, "Upper bound of the ratio that was searched for (mean over gradient steps)"),
        Metric("meter/positive_share", "Positive share", METER, "Share of the surrogate that tokens of positive advantage supply"),
        Metric("meter/positive_share_at_start", "Positive share, unsearched", METER, "The same with the window where the search starts"),
        Metric("behaviour_kl", "KL of the behaviour policy", ACTING, "How far the acting policy was pushed from the learned one"),
        Metric("behaviour_clip_fraction", "Behaviour clip fraction", ACTING, "Share of rows pushed as far as the clip allows"),
        Metric("behaviour_gradient_steps", "Behaviour gradient steps", ACTING, "Gradient steps of the acting policy per block"),
        Metric("entropy", "Entropy", EXPLORING, "Entropy of the policy, nats per action"),
        Metric("rare/share", "Rare tokens", EXPLORING, "Share of tokens that had a probability below 5 % when the update began"),
        Metric("rare/rewarded", "Rare tokens, rewarded", EXPLORING, "Share of the rare tokens with a positive advantage"),
        Metric("rare/penalised", "Rare tokens, penalised", EXPLORING, "Share of the rare tokens with a negative advantage"),
        Metric("meter/protected_share", "Protected", EXPLORING, "Share of tokens that are rare, of a wrong answer, and no noise (Lp-Reg)"),
        Metric(
            "meter/noise_share", "Taken for noise", EXPLORING, "Share of tokens that are rare, of a wrong answer, and unprotected (Lp-Reg)"
        ),
        Metric("proxy_pull", "Pull to the proxy", EXPLORING, "Part of the policy loss that lifts protected tokens (Lp-Reg)"),
        Metric(
            "meter/held_back_share", "Held back", EXPLORING, "Share of tokens of large covariance that are held back (Clip-Cov, KL-Cov)"
        ),
        Metric("meter/entropy_drift_kept", "Entropy drift, kept", EXPLORING, "Push of kept gradients on the entropy (Entropy-Clip Rule)"),
        Metric("meter/entropy_drift_cut", "Entropy drift, cut", EXPLORING, "Push on the entropy that the clip took away"),
        Metric("policy_loss", "Policy loss", LOSSES),
        Metric("value_loss", "Value loss", LOSSES),
        Metric("steps_left_out", "Steps left out", LOSSES, "Gradient steps of a turn beyond the gate (OSPO)"),
        Metric("reference_counts", "Reference counts", LOSSES, "1 from the first evaluation that failed to improve (OSPO)"),
        Metric("exploration", "Exploration", EXPLORING, "Probability of forcing a pair of vehicle and order"),
        Metric("forced_share", "Forced share", EXPLORING, "Share of the accepted orders that exploration forced"),
        Metric("reward_model/loss", "Reward model's loss", LOSSES, "Squared error of the reward model to the outcome, on every token"),
        Metric("reward_model/gradient_norm", "Reward model's gradient norm", LOSSES, "Global norm before clipping"),
        Metric("reward_model/pair_accuracy", "Reward model's pairs", LOSSES, "Share of new pairs that it orders like their rewards"),
        Metric("reward_model/progress", "Process rewards", LOSSES, "Mean size of the reward model's progress on a token"),
        Metric("flow/loss", "Flow field's loss", LOSSES, "Squared error of the velocity on right completions (RLFR)"),
        Metric("flow/gradient_norm", "Flow field's gradient norm", LOSSES, "Global norm before clipping"),
        Metric("flow/offline_loss", "Flow field's loss on experts", LOSSES, "The same on an expert's rows, the last tenth of the steps"),
        Metric("flow/right_rows", "Right completions", LOSSES, "Completions of the batch that the flow field learned from"),
        Metric("flow/deviation", "Velocity deviation", LOSSES, "Mean squared error of the velocity on the batch, before the update"),
        Metric("flow/reward", "Flow rewards", LOSSES, "Sum of the flow field's rewards over a completion, a mean"),
        Metric("latent/steps", "Steps of a chain", LOSSES, "Mean number of steps that got a latent state (CTRLS)"),
        Metric("latent/concentration", "Total concentration", LOSSES, "How sure the transition policy is of its distribution over states"),
        Metric("latent/state_entropy", "Entropy of the next state", LOSSES, "Of the mean distribution over states, nats"),
        Metric("latent/exploration", "Uniform actions", LOSSES, "Probability that a training action is drawn uniformly (CTRLS)"),
        Metric("latent/logp", "Log-density of actions", LOSSES, "Mean log-density of the behaviour over steps; it may be positive"),
        Metric(
            "latent/action_entropy", "Entropy of actions", LOSSES, "Differential entropy of the Dirichlet, nats; negative where it is sharp"
        ),
        Metric("latent/right_chains", "Right chains", LOSSES, "Chains of the language model that the states were found in"),
        Metric("latent/lesson_steps", "Steps of a right chain", LOSSES, "Mean number of steps of these chains"),
        Metric("latent/clusters", "Clusters", LOSSES, "States of k-means that hold a step"),
        Metric("latent/label_accuracy", "Encoder's accuracy", LOSSES, "Share of steps whose cluster the encoder finds"),
        Metric("latent/elbo", "Bound on the likelihood", LOSSES, "ELBO per step at the end of the lessons, nats"),
        Metric("latent/reconstruction", "Reconstruction", LOSSES, "Part of the bound: expected log-likelihood of a step, nats"),
        Metric("latent/kl", "KL of the states", LOSSES, "Part of the bound: KL from the encoder to the transitions, nats per step"),
        Metric("latent/state_gap", "Gap of the states", LOSSES, "Nats per step that shuffled states cost; 0 where they are ignored"),
        Metric("preference_loss", "Preference loss", LOSSES, "The loss on pairs or labels"),
        Metric("margin", "Margin", LOSSES, "Mean difference of what is compared of both answers of the batch's pairs"),
        Metric("absolute_margin", "Absolute margin", LOSSES, "Mean absolute margin of pairs, on the scale beta"),
        Metric("strength", "Strength", LOSSES, "Mean probability that the answer that is ranked higher is the better one"),
        Metric("chosen_log_ratio", "Chosen log-ratio", LOSSES, "Mean log-ratio of chosen answers to the reference, nats"),
        Metric("rejected_log_ratio", "Rejected log-ratio", LOSSES, "Mean log-ratio of rejected answers to the reference, nats"),
        Metric("kl_baseline", "KTO's baseline", LOSSES, "Mean log-ratio of prompts with the answers of others, at least 0"),
        Metric("likelihood_loss", "Likelihood of chosen answers", LOSSES, "Negative log-likelihood per token"),
        Metric("kl_reference", "KL to the reference", LOSSES, "Estimate of KL(policy, reference), as the loss aggregates it"),
        Metric("rehearsal_loss", "Rehearsal", LOSSES, "Forward KL to the starting model on its own samples, nats per token (SELF)"),
        Metric("base_share", "Weight of the base model", LOSSES, "Share of the base model in a KL to two anchors (KL-Convex)"),
        Metric("approx_kl", "KL within the update", LOSSES, "Mean k3 estimate of KL(start of the update, policy)"),
        Metric("explained_variance", "Explained variance", LOSSES, "1 is a perfect critic, 0 no better than a constant"),
        Metric("meter/gradient_norm", "Gradient norm", LOSSES, "Global norm before clipping"),
        Metric("learning_rate", "Learning rate", LOSSES),
        Metric("gradient_steps", "Gradient steps per update", LOSSES),
    )
}

AXES: tuple[Axis, ...] = (
    Axis("steps", "Steps"),
    Axis("updates", "Policy updates"),
    Axis("gradient_steps", "Gradient steps", summed=True),
    Axis("seconds", "Wall time (s)"),
    Axis("generated_tokens", "Generated tokens"),
    Axis("learner_tokens", "Learner tokens"),
    Axis("reward_calls", "Reward calls"),
    Axis("flops", "FLOPs (estimated)"),
)
COUNTERS = frozenset({"iteration", "episodes"} | {axis.key for axis in AXES if not axis.summed})
"""Keys of a row that give its position, not a measurement."""

BY_EPISODE = "in_context/"
"""Prefix of returns of the first, second, ... episode of a trial: one curve over episodes, and none over steps."""

HEADLINES = ("evaluation_return", "episode_return", "accuracy", "validation_preference_accuracy", "reward")
"""Curves that stand for performance, best first."""
FINALS = ("evaluation_return", "accuracy", "validation_preference_accuracy", "student_test_reward")
"""Keys of the final evaluation that stand for performance, best first."""
AT_THE_END = frozenset(
    {"student_passes", "student_parameters", "teacher_parameters", "student_compression", "kept_validation_accuracy"}
    | {"student_validation_reward", "student_validation_accuracy", "teacher_validation_accuracy"}
)
"""Numbers that the last row alone has: no curves."""
TIDY = ("meter/ess", "meter/kl_behaviour_k3", "meter/clip_fraction", "meter/age_mean", "meter/sampling_error")
"""The meter in five numbers."""


def describe(key: str) -> Metric:
    """The row of a key; unknown keys get a label from their name and a group from their prefix."""
    if key in METRICS:
        return METRICS[key]
    prefix, _, name = key.rpartition("/")
    if prefix == "evaluation_return":  # of one agent
        return Metric(key, f"Evaluation return ({name})", PERFORMANCE, "Mean return of an agent's deterministic episodes")
    if prefix == "validation_win_rate":  # by one of several rewards
        return Metric(key, f"Win rate ({name})", PERFORMANCE, "The same by one of several rewards, or by a part of one")
    if prefix.startswith("meter/"):  # of one source
        whole = describe(f"meter/{name}")
        return Metric(key, f"{whole.label} ({prefix.removeprefix('meter/')} data)", METER, whole.help)
    if key.startswith(BY_EPISODE):
        return Metric(key, f"Return of episode {name.removeprefix('episode_')} in context", PERFORMANCE, "Mean over trials on new tasks")
    if key.startswith("meter/age_share_"):
        low, _, high = name.removeprefix("age_share_").partition("_")
        span = f"{low} or more" if high == "up" else f"{low} to {high}" if high else low
        return Metric(key, f"Share of age {span}", METER, "Share of the batch sampled so many policy updates ago")
    words = name.replace("_", " ").strip()
    label = words[:1].upper() + words[1:]
    if name.startswith("share_"):
        label = f"Share: {words.removeprefix('share ')}"
    group = METER if prefix == "meter" else ACTING if name.startswith("behaviour") else LOSSES if "loss" in name else OTHER
    return Metric(key, label, group)


def ordered(keys: Iterable[str]) -> list[Metric]:
    """Metrics that are drawn over steps, by group, known ones first and in the order of the table."""
    rank = {key: index for index, key in enumerate(METRICS)}
    drawn = {key for key in keys if key not in COUNTERS and not key.startswith(BY_EPISODE)}
    return sorted((describe(key) for key in drawn), key=lambda m: (GROUPS.index(m.group), rank.get(m.key, len(rank)), m.key))
