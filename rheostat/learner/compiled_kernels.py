"""Gradient steps of small perceptrons as compiled functions (Numba: LLVM in a wheel, no compiler on the machine).

Matrix products go to the BLAS that SciPy brings; everything between them is loops that LLVM vectorises. Networks, gradients and moments
are the memory of the PyTorch tensors, so that checkpoints and everything that reads a policy stay as they are. All of it runs on one
thread and without ``parallel``, whose sums differed between a compiled and a cached function: the bits are the same every time.

Losses are defined in :mod:`rheostat.objectives`; the tests compare every option here with what autograd finds for them. All kernels are
in this file, because Numba's cache looks at the file of a function only, not at those of the functions that it calls.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

ALLOWED = {"reassoc", "contract", "nsz", "arcp"}
"""What LLVM may do to floats: sums may be vectorised; NaN and infinity keep their meaning."""
compiled: Any = njit(nogil=True, cache=True, fastmath=ALLOWED, error_model="numpy", boundscheck=False)

f4 = np.float32
ZERO, ONE, TWO, HALF = f4(0), f4(1), f4(2), f4(0.5)
LOG_2, HALF_LOG_2PI = f4(0.6931471805599453), f4(0.9189385332046727)
NO_CLIP, CLIP, DETACHED_CLIP = 0, 1, 2
BETA1, BETA2 = 0.9, 0.999

# tanh(x) = x P(x^2) / Q(x^2) for |x| <= 8.2, by least squares; the largest error is 3.4e-7, three units in the last place.
END = f4(8.2)
P1, P2, P3, P4 = f4(0.1343211978673935), f4(0.0035566820297390223), f4(2.1637204554281197e-05), f4(1.4840457751574831e-08)
Q1, Q2, Q3, Q4 = f4(0.46765443682670593), f4(0.026108281686902046), f4(0.0003386434109415859), f4(8.370563477910764e-07)


class Layers(NamedTuple):
    """Where a perceptron lies in the parameter vector."""

    widths: np.ndarray
    """int64 ``[L + 1]``: inputs, hidden units, outputs."""
    weights: np.ndarray
    """int64 ``[L]``: where each weight ``[O, I]`` begins."""
    biases: np.ndarray
    """int64 ``[L]``: where each bias ``[O]`` begins."""
    tanh: bool
    """Activation between layers; False is ReLU."""


class Moving(NamedTuple):
    """A parameter vector and what Adam remembers of it; float32 ``[P]`` each, written in place."""

    vector: np.ndarray
    gradient: np.ndarray
    first: np.ndarray
    second: np.ndarray


class PPORows(NamedTuple):
    """What PPO learns from; float32 where nothing else is said."""

    observation: np.ndarray
    """``[N, I]``, as the networks read it."""
    choice: np.ndarray
    """int64 ``[N, K]``: the choices made; ``[N, 0]`` for a Gaussian."""
    action: np.ndarray
    """``[N, D]``: continuous actions; ``[N, 0]`` for choices."""
    old_logp: np.ndarray
    """``[N]``, as the next four."""
    advantage: np.ndarray
    target: np.ndarray
    old_value: np.ndarray
    factor: np.ndarray
    """Of the advantage, after it is standardised."""


class PPORule(NamedTuple):
    """The options of PPO's update; floats are float32, but the learning rate."""

    sizes: np.ndarray
    """int64 ``[K]``: how many options each choice has; ``[0]`` for a Gaussian."""
    log_std: int
    """Where a Gaussian's log standard deviation begins in the parameter vector."""
    tanh_mean: bool
    size: int
    """Rows of a minibatch; the last one of a pass may be smaller."""
    normalise: bool
    """Standardise advantages per minibatch."""
    clip: int
    """:data:`NO_CLIP`, :data:`CLIP` or :data:`DETACHED_CLIP`."""
    epsilon: np.float32
    clip_value: bool
    value_scale: np.float32
    value_coefficient: np.float32
    entropy_coefficient: np.float32
    target_kl: np.float32
    """Infinite: nothing stops an update."""
    before_step: bool
    """Look at the KL before every step, not after the passes."""
    max_norm: np.float32
    learning_rate: float
    adam_epsilon: np.float32


