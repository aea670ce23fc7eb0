"""Golden vectors of Lp-Reg: the proxy distribution, and the method's own term with its gradient."""

from __future__ import annotations

from typing import Any

from rheostat.credit.proxy_scores import Threshold, proxy_logp
from rheostat.masking import Aggregation, masked_mean
from rheostat.methods.language.lp_reg import LpReg
from rheostat.objectives.clipping import Clip
from rheostat.objectives.kl import kl_estimate
from rheostat.parts import Aggregate
from tests.vectors.methods import batch_of, minimised
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
    logp, mask, old = leaf(inputs["logp"]), boolean(inputs["mask"]), tensor(inputs["old_logp"])
    mode: Aggregation = "sequence-mean" if params.get("loss_agg") == "seq-mean-token-mean" else "token-mean"
    method = LpReg(
        clip=Clip(params["clip_low"], params["clip_high"]), rare_share=params["rho"], pull=params["beta"], aggregate=Aggregate(mode)
    )
    columns = {"proxy_logp": tensor(inputs["proxy_logp"])}
    value, told = minimised(method, logp, batch_of(mask, columns=columns, learner_logp=old, advantage=tensor(inputs["advantages"])))
    k3 = masked_mean(kl_estimate(logp.detach(), old, mask=mask, value_clamp=10.0), mask)  # its diagnostic, the other way round
    return {"loss": value, "grad_logp": gradients(value, logp)[0], "clipfrac": told["meter/clip_fraction"], "k3_to_old": k3}
