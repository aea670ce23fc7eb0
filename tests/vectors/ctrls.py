"""Golden vectors of CTRLS: embeddings of steps, the Dirichlet, what the method's update minimises, and the bound.

No code of the authors was found: the recorded numbers are those of the equations.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from rheostat.collect.language.latent_chains import StepRules
from rheostat.learner.latent_training import ChainLessons, TransitionUpdate
from rheostat.methods.language.ctrls import CTRLS
from rheostat.objectives.dirichlet import dirichlet_entropy, dirichlet_logp, mixture_logp
from rheostat.objectives.state_likelihood import step_bound
from rheostat.policies.language.latent_states import mean_state
from rheostat.policies.language.spectral import spectral_embedding
from tests.vectors.methods import advantage, batch_of, scores_of
from tests.vectors.tools import boolean, gradients, leaf, plain, tensor


def run(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Outputs of one case."""
    if name.startswith("spectral_embedding"):
        return plain(embedded(inputs, params))
    if name.startswith("policy_loss"):
        return plain(loss(inputs, params))
    return plain(bound(inputs, params) if name == "elbo_categorical" else dirichlet(inputs))


def embedded(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """One step; with fewer tokens than eigenvectors the rest is 0 and not recorded."""
    rules, tokens = StepRules(eigenvectors=params["k"]), tensor(inputs["token_embeddings"])
    found = spectral_embedding(tokens[None], torch.tensor([len(tokens)]), rules.eigenvectors, normalise=rules.normalise)[0]
    return {"eigenvalues": found.square().sum(-1), "embedding": found[: len(tokens)]}


def dirichlet(inputs: dict[str, Any]) -> dict[str, Any]:
    """Density, entropy and their gradients."""
    alpha = leaf(inputs["alpha"])
    logp, entropy = dirichlet_logp(alpha, tensor(inputs["action"])), dirichlet_entropy(alpha)
    return {
        "logp": logp,
        "entropy": entropy,
        "grad_logp_alpha": gradients(logp.sum(), alpha)[0],
        "grad_entropy_alpha": gradients(entropy.sum(), alpha)[0],
        "mean": mean_state(alpha),
    }


def loss(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Chains of one prompt: the method's own advantage, and the sum that its update descends, of given concentrations."""
    method = CTRLS(update=TransitionUpdate(entropy_coefficient=params["entropy_weight"]))
    (part,) = method.compose().improve
    alpha, action, steps, reward = leaf(inputs["alpha"]), tensor(inputs["action"]), boolean(inputs["mask"]), tensor(inputs["reward"])
    worth = advantage(method, reward, torch.zeros(len(reward), dtype=torch.int64), steps)
    epsilon = torch.full((len(reward),), params["eps"], dtype=torch.float64)
    columns = {"latent_input": alpha, "latent_action": action, "latent_steps": steps, "exploration": epsilon}
    batch = batch_of(steps, columns=columns, advantage=worth)
    context: Any = SimpleNamespace(models={part.model: SimpleNamespace(network=lambda given: given)})
    value = sum(
        each.at(0) * each.term(scores_of(steps.double()), batch, each.term.denominator(batch, context), context)[0] for each in part.terms
    )
    return {
        "loss": value,
        "step_logp": mixture_logp(alpha, action, epsilon[:, None]),
        "grad_alpha": gradients(value, alpha)[0],
    }


def bound(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """A chain whose priors do not depend on the state before."""
    beta = ChainLessons(beta=params["beta"]).beta
    found = step_bound(tensor(inputs["q"]), tensor(inputs["prior"]).log(), tensor(inputs["loglik_given_state"]), beta=beta)
    return {"reconstruction": found.reconstruction, "kl": found.kl, "elbo": found.elbo.sum()}