class ReplayRows(NamedTuple):
    """A batch of a replay, as the networks read it; float32."""

    observation: np.ndarray
    """``[N, O]``."""
    action: np.ndarray
    """``[N, D]``, unit actions."""
    reward: np.ndarray
    """``[N]``."""
    following: np.ndarray
    """``[N, O]``."""
    discount: np.ndarray
    """``[N]``, as the next."""
    weight: np.ndarray
    """Of the critics' error."""


class Ensemble(NamedTuple):
    """Where K perceptrons of one shape lie in a parameter vector; ReLU between layers."""

    widths: np.ndarray
    """int64 ``[L + 1]``."""
    weights: np.ndarray
    """int64 ``[K, L]``."""
    biases: np.ndarray
    """int64 ``[K, L]``."""


# --- perceptrons --------------------------------------------------------------------------------------------------------------------------


@compiled
def tanh(x):
    """Of a float32; NaN stays NaN."""
    x = END if x >= END else -END if x <= -END else x
    u = x * x
    return x * ((((P4 * u + P3) * u + P2) * u + P1) * u + ONE) / ((((Q4 * u + Q3) * u + Q2) * u + Q1) * u + ONE)


@compiled
def add_bias(h, bias):
    """``h [N, O] += bias [O]``."""
    for i in range(h.shape[0]):
        for j in range(h.shape[1]):
            h[i, j] += bias[j]


@compiled
def tanh_of(h, bias):
    """``h = tanh(h + bias)``, in place."""
    for i in range(h.shape[0]):
        for j in range(h.shape[1]):
            h[i, j] = tanh(h[i, j] + bias[j])


@compiled
def relu_of(h, bias):
    """``h = max(h + bias, 0)``, in place; NaN stays NaN."""
    for i in range(h.shape[0]):
        for j in range(h.shape[1]):
            x = h[i, j] + bias[j]
            h[i, j] = ZERO if x < ZERO else x


@compiled
def column_sums(grad, out):
    """``out [O] = sum over rows of grad [N, O]``."""
    out[:] = ZERO
    for i in range(grad.shape[0]):
        for j in range(grad.shape[1]):
            out[j] += grad[i, j]


@compiled
def through_tanh(grad, h, sums):
    """``grad *= 1 - h^2`` and, in the same sweep, its column sums: the gradient of the bias."""
    sums[:] = ZERO
    for i in range(grad.shape[0]):
        for j in range(grad.shape[1]):
            g = grad[i, j] * (ONE - h[i, j] * h[i, j])
            grad[i, j] = g
            sums[j] += g


@compiled
def through_relu(grad, h, sums):
    """The same for ReLU, whose derivative at 0 is 0."""
    sums[:] = ZERO
    for i in range(grad.shape[0]):
        for j in range(grad.shape[1]):
            g = ZERO if h[i, j] <= ZERO else grad[i, j]
            grad[i, j] = g
            sums[j] += g


@compiled
def forward(x, vector, layers, room):
    """The output ``[N, O]``; every layer's activations stay in the rows of ``room`` ``[L, N * widest]``."""
    n, last = x.shape[0], len(layers.weights) - 1
    for l in range(last + 1):  # noqa: E741
        i, o = layers.widths[l], layers.widths[l + 1]
        weight = vector[layers.weights[l] : layers.weights[l] + i * o].reshape(o, i)
        bias = vector[layers.biases[l] : layers.biases[l] + o]
        h = room[l, : n * o].reshape(n, o)
        np.dot(x, weight.T, h)
        if l == last:
            add_bias(h, bias)
        elif layers.tanh:
            tanh_of(h, bias)
        else:
            relu_of(h, bias)
        x = h
    return x


@compiled
def masked_by(grad, h):
    """Through ReLU without the sums."""
    for i in range(grad.shape[0]):
        for j in range(grad.shape[1]):
            grad[i, j] = ZERO if h[i, j] <= ZERO else grad[i, j]


