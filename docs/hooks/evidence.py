"""What backs a method, read from the repository's data: golden vectors (``tests/vectors/data``) and studies (``studies/results``)."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from rheostat.errors import RheostatError
from rheostat.experiments.studies.results import read_result, study_names

ROOT = Path(__file__).parents[2]
VECTORS = ROOT / "tests" / "vectors" / "data"
RESULTS = ROOT / "studies" / "results"

CASES: dict[str, dict[str, tuple[str, ...]]] = {
    "a2c": {"baselines-control": ("a2c_*", "gae_*")},
    "acereason": {"acereason": ("*",)},
    "awac": {"baselines-control": ("awac_*",)},
    "bapo": {"bapo": ("*",)},
    "best-of-n": {"baselines-preference": ("best_of_n_*",)},
    "cdpo": {"baselines-preference": ("cdpo_*",)},
    "chord": {"chord": ("*",)},
    "cispo": {"baselines-llm": ("loss/cispo_*", "trl/cispo/*")},
    "cog-rethinker": {"cog-rethinker": ("*",)},
    "cql": {"baselines-control": ("cql_*", "sac_*", "tanh_gaussian_*")},
    "ctrls": {"ctrls": ("*",)},
    "dapo": {"baselines-llm": ("loss/clip_higher/*", "trl/dapo/token_hi*", "dapo/*")},
    "ded": {"ded": ("*",)},
    "dialtree-rpo": {"dialtree-rpo": ("*",)},
    "dpo": {"baselines-preference": ("dpo_*", "cdpo_*")},
    "dr-grpo": {
        "baselines-llm": (
            "adv/grpo_std_False",
            "adv/trl_grpo_none",
            "agg/seq-mean-token-sum-norm*",
            "loss/ppo_symmetric/seq-mean-token-sum-norm/*",
            "trl/dr_grpo/*",
        )
    },
    "famo2o": {"famo2o": ("sin_cos_*", "iql_*", "balance_*")},
    "famo2o-cql": {"famo2o": ("sin_cos_*", "cql_*")},
    "ghpo": {"ghpo": ("*",)},
    "gmpo": {"baselines-llm": ("loss/gmpo/*",)},
    "grpo": {
        "baselines-llm": (
            "adv/grpo_std_True",
            "adv/trl_grpo_group",
            "adv/trl_grpo_batch",
            "agg/seq-mean-token-mean*",
            "kl/*",
            "loss/ppo_symmetric/seq-mean-token-mean/*",
            "loss/log_ratio_clamp",
            "trl/grpo/token/*",
            "trl/grpo/token_*",
        )
    },
    "gspo": {"baselines-llm": ("loss/gspo*", "trl/grpo/sequence_*")},
    "ipo": {"baselines-preference": ("dpo_ipo_*", "cpo_ipo_*")},
    "iql": {"baselines-control": ("iql_*",)},
    "kto": {"baselines-preference": ("kto_*",)},
    "light-r1": {"light-r1": ("*",)},
    "lp-reg": {"lp-reg": ("*",)},
    "luffy": {"baselines-llm": ("loss/luffy/*",)},
    "n2n": {"n2n": ("*",)},
    "nft": {"nft": ("*",)},
    "online-offline-gap": {"online-offline-gap": ("*",)},
    "online-dpo": {"baselines-preference": ("online_dpo_*",)},
    "oprl": {"oprl": ("*",)},
    "orpo": {"baselines-preference": ("orpo_*",)},
    "oorl": {"oorl": ("*",)},
    "osp": {"osp": ("*",)},
    "ospo": {"ospo": ("*",)},
    "pmoe": {"pmoe": ("sac_update*",)},
    "pmoe-ppo": {"pmoe": ("gmm_log_prob*", "ppo_total_loss")},
    "polar": {"polar": ("*",)},
    "ppo": {"baselines-control": ("gae_*", "ppo_*"), "props": ("target_ppo_minibatch", "gae_over_reordered_buffer")},
    "ppo-buffer": {"props": ("target_ppo_minibatch", "gae_over_reordered_buffer")},
    "ppo-lm": {"baselines-llm": ("adv/gae_*", "value/*", "loss/ppo_symmetric/token-mean/*")},
    "props": {
        "props": (
            "gaussian_*",
            "discrete_clip_only",
            "discrete_ratio_far",
            "discrete_exact_kl*",
            "sampling_error_*",
            "target_ppo_minibatch",
            "gae_over_reordered_buffer",
        )
    },
    "reinforce": {"baselines-llm": ("loss/reinforce_logp/*",)},
    "reinforce-pp": {"baselines-llm": ("adv/reinforce_pp_*", "loss/ppo_symmetric/token-mean/*")},
    "relic": {"relic": ("*",)},
    "remix": {"remix": ("*",)},
    "reward-model": {"baselines-preference": ("bt_rm_*",)},
    "rise": {"rise": ("*",)},
    "rl-plus": {"rl-plus": ("*",)},
    "rlpd": {"baselines-control": ("rlpd_*", "tanh_gaussian_*")},
    "rlfr": {"rlfr": ("*",)},
    "rloo": {"baselines-llm": ("adv/rloo", "trl/rloo_sequence_loss/*")},
    "ros": {"props": ("ros_*", "discrete_ros_*", "sampling_error_*")},
    "robust-dpo": {"baselines-preference": ("dpo_robust_*",)},
    "rwr": {"baselines-preference": ("rwr_*",)},
    "sac": {"baselines-control": ("sac_*", "tanh_gaussian_*")},
    "self-curation": {"self-curation": ("*",)},
    "suboptimal-onpolicy-prefs": {"suboptimal-onpolicy-prefs": ("*",)},
    "simpo": {"baselines-preference": ("cpo_*",)},
    "td-jepa": {"td-jepa": ("*",)},
    "td3": {"baselines-control": ("td3_target",)},
    "td3-bc": {"baselines-control": ("td3_*",)},
    "tis": {"baselines-llm": ("tis/*", "tis_trl/*", "loss/clip_higher_with_sampler_weights/*")},
    "treepo": {"treepo": ("*",)},
    "uni-o4": {"uni-o4": ("*",)},
    "vagram": {"vagram": ("*",)},
}
"""Which recorded cases compute the parts that a method is made of: patterns of names, by file."""


@dataclass(frozen=True)
class Vectors:
    """The golden vectors of one method in one file."""

    file: str
    names: tuple[str, ...]
    sources: dict[str, int]
    """Where the recorded outputs come from -> how many."""


@cache
def cases(file: str) -> list[dict[str, Any]]:
    """The recorded cases of a file; those without a source of their own have the file's."""
    content = json.loads((VECTORS / f"{file}.json").read_text())
    return [{"source": content.get("source", "")} | case for case in content["cases"]]


