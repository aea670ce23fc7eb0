"""Golden vectors of DialTree-RPO: which paths of a tree are kept, what they earn, which tags are masked, and the loss."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from rheostat.collect.language.conversations import Talk
from rheostat.collect.language.dialogue_trees import TOPIC, DialogueTree, DialogueTrees, Growth, Node
from rheostat.credit.dialogue_credit import PathAdvantage, TagMask, tag_mask
from rheostat.credit.verifiers.verifier_interface import Grade
from rheostat.masking import select
from rheostat.methods.language.dialtree_rpo import DialTreeRPO
from rheostat.tasks.language.task_interface import Prompt
from rheostat.tasks.language.text_episodes import Said
from tests.vectors.methods import batch_of, minimised
from tests.vectors.tools import Unsupported, boolean, gradients, integer, leaf, plain, tensor

MODES: tuple[Any, ...] = ("none", "static", "adaptive")


def run(name: str, inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Outputs of one case."""
    if name == "collect_trajectories":
        return paths(inputs["nodes_id_parent_turn_success_malformed_offtopic"], params["T_max"])
    if name == "outcome_reward":
        return {"reward": [outcome(scores, params["eta"]) for scores in inputs["turn_scores"]]}
    if name == "masks_compared":
        ids, worth, own = integer(inputs["token_ids"]), tensor(inputs["advantage"])[:, None], boolean(inputs["policy_token_mask"])
        masks = {mode: tag_mask(ids, worth.expand(ids.shape), params["format_token_ids"], mode) & own for mode in MODES}
        return plain({mode: mask.double() for mode, mask in masks.items()})
    if name.startswith("loss_"):
        return plain(loss(inputs, params))
    raise Unsupported(f"the adapter does not know a case {name!r}")


def growth(options: DialogueTrees) -> Growth:
    """Of one tree, with a partner that understands everything."""
    talker = SimpleNamespace(turns=options.depth, seed=0, hears=lambda *_: True)
    context = SimpleNamespace(updates=0, sampling=None, setup=SimpleNamespace(task=SimpleNamespace(tags=())))
    return Growth(options, context, talker, [DialogueTree(Prompt(""), [], 0)])


def paths(rows: list[list[int]], depth: int) -> dict[str, Any]:
    """The tree of the file, grown by the method's own rules; a malformed reply never reaches the partner."""
    one = growth(DialogueTrees(depth=depth))
    tree = one.trees[0]
    known = {0: tree.active[0]}
    for turn in range(1, depth + 1):
        alive = []
        for number, parent, _, success, malformed, off_topic in (row for row in rows if row[2] == turn):
            if malformed or known.get(parent) not in tree.active:
                continue
            node = known[number] = Node(Talk([]), known[parent], number, (*known[parent].said, Said("")), known[parent].heard)
            grade = Grade(float(success), {TOPIC: 1.0 - off_topic})
            if one.goes_on(tree, node, "", grade, terminated=False, truncated=False, over=False):
                alive.append((tree, node))
        one.keep(alive, turn)
    return {"trajectories": [[0, *node.path] for node in tree.leaves], "rewards": [one.verdict(node).reward for node in tree.leaves]}


def outcome(scores: list[float], threshold: float) -> float:
    """Of one path whose turns score so. A score is what rewards add up to, so a turn earns the difference; a success ends the path."""
    one = growth(DialogueTrees(depth=len(scores), threshold=threshold))
    node = one.trees[0].active[0]
    for before, now in zip([0.0, *scores], scores, strict=False):
        node = Node(Talk([]), node, 0, (*node.said, Said("")), (), node.grade)
        if not one.goes_on(one.trees[0], node, "", Grade(now - before), terminated=False, truncated=False, over=False):
            break
    return float(one.verdict(node).reward or 0.0)


def loss(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """Advantage, mask and loss of one tree, by its gradient too."""
    ids, own, logp = integer(inputs["token_ids"]), boolean(inputs["policy_token_mask"]), leaf(inputs["logp"])
    batch = batch_of(
        own, action=ids, group=torch.zeros_like(ids), learner_logp=tensor(inputs["old_logp"]), reference_logp=tensor(inputs["ref_logp"])
    )
    config = DialTreeRPO(advantage=PathAdvantage(params["adv_eps"]))
    worth = config.advantage.of(batch, tensor(inputs["rewards"]))
    batch.rows.advantage = worth

    class Known(TagMask):
        def ids(self, context: Any) -> list[int]:
            return list(params["format_token_ids"])

    mask = tag_mask(ids, worth, params["format_token_ids"], config.format_mask.mode) & own
    batch = Known(config.format_mask.mode)(None, batch)
    found, _ = minimised(config, logp, batch)
    advantage = select(worth, own).sum(1) / own.sum(1)
    return {"advantage": advantage, "adaptive_mask": mask.double(), "loss": found, "grad_logp": gradients(found, logp)[0]}