@compiled
def backward_to_input(n, vector, layers, room, grad, spare):
    """The gradient of the input ``[N, I]`` of a ReLU perceptron, from that of its output; ``spare`` is ``[2, N * widest]``."""
    for l in range(len(layers.weights) - 1, -1, -1):  # noqa: E741
        i, o = layers.widths[l], layers.widths[l + 1]
        below = spare[l % 2, : n * i].reshape(n, i)
        np.dot(grad, vector[layers.weights[l] : layers.weights[l] + i * o].reshape(o, i), below)
        if l:
            masked_by(below, room[l - 1, : n * i].reshape(n, i))
        grad = below
    return grad


@compiled
def backward(x, vector, gradient, layers, room, grad, spare):
    """Write the gradient of a perceptron's parameters, from that of its output ``grad`` ``[N, O]``; ``spare`` is ``[2, N * widest]``."""
    n, last = x.shape[0], len(layers.weights) - 1
    column_sums(grad, gradient[layers.biases[last] : layers.biases[last] + layers.widths[last + 1]])
    for l in range(last, -1, -1):  # noqa: E741
        i, o = layers.widths[l], layers.widths[l + 1]
        dweight = gradient[layers.weights[l] : layers.weights[l] + i * o].reshape(o, i)
        if l == 0:
            np.dot(grad.T, x, dweight)
        else:
            h = room[l - 1, : n * i].reshape(n, i)
            np.dot(grad.T, h, dweight)
            below = spare[l % 2, : n * i].reshape(n, i)
            np.dot(grad, vector[layers.weights[l] : layers.weights[l] + i * o].reshape(o, i), below)
            sums = gradient[layers.biases[l - 1] : layers.biases[l - 1] + i]
            if layers.tanh:
                through_tanh(below, h, sums)
            else:
                through_relu(below, h, sums)
            grad = below


@compiled
def norm_of(gradient):
    """Its Euclidean norm."""
    total = ZERO
    for i in range(len(gradient)):
        total += gradient[i] * gradient[i]
    return np.sqrt(total)


@compiled
def adam(moving, step, learning_rate, epsilon, scale):
    """Adam's step number ``step`` (from 1) down the gradient times ``scale``."""
    rate = f4(learning_rate / (1 - BETA1**step))
    root = f4(1 / np.sqrt(1 - BETA2**step))
    for i in range(len(moving.vector)):
        g = moving.gradient[i] * scale
        m = moving.first[i] + (g - moving.first[i]) * f4(1 - BETA1)
        v = moving.second[i] * f4(BETA2) + g * g * f4(1 - BETA2)
        moving.first[i], moving.second[i] = m, v
        moving.vector[i] -= rate * m / (np.sqrt(v) * root + epsilon)


# --- PPO ----------------------------------------------------------------------------------------------------------------------------------


@compiled
def choices(logits, taken, sizes, logp, score):
    """Log-probabilities ``[N]`` of choices and their gradient with respect to the logits; the logits become probabilities."""
    for i in range(logits.shape[0]):
        logp[i] = ZERO
        begin = 0
        for k in range(len(sizes)):
            end = begin + sizes[k]
            top = logits[i, begin]
            for j in range(begin + 1, end):
                top = max(top, logits[i, j])
            chosen = begin + taken[i, k]
            logp[i] += logits[i, chosen] - top
            total = ZERO
            for j in range(begin, end):
                logits[i, j] = np.exp(logits[i, j] - top)
                total += logits[i, j]
            logp[i] -= np.log(total)
            for j in range(begin, end):
                logits[i, j] /= total
                score[i, j] = -logits[i, j]
            score[i, chosen] += ONE
            begin = end


@compiled
def gaussian(mean, log_std, action, logp, score, tanh_mean):
    """Log-probabilities ``[N]`` of actions and their gradient with respect to the mean; ``mean`` is squashed where it has to be."""
    n, d = mean.shape
    constant = ZERO
    for j in range(d):
        constant += log_std[j] + HALF_LOG_2PI
    scale = np.exp(-log_std)
    for i in range(n):
        total = ZERO
        for j in range(d):
            if tanh_mean:
                mean[i, j] = tanh(mean[i, j])
            z = (action[i, j] - mean[i, j]) * scale[j]
            total += z * z
            score[i, j] = z * scale[j]
        logp[i] = -HALF * total - constant


@compiled
def take(source, row, out, i):
    """``out[i] = source[row]``, of matrices."""
    for j in range(source.shape[1]):
        out[i, j] = source[row, j]