def vectors(method: str, verified: str) -> list[Vectors]:
    """The golden vectors of a method.

    Raises:
        RheostatError: a pattern matches nothing, or the table of methods speaks of vectors and none are named here.
    """
    found = []
    for file, patterns in CASES.get(method, {}).items():
        for pattern in patterns:
            if not any(fnmatchcase(case["name"], pattern) for case in cases(file)):
                raise RheostatError(f"docs/hooks/evidence.py: no case of {file}.json is named {pattern!r} any more (method {method}).")
        chosen = [case for case in cases(file) if any(fnmatchcase(case["name"], pattern) for pattern in patterns)]
        counts = Counter(source_of(case) for case in chosen)
        found.append(Vectors(file, tuple(case["name"] for case in chosen), dict(counts.most_common())))
    if "vectors" in verified and not found:
        raise RheostatError(f"The table of methods says that {method} has vectors: name its cases in docs/hooks/evidence.py.")
    return found


def source_of(case: dict[str, Any]) -> str:
    """Who computed the recorded outputs, in a few words."""
    text = str(case.get("source", ""))
    if text.startswith("independent"):
        return "computed independently from the equations"
    transcribed = "formula" in text.partition(":")[0] or "expression" in text
    text = text.removeprefix("official").removeprefix(" code").removeprefix(" formula").removeprefix(":").strip()
    words = text.split(" ")
    who = " ".join(words[:2]) if len(words) > 1 and words[1][:1].isdigit() else words[0].removesuffix(".py")
    return f"the formula of {who}" if transcribed else f"the code of {who}"


