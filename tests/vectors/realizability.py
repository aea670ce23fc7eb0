"""Adapter for ``realizability.json``: prediction under a discount, with linear classes and with a list of functions."""

from __future__ import annotations

from typing import Any

import torch

from rheostat import tabular as lab
from tests.vectors.tools import integer, plain, tensor


def run(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> Any:
    """The outputs of one case."""
    if name.startswith("linear"):
        return plain(linear(inputs, params["gamma"]))
    if name == "finite_class_minimax_on_data":
        return plain(listed(inputs, params["gamma"]))
    return plain(two_states(inputs, params["gamma"]))


def linear(inputs: dict[str, Any], gamma: float) -> dict[str, Any]:
    """A span of features, with one test function that need not lie in it."""
    problem = prediction(inputs, gamma)
    mdp, policy, features, f = problem.mdp, problem.policy, tensor(inputs["features"]), tensor(inputs["test_function"])
    moments, d = lab.Moments.population(problem, features), lab.occupancy(problem.mdp, problem.policy)
    beta, gap = lab.linear_incompleteness(problem, features), lab.linear_completeness_gap(problem, f, features)
    error, weights = lab.bellman_error(problem, f), lab.lstd(moments)
    return {
        "Q_pi": lab.action_values(mdp, policy),
        "beta": beta,
        "fqe_spectral_radius": lab.fitted_q_radius(moments),
        "lstd_weights": weights,
        "lstd_Q": lab.linear_values(features, weights),
        "fqe_iterates_from_zero": lab.linear_fitted_q(moments, 5),
        "bellman_error_mu": error,
        "completeness_gap_mu": gap,
        "minimax_population_loss": error**2 - gap**2,
        "one_minus_beta_sq_lower_bound": (1 - beta**2) * error**2,
        "discounted_occupancy": d,
        "density_ratio_concentrability": lab.concentrability(d, problem.data),
        "test_function_concentrability": lab.class_concentrability(problem, f),
        "J_pi": lab.policy_value(mdp, policy),
        "prediction_error": lab.prediction_error(problem, f),
        "telescoped_error": lab.telescoped_error(problem, f),
    }


def listed(inputs: dict[str, Any], gamma: float) -> dict[str, Any]:
    """A class of five functions on twelve transitions."""
    problem, members = prediction(inputs, gamma), tensor(inputs["function_class"])
    state, action, following = (integer(inputs[f"data_{key}"]) for key in ("s", "a", "s_next"))
    data = lab.Transitions(state, action, tensor(inputs["data_r"]), following)
    losses = lab.empirical_losses(data, problem.policy, gamma, members)
    found = lab.minimax_estimate(losses)
    return {
        "empirical_loss_g_f": losses,
        "minimax_objective": found.objective,
        "argmin": found.member,
        "population_bellman_error": lab.bellman_error(problem, members),
        "population_completeness_gap": lab.completeness_gap(problem, members, members),
        "beta": lab.incompleteness(problem, members),
        "inherent_bellman_error": lab.inherent_bellman_error(problem, members),
    }


def two_states(inputs: dict[str, Any], gamma: float) -> dict[str, Any]:
    """The example w -> 2 w."""
    reward = tensor(inputs["R"])[:, None]
    mdp = lab.DiscountedMDP(tensor(inputs["P"])[:, None], reward, tensor([1.0, 0.0]), gamma)
    problem = lab.Prediction(mdp, torch.ones_like(reward), tensor(inputs["mu"])[:, None])
    features = tensor(inputs["features"])[:, None]
    moments = lab.Moments.population(problem, features)
    beta = lab.linear_incompleteness(problem, features)
    return {"beta": beta, "fqe_spectral_radius": lab.fitted_q_radius(moments), "lstd_matrix": moments.matrix}


def prediction(inputs: dict[str, Any], gamma: float) -> lab.Prediction:
    """The problem of a case; a case without a start begins anywhere, which no output of it depends on."""
    reward = tensor(inputs["R"])
    start = tensor(inputs["rho"]) if "rho" in inputs else torch.full((len(reward),), 1 / len(reward), dtype=torch.float64)
    mdp = lab.DiscountedMDP(tensor(inputs["P"]), reward, start, gamma)
    return lab.Prediction(mdp, tensor(inputs["pi"]), tensor(inputs["mu"]))