@compiled
def standardise(x):
    """In place, with the unbiased deviation + 1e-8; sums in float64. Fewer than two stay as they are."""
    n = len(x)
    if n < 2:
        return
    total = 0.0
    for i in range(n):
        total += x[i]
    mean = total / n
    total = 0.0
    for i in range(n):
        total += (x[i] - mean) ** 2
    scale = f4(np.sqrt(total / (n - 1))) + f4(1e-8)
    for i in range(n):
        x[i] = (x[i] - f4(mean)) / scale


@compiled
def ratios(logp, old_logp, out):
    """Probability ratios ``[N]``; returns the k3 estimate of KL(old || new)."""
    total = 0.0
    for i in range(len(logp)):
        log_ratio = logp[i] - old_logp[i]
        out[i] = np.exp(log_ratio)
        total += out[i] - ONE - log_ratio
    return total / len(logp)


@compiled
def policy_slopes(rule, logp, ratio, advantage, sums, out):
    """Derivatives of the policy loss by every log-probability; adds the loss and the number of clipped rows to ``sums``."""
    share = ONE / f4(len(ratio))
    low, high = ONE - rule.epsilon, ONE + rule.epsilon
    loss, clipped = 0.0, 0
    for i in range(len(ratio)):
        r, a = ratio[i], advantage[i]
        inside = min(max(r, low), high)
        slope = -a * r
        if rule.clip == CLIP:
            loss += -a * inside if -a * inside > slope else slope  # NaN stays NaN
            if a * (r - inside) > ZERO:
                slope = ZERO
                clipped += 1
        elif rule.clip == DETACHED_CLIP:
            slope = -a * min(r, high)
            loss += slope * logp[i]
        else:
            loss += slope
        out[i] = slope * share
    sums[0] += loss
    sums[3] += clipped


@compiled
def value_slopes(rule, value, target, old_value, sums, out):
    """Derivatives of the value loss, with its coefficient, by every value; adds the loss to ``sums``."""
    share = rule.value_coefficient * (TWO * rule.value_scale / f4(len(target)))
    loss = 0.0
    for i in range(len(target)):
        error = value[i, 0] - target[i]
        slope = error * share
        square = error * error
        if rule.clip_value:
            change = value[i, 0] - old_value[i]
            kept = min(max(change, -rule.epsilon), rule.epsilon)
            clipped_error = old_value[i] - target[i] + kept
            if kept != change and abs(clipped_error) > abs(error):
                slope = ZERO
            square = clipped_error * clipped_error if clipped_error * clipped_error > square else square
        loss += square
        out[i, 0] = slope
    sums[1] += rule.value_scale * loss


@compiled
def choice_slopes(rule, probability, slope, out):
    """``out`` ``[N, P]``, the score, becomes the derivative of the policy loss and the entropy bonus by the logits."""
    share = rule.entropy_coefficient / f4(len(slope))
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            out[i, j] *= slope[i]
        if share == ZERO:
            continue
        begin = 0
        for k in range(len(rule.sizes)):
            end = begin + rule.sizes[k]
            negative_entropy = ZERO
            for j in range(begin, end):
                p = probability[i, j]
                if p > ZERO:
                    negative_entropy += p * np.log(p)
            for j in range(begin, end):
                p = probability[i, j]
                if p > ZERO:
                    out[i, j] += share * p * (np.log(p) - negative_entropy)
            begin = end


@compiled
def gaussian_slopes(rule, mean, log_std, slope, out, dlog_std):
    """The same by the mean before it is squashed; the derivative by the log standard deviation is written, too."""
    variance = np.exp(TWO * log_std)
    dlog_std[:] = -rule.entropy_coefficient
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            dlog_std[j] += slope[i] * (out[i, j] * out[i, j] * variance[j] - ONE)
            out[i, j] *= slope[i]
            if rule.tanh_mean:
                out[i, j] *= ONE - mean[i, j] * mean[i, j]


