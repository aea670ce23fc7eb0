"""The table of methods: one explicit list, nothing found by magic.

Method modules are imported when they are asked for, so that listing them is instant.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Literal

from rheostat import plugins
from rheostat.errors import RheostatError, unknown

Domain = Literal["control", "language", "compression"]


PARENTS: dict[Domain, str] = {"control": "ppo", "language": "grpo", "compression": "n2n"}


@dataclass(frozen=True)
class Entry:
    """One row of the table."""

    path: str
    """``module:Class`` of the method."""
    domain: Domain
    title: str
    paper: str
    verified: str
    """What has been checked, for ``rheostat list``."""

    @property
    def parent(self) -> str:
        """The method that others of its domain are told apart from."""
        return PARENTS[self.domain]

    def load(self) -> Any:
        """The method class."""
        module, name = self.path.split(":")
        return getattr(importlib.import_module(module), name)

    @property
    def module(self) -> Any:
        """The module, whose docstring holds the paper, the equations and what differs."""
        return importlib.import_module(self.path.split(":")[0])


VECTORS = "vectors (verl, TRL), plain (loops), laws, probes, resume"
OWN_CODE = "vectors (the authors' code), laws, probes, resume"
PLAIN_FLEET = "vectors (the authors' code), plain (loops), laws, resume"
PLAIN_OWN_CODE = "vectors (the authors' code), plain (loops), laws, probes, resume"

METHODS: dict[str, Entry] = {
    "acereason": Entry(
        "rheostat.methods.language.acereason:AceReason",
        "language",
        "Strictly on-policy groups, in stages",
        "2505.16400",
        "vectors (verl), plain (loops), laws, probes, resume",
    ),
    "a2c": Entry("rheostat.methods.control.a2c:A2C", "control", "Advantage actor-critic", "1602.01783", "vectors (SB3), probes, resume"),
    "awac": Entry(
        "rheostat.methods.control.awac:AWAC", "control", "Advantage-weighted actor-critic", "2006.09359", "vectors (CORL), laws, resume"
    ),
    "bapo": Entry(
        "rheostat.methods.language.bapo:BAPO",
        "language",
        "Clip bounds searched for balance",
        "2510.18927",
        "vectors, plain (loops), laws, probes, resume",
    ),
    "bc": Entry("rheostat.methods.control.bc:BC", "control", "Behaviour cloning", "2106.01345", "laws, probes, resume"),
    "best-of-n": Entry(
        "rheostat.methods.language.best_of_n:BestOfN",
        "language",
        "Imitation of the best of N own answers",
        "2401.01879",
        "vectors (equations), plain (loops), laws, probes, resume",
    ),
    "cdpo": Entry(
        "rheostat.methods.language.cdpo:CDPO",
        "language",
        "DPO with smoothed labels",
        "2305.18290",
        "vectors (TRL), plain (loops), laws, probes, resume",
    ),
    "chord": Entry(
        "rheostat.methods.language.chord:CHORD",
        "language",
        "Reinforcement and imitation in every step",
        "2508.11408",
        "vectors, plain (loops), laws, probes, resume",
    ),
    "cispo": Entry("rheostat.methods.language.cispo:CISPO", "language", "Clipped importance-sampling weights", "2506.13585", VECTORS),
    "cog-rethinker": Entry(
        "rheostat.methods.language.cog_rethinker:CogRethinker",
        "language",
        "Failed problems asked again: split, then corrected",
        "2510.15979",
        "vectors, plain (loops), laws, probes, resume",
    ),
    "cql": Entry("rheostat.methods.control.cql:CQL", "control", "Conservative Q-learning", "2006.04779", "vectors (CORL), laws, resume"),
    "ctrls": Entry(
        "rheostat.methods.language.ctrls:CTRLS",
        "language",
        "Transitions between latent states of steps",
        "2507.08182",
        "vectors (equations), plain (loops), laws, resume",
    ),
    "dapo": Entry("rheostat.methods.language.dapo:DAPO", "language", "Decoupled clip and dynamic sampling", "2503.14476", VECTORS),
    "ded": Entry(
        "rheostat.methods.language.ded:DED",
        "language",
        "A small corpus chosen well, then fine-tuning",
        "2508.09883",
        "vectors (equations), plain (loops), laws, probes, resume",
    ),
    "dialtree-rpo": Entry(
        "rheostat.methods.language.dialtree_rpo:DialTreeRPO",
        "language",
        "Dialogues grown as trees and pruned by quality, with a mask that keeps their format",
        "2510.02286",
        "vectors (equations), plain (loops), laws, probes, resume",
    ),
    "dpo": Entry(
        "rheostat.methods.language.dpo:DPO",
        "language",
        "Direct preference optimisation",
        "2305.18290",
        "vectors (TRL), plain (loops), laws, probes, resume",
    ),
    "dqn": Entry("rheostat.methods.control.dqn:DQN", "control", "Deep Q-learning, double DQN", "1312.5602", "laws, probes, resume"),
    "dr-grpo": Entry("rheostat.methods.language.dr_grpo:DrGRPO", "language", "GRPO without its normalisations", "2503.20783", VECTORS),
    "famo2o": Entry(
        "rheostat.methods.control.famo2o:FamO2O", "control", "A balance of its own for every state, over IQL", "2310.17966", OWN_CODE
    ),
    "famo2o-cql": Entry(
        "rheostat.methods.control.famo2o:FamO2OCQL", "control", "A balance of its own for every state, over CQL", "2310.17966", OWN_CODE
    ),
    "forward-backward": Entry(
        "rheostat.methods.control.forward_backward:ForwardBackward",
        "control",
        "Zero-shot policies from a factored successor measure",
        "2103.07945",
        "plain, laws, resume",
    ),
    "ghpo": Entry(
        "rheostat.methods.language.ghpo:GHPO",
        "language",
        "Hints where the whole group fails",
        "2507.10628",
        "vectors, plain (loops), laws, probes, resume",
    ),
    "gmpo": Entry(
        "rheostat.methods.language.gmpo:GMPO",
        "language",
        "Geometric-mean policy optimisation",
        "2507.20673",
        "vectors (verl), plain (loops), laws, probes, resume",
    ),
    "grpo": Entry("rheostat.methods.language.grpo:GRPO", "language", "Group relative policy optimisation", "2402.03300", VECTORS),
    "gspo": Entry("rheostat.methods.language.gspo:GSPO", "language", "Group sequence policy optimisation", "2507.18071", VECTORS),
    "ipo": Entry(
        "rheostat.methods.language.ipo:IPO",
        "language",
        "Identity preference optimisation",
        "2310.12036",
        "vectors (TRL), plain (loops), laws, probes, resume",
    ),
    "ippo": Entry(
        "rheostat.methods.control.ippo:IPPO", "control", "Independent PPO for several agents", "2011.09533", "plain (loops), games, resume"
    ),
    "iql": Entry("rheostat.methods.control.iql:IQL", "control", "Implicit Q-learning", "2110.06169", "vectors (CORL), laws, resume"),
    "kto": Entry(
        "rheostat.methods.language.kto:KTO",
        "language",
        "Kahneman-Tversky optimisation, without pairs",
        "2402.01306",
        "vectors (TRL), plain (loops), laws, probes, resume",
    ),
    "laplacian": Entry(
        "rheostat.methods.control.laplacian:Laplacian",
        "control",
        "Zero-shot policies on Laplacian features",
        "1810.04586",
        "plain, laws, resume",
    ),
    "light-r1": Entry(
        "rheostat.methods.language.light_r1:LightR1",
        "language",
        "GRPO with a length reward, the last stage of a recipe",
        "2503.10460",
        PLAIN_OWN_CODE,
    ),
    "lp-reg": Entry(
        "rheostat.methods.language.lp_reg:LpReg", "language", "Protection of rare tokens in wrong answers", "2510.03222", PLAIN_OWN_CODE
    ),
    "luffy": Entry(
        "rheostat.methods.language.luffy:LUFFY", "language", "Off-policy guidance by an expert in the group", "2504.14945", PLAIN_OWN_CODE
    ),
    "mbpo": Entry(
        "rheostat.methods.control.mbpo:MBPO",
        "control",
        "Policy optimisation in rollouts of a learned model",
        "1906.08253",
        "plain (loops), laws, probes, resume",
    ),
    "n2n": Entry(
        "rheostat.methods.compression.n2n:N2N",
        "compression",
        "Networks cut down by two recurrent policies",
        "1709.06030",
        PLAIN_OWN_CODE.replace("probes, ", ""),
    ),
    "nft": Entry(
        "rheostat.methods.language.nft:NFT", "language", "Likelihood that learns from wrong answers", "2505.18116", PLAIN_OWN_CODE
    ),
    "online-dpo": Entry(
        "rheostat.methods.language.online_dpo:OnlineDPO",
        "language",
        "DPO on pairs of the policy's own",
        "2402.04792",
        "vectors (TRL), plain (loops), laws, probes, resume",
    ),
    "online-offline-gap": Entry(
        "rheostat.methods.control.online_offline_gap:OnlineOfflineGap",
        "control",
        "Alignment online by a proxy, or offline",
        "2405.08448",
        "vectors, plain (loops), laws, resume, study",
    ),
    "oorl": Entry(
        "rheostat.methods.language.oorl:OORL",
        "language",
        "Translation by execution, and groups that mean the same",
        "2505.12723",
        "vectors (equations, verl), plain (loops), laws, probes, resume",
    ),
    "oprl": Entry(
        "rheostat.methods.language.oprl:OPRL",
        "language",
        "Step rewards for agents, from a second language model that learns from preferences between episodes",
        "2509.19199",
        "vectors (authors' code and equations), plain (loops), laws, resume",
    ),
    "orpo": Entry(
        "rheostat.methods.language.orpo:ORPO",
        "language",
        "Odds-ratio preference optimisation",
        "2403.07691",
        "vectors (TRL), plain (loops), laws, probes, resume",
    ),
    "osp": Entry(
        "rheostat.methods.language.osp:OSP",
        "language",
        "The policy's own preferences, by their strength",
        "2405.14103",
        "vectors (equations), plain (loops), laws, probes, resume",
    ),
    "ospo": Entry("rheostat.methods.control.ospo:OSPO", "control", "One-step policy optimisation of a fleet", "2507.15351", PLAIN_FLEET),
    "pairwise-policy-gradient": Entry(
        "rheostat.methods.language.pairwise_policy_gradient:PairwisePolicyGradient",
        "language",
        "Policy gradient of the difference of two rewards",
        "2310.00212",
        "plain (loops), laws, probes, resume",
    ),
    "pmoe": Entry("rheostat.methods.control.pmoe:PMOE", "control", "SAC with a mixture of experts", "2104.09122", OWN_CODE),
    "pmoe-ppo": Entry("rheostat.methods.control.pmoe_ppo:PMOEPPO", "control", "PPO with a mixture of experts", "2104.09122", OWN_CODE),
    "polar": Entry(
        "rheostat.methods.language.polar:POLAR",
        "language",
        "Reward model that tells policies apart",
        "2507.05197",
        "vectors (the authors' code), plain (loops), laws, probes, resume",
    ),
    "ppo": Entry(
        "rheostat.methods.control.ppo:PPO",
        "control",
        "Proximal policy optimisation",
        "1707.06347",
        "vectors (SB3, CleanRL), probes, resume",
    ),
    "ppo-buffer": Entry(
        "rheostat.methods.control.ppo_buffer:PPOBuffer",
        "control",
        "PPO reusing the last batches",
        "2311.08290",
        "vectors, probes, resume, study",
    ),
    "ppo-lm": Entry("rheostat.methods.language.ppo_lm:PPOLM", "language", "PPO with a critic on tokens", "2203.02155", VECTORS),
    "prime": Entry(
        "rheostat.methods.language.prime:PRIME",
        "language",
        "Implicit process rewards from a second language model that is trained together with the policy",
        "2502.01456",
        "plain (loops), laws, resume",
    ),
    "process-reward": Entry(
        "rheostat.methods.language.process_reward:ProcessReward",
        "language",
        "A reward model on tokens is trained together with the policy",
        "2410.08146",
        "plain (loops), laws, probes, resume",
    ),
    "props": Entry(
        "rheostat.methods.control.props:PROPS",
        "control",
        "Proximal robust on-policy sampling",
        "2311.08290",
        "vectors, probes, resume, study",
    ),
    "recurrent-ppo": Entry(
        "rheostat.methods.control.recurrent_ppo:RecurrentPPO",
        "control",
        "PPO with an LSTM",
        "1707.06347",
        "plain (loops), probes, resume",
    ),
    "reinforce": Entry(
        "rheostat.methods.language.reinforce:Reinforce", "language", "The policy gradient and nothing else", "Williams 1992", VECTORS
    ),
    "reinforce-pp": Entry("rheostat.methods.language.reinforce_pp:ReinforcePP", "language", "REINFORCE++", "2501.03262", VECTORS),
    "relic": Entry(
        "rheostat.methods.control.relic:ReLIC",
        "control",
        "Learning in context across episodes",
        "2410.02751",
        PLAIN_OWN_CODE.replace("probes, ", ""),
    ),
    "remix": Entry(
        "rheostat.methods.language.remix:ReMix",
        "language",
        "Recent rollouts, then rebirth",
        "2507.06892",
        "vectors, plain (loops), laws, probes, resume",
    ),
    "reward-model": Entry(
        "rheostat.methods.language.reward_model:RewardModel",
        "language",
        "A reward model from pairs (Bradley-Terry)",
        "2203.02155",
        "vectors (TRL), plain (loops), laws, probes, resume",
    ),
    "rft": Entry(
        "rheostat.methods.language.rft:RFT",
        "language",
        "Rejection-sampling fine-tuning",
        "2308.01825",
        "plain (loops), laws, probes, resume",
    ),
    "rise": Entry(
        "rheostat.methods.language.rise:RISE", "language", "Solutions and their verification together", "2505.13445", PLAIN_OWN_CODE
    ),
    "rl-plus": Entry(
        "rheostat.methods.language.rl_plus:RLPlus",
        "language",
        "Experts in the group by multiple importance sampling",
        "2508.00222",
        "vectors, plain (loops), laws, probes, resume",
    ),
    "rlfr": Entry(
        "rheostat.methods.language.rlfr:RLFR", "language", "Penalties from a flow over hidden states", "2510.10201", PLAIN_OWN_CODE
    ),
    "rloo": Entry("rheostat.methods.language.rloo:RLOO", "language", "REINFORCE leave-one-out", "2402.14740", VECTORS),
    "rlpd": Entry("rheostat.methods.control.rlpd:RLPD", "control", "SAC with prior data", "2302.02948", "vectors, laws, resume"),
    "robust-acting": Entry(
        "rheostat.methods.control.robust_acting:RobustActing", "control", "Robust on-policy acting", "2111.14552", "probes, resume"
    ),
    "robust-dpo": Entry(
        "rheostat.methods.language.robust_dpo:RobustDPO",
        "language",
        "DPO without bias under flipped labels",
        "2403.00409",
        "vectors (TRL), plain (loops), laws, probes, resume",
    ),
    "ros": Entry(
        "rheostat.methods.control.ros:ROS", "control", "Robust on-policy sampling", "2111.14552", "vectors, probes, resume, study"
    ),
    "rwr": Entry(
        "rheostat.methods.language.rwr:RWR",
        "language",
        "Reward-weighted regression",
        "2404.14367",
        "vectors (equations), plain (loops), laws, probes, resume",
    ),
    "sac": Entry("rheostat.methods.control.sac:SAC", "control", "Soft actor-critic", "1801.01290", "vectors (SB3), probes, resume"),
    "self-curation": Entry(
        "rheostat.methods.language.self_curation:SelfCuration",
        "language",
        "Only prompts that are not solved yet",
        "2510.02230",
        PLAIN_OWN_CODE,
    ),
    "sft": Entry("rheostat.methods.language.sft:SFT", "language", "Supervised fine-tuning", "-", "plain (loops), laws, probes, resume"),
    "simpo": Entry(
        "rheostat.methods.language.simpo:SimPO",
        "language",
        "Simple preference optimisation, without a reference",
        "2405.14734",
        "vectors (TRL), plain (loops), laws, probes, resume",
    ),
    "suboptimal-onpolicy-prefs": Entry(
        "rheostat.methods.control.suboptimal_onpolicy_prefs:SuboptimalOnPolicyPrefs",
        "control",
        "Preferences: sampling, reuse, negative gradient",
        "2404.14367",
        "vectors (the authors' code), plain (loops), laws, resume, study",
    ),
    "td-jepa": Entry(
        "rheostat.methods.control.td_jepa:TDJEPA",
        "control",
        "Zero-shot policies from latents that predict themselves",
        "2510.00739",
        "vectors (the authors' code), plain, laws, resume",
    ),
    "td3": Entry(
        "rheostat.methods.control.td3:TD3",
        "control",
        "Deterministic policy, twin critics",
        "1802.09477",
        "vectors (formula), probes, resume",
    ),
    "td3-bc": Entry(
        "rheostat.methods.control.td3_bc:TD3BC", "control", "TD3 near the data", "2106.06860", "vectors (CORL), probes, resume"
    ),
    "tis": Entry("rheostat.methods.language.tis:TIS", "language", "Truncated importance sampling", "-", VECTORS),
    "treepo": Entry(
        "rheostat.methods.language.treepo:TreePO",
        "language",
        "Completions grown as trees, credited by subtrees",
        "2508.17445",
        PLAIN_OWN_CODE,
    ),
    "uni-o4": Entry(
        "rheostat.methods.control.uni_o4:UniO4", "control", "One clipped objective, offline and online", "2311.03351", OWN_CODE
    ),
    "vagram": Entry(
        "rheostat.methods.control.vagram:VaGraM",
        "control",
        "A model judged by the gradient of the value, over MBPO",
        "2204.01464",
        PLAIN_OWN_CODE,
    ),
}


def entry(name: str) -> Entry:
    """The row of a method: of the table, of a file of the user's own, or of an installed package.

    Raises:
        RheostatError: unknown name, with the nearest known ones; a file that cannot be imported, or a package whose row is none.
    """
    if name not in METHODS:
        plugins.import_files()
    if name not in METHODS and name in plugins.added("methods"):
        found = plugins.load("methods", name)
        if not isinstance(found, Entry):
            raise RheostatError(
                f"The entry point {name} of rheostat.methods is a {type(found).__name__}: it must be a methods.table.Entry."
            )
        METHODS[name] = found
    if name not in METHODS:
        raise unknown("method", name, {*METHODS, *plugins.added("methods")})
    return METHODS[name]


def known(name: str) -> bool:
    """Whether there is a method of this name."""
    try:
        entry(name)
    except RheostatError:
        return False
    return True


def of_the_library(name: str) -> bool:
    """Whether a method is the library's, whose code changes only with the installation."""
    return name in METHODS and METHODS[name].path.startswith("rheostat.")


def load_added() -> list[str]:
    """Put the methods of installed packages and of own files into the table; returns a sentence for each that cannot be loaded."""
    refused = []
    try:
        plugins.import_files()
    except RheostatError as error:
        refused.append(str(error))
    for name in plugins.added("methods"):
        try:
            entry(name)
        except RheostatError as error:
            refused.append(str(error))
    return refused
