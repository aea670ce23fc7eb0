"""Verifiers: the reward of a completion, from graders that may fail.

``load_reward("my_rewards.py:score")`` accepts TRL's and verl's functions unchanged. Nothing here imports torch before scores are built.
"""

from rheostat.credit.verifiers.answer_extraction import EXTRACTORS, ExactMatch, extractor
from rheostat.credit.verifiers.built_in import BUILT_IN, WeightedSum, load_reward, load_rewards
from rheostat.credit.verifiers.conventions import FunctionVerifier
from rheostat.credit.verifiers.isolation import Isolated
from rheostat.credit.verifiers.programs import Problem, ProgramTests
from rheostat.credit.verifiers.sandbox.guard import Guarded
from rheostat.credit.verifiers.verifier_interface import Grade, Progress, Rollout, Scores, Verifier, require_valid

__all__ = [
    "BUILT_IN",
    "EXTRACTORS",
    "ExactMatch",
    "FunctionVerifier",
    "Grade",
    "Guarded",
    "Isolated",
    "Problem",
    "ProgramTests",
    "Progress",
    "Rollout",
    "Scores",
    "Verifier",
    "WeightedSum",
    "extractor",
    "load_reward",
    "load_rewards",
    "require_valid",
]