@compiled
def ppo_passes(orders, rows, actor, critic, rule, moving, step):
    """Passes of PPO over the rows, each a sequence of minibatch steps.

    Args:
        orders: int64 ``[passes, N]``: the rows of each pass, in the order in which they are visited.
        rows: see :class:`PPORows`.
        actor, critic: see :class:`Layers`.
        rule: see :class:`PPORule`.
        moving: parameters of both networks; they are moved.
        step: steps that Adam has made.

    Returns:
        Steps that Adam has made; rows visited; whether the KL stopped the update; and float64 ``[5]``: sums over those rows of policy loss,
        value loss and the k3 estimate, the number of clipped rows, and the sum over steps of gradient norms.
    """
    n, size, width = rows.observation.shape[0], rule.size, actor.widths[-1]
    widest = max(np.max(actor.widths), np.max(critic.widths))
    actor_room, critic_room = np.empty((len(actor.weights), size * widest), f4), np.empty((len(critic.weights), size * widest), f4)
    spare = np.empty((2, size * widest), f4)
    gaussian_head = len(rule.sizes) == 0
    log_std = moving.vector[rule.log_std : rule.log_std + width]
    observation, choice = np.empty((size, rows.observation.shape[1]), f4), np.empty((size, rows.choice.shape[1]), np.int64)
    action, score = np.empty((size, rows.action.shape[1]), f4), np.empty((size, width), f4)
    columns, value_slope = np.empty((7, size), f4), np.empty((size, 1), f4)
    sums = np.zeros(5)
    visited, kl = 0, 0.0
    for order in orders:
        for start in range(0, n, size):
            m = min(size, n - start)
            old_logp, advantage, target, old_value = columns[0, :m], columns[1, :m], columns[2, :m], columns[3, :m]
            logp, ratio, slope = columns[4, :m], columns[5, :m], columns[6, :m]
            for i in range(m):
                row = order[start + i]
                take(rows.observation, row, observation, i)
                take(rows.choice, row, choice, i)
                take(rows.action, row, action, i)
                old_logp[i], advantage[i] = rows.old_logp[row], rows.advantage[row]
                target[i], old_value[i] = rows.target[row], rows.old_value[row]
            if rule.normalise:
                standardise(advantage)
            for i in range(m):
                advantage[i] *= rows.factor[order[start + i]]
            out = forward(observation[:m], moving.vector, actor, actor_room)
            value = forward(observation[:m], moving.vector, critic, critic_room)
            if gaussian_head:
                gaussian(out, log_std, action[:m], logp, score[:m], rule.tanh_mean)
            else:
                choices(out, choice[:m], rule.sizes, logp, score[:m])
            kl = ratios(logp, old_logp, ratio)
            if rule.before_step and kl > rule.target_kl:
                return step, visited, True, sums
            sums[2] += kl * m
            policy_slopes(rule, logp, ratio, advantage, sums, slope)
            value_slopes(rule, value, target, old_value, sums, value_slope[:m])
            if gaussian_head:
                gaussian_slopes(rule, out, log_std, slope, score[:m], moving.gradient[rule.log_std : rule.log_std + width])
            else:
                choice_slopes(rule, out, slope, score[:m])
            backward(observation[:m], moving.vector, moving.gradient, actor, actor_room, score[:m], spare)
            backward(observation[:m], moving.vector, moving.gradient, critic, critic_room, value_slope[:m], spare)
            norm = norm_of(moving.gradient)
            sums[4] += norm
            scale = ONE if norm + f4(1e-6) <= rule.max_norm else rule.max_norm / (norm + f4(1e-6))
            step += 1
            adam(moving, step, rule.learning_rate, rule.adam_epsilon, scale)
            visited += m
        if not rule.before_step and kl > rule.target_kl:
            return step, visited, True, sums
    return step, visited, False, sums


# --- actors and critics of a replay -------------------------------------------------------------------------------------------------------


@compiled
def member(ensemble, k):
    """One perceptron of an ensemble."""
    return Layers(ensemble.widths, ensemble.weights[k], ensemble.biases[k], False)


@compiled
def joined(observation, action, out):
    """``out [N, O + D]`` = both, side by side."""
    n, o = observation.shape
    for i in range(n):
        for j in range(o):
            out[i, j] = observation[i, j]
        for j in range(action.shape[1]):
            out[i, o + j] = action[i, j]


