"""Golden vectors of Lp-Reg: the proxy distribution, and the method's own term with its gradient."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from rheostat.credit.proxy_scores import Threshold, proxy_logp
from rheostat.masking import masked_mean
from rheostat.objectives.clipping import Clip
from rheostat.objectives.kl import kl_estimate
from rheostat.objectives.low_probability import ProtectedGradient
from rheostat.parts import Aggregate, Batch, Tokens
from rheostat.trajectories import Trajectories
from tests.vectors.tools import boolean, gradients, integer, leaf, plain, tensor

FORMS: dict[str, Threshold] = {"minp": "min-p", "fixed": "fixed"}


def run(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Outputs of one case."""
    return plain(proxy(inputs, params) if name.startswith("proxy") else loss(inputs, params))


def proxy(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Log-probabilities of the tokens under the proxy, and without a threshold under the policy."""
    logits, tokens, temperature = tensor(inputs["logits"]), integer(inputs["tokens"]), params["temperature"]
    found = proxy_logp(logits, tokens, threshold=params["threshold"], form=FORMS[params["kind"]], temperature=temperature)
    return {"proxy_logp": found, "policy_logp": proxy_logp(logits, tokens, threshold=0.0, temperature=temperature)}


def loss(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """The term on rows that are a whole gradient step. The recorded shares divide by the number of tokens and 1e-8."""
    logp, mask = leaf(inputs["logp"]), boolean(inputs["mask"])
    nothing = torch.zeros_like(mask)
    rows = Trajectories(
        action=torch.zeros(mask.shape, dtype=torch.int64),
        mask=mask,
        reward=logp.detach(),
        terminated=nothing,
        truncated=nothing,
        sampler_logp=tensor(inputs["old_logp"]),
        learner_logp=tensor(inputs["old_logp"]),
        advantage=tensor(inputs["advantages"]),
        batch_size=list(mask.shape),
    )
    mode = "sequence-mean" if params.get("loss_agg") == "seq-mean-token-mean" else "token-mean"
    clip = Clip(params["clip_low"], params["clip_high"])
    term = ProtectedGradient(Tokens(Aggregate(mode)), clip, share=params["rho"], pull=params["beta"])
    batch, context = Batch(rows, {"proxy_logp": tensor(inputs["proxy_logp"])}), SimpleNamespace(longest=mask.shape[1])
    value, report = term(SimpleNamespace(logp=logp), batch, term.denominator(batch, context), context)
    k3 = masked_mean(
        kl_estimate(logp.detach(), rows.learner_logp, mask=mask, value_clamp=10.0), mask
    )  # its diagnostic, the other way round
    clipped = report.means["meter/clip_fraction"]
    return {"loss": value, "grad_logp": gradients(value, logp)[0], "clipfrac": clipped, "k3_to_old": k3}