@cache
def studies() -> list[dict[str, Any]]:
    """The results of every study, in today's words."""
    return [{"slug": slug, **read_result(RESULTS / f"{slug}.json")} for slug in study_names() if (RESULTS / f"{slug}.json").exists()]


def claims(method: str, paper: str) -> list[tuple[str, dict[str, Any]]]:
    """(study, claim) wherever the method is among the arms, or, for a study that names none, its paper is the study's."""
    found = []
    for study in studies():
        about = paper != "-" and paper in str(study.get("paper", ""))
        for claim in study.get("claims", []):
            shown = claim.get("arms") or study.get("arms") or ()
            arms = {name_of_arm(str(arm)) for arm in shown}
            arms |= {arm["method"] for arm in shown.values() if "method" in arm} if isinstance(shown, dict) else set()
            if method in arms or (about and not arms):
                found.append((str(study["slug"]), claim))
    return found


def name_of_arm(arm: str) -> str:
    """The method of an arm's label: ``PROPS m=64`` is ``props``, ``REINFORCE++`` is ``reinforce-pp``."""
    return arm.lower().split(" ")[0].replace("++", "-pp")


def mixtures(path: Path = RESULTS / "joint.json") -> str:
    """The results of the study of all mixtures as a table, or how to get them."""
    if not path.exists():
        return "The study has not been run yet: `rheostat study joint`."
    study = read_result(path)
    claims = {claim["name"]: claim for claim in study["claims"]}
    metrics = claims["stages"]["metrics"]
    level = metrics["cannot be told from the best"]
    budgets = {"generated tokens": "final", "learner tokens": "at equal learner tokens"}
    lines = [
        "| arm | accuracy at equal generated tokens | at equal learner tokens | generated tokens | learner tokens | better than GRPO? |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for arm in sorted(metrics["final"], key=lambda arm: -metrics["final"][arm]["mean"]):
        accuracies = [spread(metrics[name][arm]) + (" \\*" if arm in level[budget] else "") for budget, name in budgets.items()]
        spent = [f"{metrics[budget][arm]['mean']:,.0f}" for budget in budgets]
        outcomes = [condition["outcome"] for condition in claims[arm]["conditions"]] if arm in claims else []
        told = "–" if not outcomes else outcomes[0] if len(set(outcomes)) == 1 else " / ".join(outcomes)
        told = f"pilot ({told})" if outcomes and claims[arm]["pilot"] else told
        lines.append("| " + " | ".join([arm, *accuracies, *spent, told]) + " |")
    source = study["provenance"]
    common = metrics["common learner tokens"]["mean"]
    notes = (
        f"Mean and standard error of {len(claims['stages']['seeds'])} matched seeds; \\* cannot be told from the best of its column. Equal "
        f"learner tokens are {common:,.0f} here. Two verdicts are those at equal generated and at equal learner tokens. {source['date']}, "
        f"commit `{source['commit'][:10]}`; all claims are [listed](claims.md)."
    )
    picture = "![Accuracy against generated and learner tokens, and differences to GRPO](results/joint.png){ loading=lazy }"
    return "\n".join(lines) + f"\n\n{notes}" + (f"\n\n{picture}" if path.with_suffix(".png").exists() else "")


def spread(found: dict[str, Any]) -> str:
    """Mean and standard error."""
    error = found["standard_error"]
    return f"{found['mean']:.3f}" + ("" if error is None else f" ± {error:.3f}")