@compiled
def squashed(out, noise, low, high, action, log_prob):
    """``tanh(mean + sigma noise)`` and its exact log-probability ``[N]``, from ``out``: mean, then log deviation before its limits."""
    n, d = noise.shape
    for i in range(n):
        total = ZERO
        for j in range(d):
            log_std = min(max(out[i, d + j], low), high)
            u = out[i, j] + np.exp(log_std) * noise[i, j]
            action[i, j] = tanh(u)
            m = -TWO * u
            softplus = max(m, ZERO) + np.log1p(np.exp(-abs(m)))
            total += -HALF * noise[i, j] * noise[i, j] - log_std - HALF_LOG_2PI - TWO * (LOG_2 - u - softplus)
        log_prob[i] = total


@compiled
def smallest_of(x, vector, critics, room, out):
    """``out [N]`` = the smallest critic of inputs ``[N, O + D]``."""
    for k in range(len(critics.weights)):
        q = forward(x, vector, member(critics, k), room[0])
        for i in range(len(out)):
            out[i] = q[i, 0] if k == 0 else min(out[i], q[i, 0])


@compiled
def critics_step(x, rows, target, critics, moving, room, spare, factor, rate, step, q):
    """One Adam step of all critics towards ``target`` ``[N]``, down ``factor`` times the mean weighted squared error, summed over critics.

    Returns:
        The loss. ``q`` ``[K, N]`` gets the values from before the step.
    """
    n = len(target)
    slope = np.empty((n, 1), f4)
    loss = 0.0
    for k in range(len(critics.weights)):
        found = forward(x, moving.vector, member(critics, k), room[0])
        for i in range(n):
            q[k, i] = found[i, 0]
            error = found[i, 0] - target[i]
            slope[i, 0] = TWO * factor / f4(n) * rows.weight[i] * error
            loss += rows.weight[i] * error * error
        backward(x, moving.vector, moving.gradient, member(critics, k), room[0], slope, spare)
    adam(moving, step, rate, f4(1e-8), ONE)
    return factor * loss / n


@compiled
def td(rows, following, target):
    """``target [N] = reward + discount * following``, where the discount is not 0."""
    for i in range(len(target)):
        target[i] = rows.reward[i] + (rows.discount[i] * following[i] if rows.discount[i] != ZERO else ZERO)


@compiled
def soft_step(
    rows, noise, actor, critics, target_vector, policy, values, limits, alpha, in_backup, factor, rates, steps, q, target, log_prob
):
    """A gradient step of SAC: the target, all critics, then the policy.

    Args:
        rows: see :class:`ReplayRows`.
        noise: ``[2, N, D]``, standard normal: for the target and for the policy's step.
        actor, critics: see :class:`Ensemble`; the actor is one of one.
        target_vector: parameters of the target critics.
        policy, values: see :class:`Moving`; they are moved.
        limits: float32 ``[2]``: of the log deviation.
        alpha: the temperature.
        in_backup: whether the entropy counts in the target.
        factor: of the critics' loss.
        rates, steps: of policy and critics: Adam's step size, and the number of this step.
        q, target, log_prob: ``[K, N]``, ``[N]``, ``[N]``: written, the last one of the policy's step.

    Returns:
        The losses of critics and policy.
    """
    n, d = rows.action.shape
    o, networks = rows.observation.shape[1], len(critics.weights)
    widest = max(np.max(actor.widths), np.max(critics.widths))
    room, spare = np.empty((networks, len(critics.biases[0]), n * widest), f4), np.empty((2, n * widest), f4)
    actor_room = np.empty((len(actor.biases[0]), n * widest), f4)
    x, action = np.empty((n, o + d), f4), np.empty((n, d), f4)
    out = forward(rows.following, policy.vector, member(actor, 0), actor_room)
    squashed(out, noise[0], limits[0], limits[1], action, log_prob)
    joined(rows.following, action, x)
    later = np.empty(n, f4)
    smallest_of(x, target_vector, critics, room, later)
    if in_backup:
        for i in range(n):
            later[i] -= alpha * log_prob[i]
    td(rows, later, target)
    joined(rows.observation, rows.action, x)
    critic_loss = critics_step(x, rows, target, critics, values, room, spare, factor, rates[1], steps[1], q)
    out = forward(rows.observation, policy.vector, member(actor, 0), actor_room)
    squashed(out, noise[1], limits[0], limits[1], action, log_prob)
    joined(rows.observation, action, x)
    now = np.empty((networks, n), f4)
    for k in range(networks):
        found = forward(x, values.vector, member(critics, k), room[k])
        for i in range(n):
            now[k, i] = found[i, 0]
    ties = np.zeros(n, f4)
    loss = 0.0
    for i in range(n):
        later[i] = np.min(now[:, i])
        loss += alpha * log_prob[i] - later[i]
        for k in range(networks):
            if now[k, i] == later[i]:
                ties[i] += ONE
    slope, daction = np.empty((n, 1), f4), np.zeros((n, d), f4)
    for k in range(networks):
        for i in range(n):
            slope[i, 0] = -ONE / (ties[i] * f4(n)) if now[k, i] == later[i] else ZERO
        dx = backward_to_input(n, values.vector, member(critics, k), room[k], slope, spare)
        for i in range(n):
            for j in range(d):
                daction[i, j] += dx[i, o + j]
    share = alpha / f4(n)
    for i in range(n):
        for j in range(d):
            a = action[i, j]
            du = share * TWO * a + daction[i, j] * (ONE - a * a)
            raw = out[i, d + j]
            deviation = np.exp(min(max(raw, limits[0]), limits[1]))
            out[i, j] = du
            out[i, d + j] = du * deviation * noise[1, i, j] - share if raw >= limits[0] and raw <= limits[1] else ZERO
    backward(rows.observation, policy.vector, policy.gradient, member(actor, 0), actor_room, out, spare)
    adam(policy, steps[0], rates[0], f4(1e-8), ONE)
    return critic_loss, loss / n


