"""A check before training: whether the model can generate, and with which cache.

Architectures beyond the packed decoder's family generate through their own forward pass and Hugging Face's cache. Some have a cache of
their own that cannot be passed in, or read padding differently while they decode. So a few tokens are generated and scored again.
"""

from __future__ import annotations

import sys

from rheostat.collect.language.generation.embedded import EmbeddedEngine
from rheostat.collect.language.generation.parity import parity
from rheostat.collect.language.generation.sampling import Sampling, row_streams
from rheostat.errors import RheostatError
from rheostat.policies.language.model import LanguagePolicy

TOKENS = 6
PROMPTS = 3


def try_generation(policy: LanguagePolicy) -> None:
    """Choose how the policy generates: with a cache where that reproduces its scores, else without one.

    Args:
        policy: its ``cached`` is set.

    Raises:
        RheostatError: neither way gives what the policy scores.
    """
    if policy.decoder is not None:  # compared with the model's own logits when it was built
        return
    trouble = ""
    for policy.cached in (True, False):
        try:
            _generate_and_score(policy)
        except Exception as error:  # an architecture may raise anything when it is used in a way that its authors did not foresee
            trouble = trouble or str(error).strip().splitlines()[0].partition(" Look at")[0].rstrip(".")
            continue
        if not policy.cached:
            kind = policy.causal.config.model_type
            print(
                f"The cache of this {kind} cannot be used ({trouble}): every token is generated from the whole row, slowly.",
                file=sys.stderr,
            )
        return
    raise RheostatError(
        f"Models of the kind {policy.causal.config.model_type!r} cannot be generated from here ({trouble}): use another architecture, or "
        "--engine continuous."
    )


def _generate_and_score(policy: LanguagePolicy) -> None:
    """Prompts of different lengths, in groups, so that repeated, padded and dropped rows all occur."""
    first = min(policy.vocabulary - 1, 3)
    prompts = [[(first + place) % policy.vocabulary for place in range(2 * number + 1)] for number in range(PROMPTS)]
    sampling = Sampling(max_new_tokens=TOKENS, stop_ids=())
    found = EmbeddedEngine(policy).generate(prompts, streams=row_streams(0, 0, range(PROMPTS), 2), group_size=2, sampling=sampling)
    parity(policy, found.trajectories(policy.pad_id), sampling).require()