@compiled
def smoothed_step(
    rows, noise, actor, critics, target_actor, target_critics, policy, values, scale, limit, moves, rates, steps, q, target
):  # both models' losses
    """A gradient step of TD3: the target, all critics and, where ``moves``, the policy up the first critic.

    Args:
        rows, actor, critics, policy, values, rates, steps, q, target: see :func:`soft_step`.
        noise: ``[N, D]``, standard normal.
        target_actor, target_critics: parameters of the target networks.
        scale, limit: deviation of the target's noise, and its largest size.
        moves: whether the policy has its step.

    Returns:
        The losses of critics and policy; the policy's is 0 where it did not move.
    """
    n, d = rows.action.shape
    o, networks = rows.observation.shape[1], len(critics.weights)
    widest = max(np.max(actor.widths), np.max(critics.widths))
    room, spare = np.empty((networks, len(critics.biases[0]), n * widest), f4), np.empty((2, n * widest), f4)
    actor_room = np.empty((len(actor.biases[0]), n * widest), f4)
    x, action, later = np.empty((n, o + d), f4), np.empty((n, d), f4), np.empty(n, f4)
    out = forward(rows.following, target_actor, member(actor, 0), actor_room)
    for i in range(n):
        for j in range(d):
            wanted = tanh(out[i, j]) + min(max(scale * noise[i, j], -limit), limit)
            action[i, j] = min(max(wanted, -ONE), ONE)
    joined(rows.following, action, x)
    smallest_of(x, target_critics, critics, room, later)
    td(rows, later, target)
    joined(rows.observation, rows.action, x)
    critic_loss = critics_step(x, rows, target, critics, values, room, spare, ONE, rates[1], steps[1], q)
    if not moves:
        return critic_loss, 0.0
    out = forward(rows.observation, policy.vector, member(actor, 0), actor_room)
    for i in range(n):
        for j in range(d):
            out[i, j] = tanh(out[i, j])
    joined(rows.observation, out, x)
    first = forward(x, values.vector, member(critics, 0), room[0])
    loss = 0.0
    slope = np.full((n, 1), -ONE / f4(n), f4)
    for i in range(n):
        loss -= first[i, 0]
    dx = backward_to_input(n, values.vector, member(critics, 0), room[0], slope, spare)
    for i in range(n):
        for j in range(d):
            out[i, j] = dx[i, o + j] * (ONE - out[i, j] * out[i, j])
    backward(rows.observation, policy.vector, policy.gradient, member(actor, 0), actor_room, out, spare)
    adam(policy, steps[0], rates[0], f4(1e-8), ONE)
    return critic_loss, loss / n
