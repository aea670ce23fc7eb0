"""WHO ACTS? as a part: trees of dialogues. Every turn branches, poor replies are pruned, paths to the leaves are the rows (DialTree-RPO).

A tree belongs to a prompt. A node is one reply of the policy with the partner's answer; its children continue that very dialogue. What
paths have in common is generated once. The column ``path`` ``[B, turns]`` holds the number of every row's node on every turn (unique
within a tree, -1 behind the leaf).

An environment is never copied: for every turn its conversations are opened anew and the earlier replies are said again, which the protocol
of :mod:`rheostat.tasks.language.text_episodes` allows. All conversations of a tree have one seed, so that one dialogue always has one
answer. Where an environment answers the same replies differently, the row fails with that reason.

The noise of a reply is a function of (seed, turn, update, prompt, child, position), as in a conversation: a tree that never branches is
a conversation, token by token. A tree does not depend on its neighbours.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch

from rheostat.collect.language.conversations import Conversations, Talk
from rheostat.collect.language.generation.engine import FinishReason
from rheostat.collect.language.generation.sampling import row_streams
from rheostat.collect.language.language_collectors import batch_of
from rheostat.credit.token_rewards import reward_at_last_token
from rheostat.credit.verifiers.verifier_interface import Grade, Scores, grades_of
from rheostat.errors import RheostatError
from rheostat.options import option
from rheostat.parts import Batch
from rheostat.policies.flops import FORWARD
from rheostat.streams import derive_seed
from rheostat.tasks.language.reply_tags import well_formed
from rheostat.tasks.language.task_interface import Prompt
from rheostat.tasks.language.text_episodes import OneTurn, Said, added

GROWING = ("ids", "logp", "version", "turn", "reward", "progress", "lines")
"""Lists of a dialogue that every branch has for itself."""
TOPIC = "understood"
"""Part of a turn's grade, from 0 to 1: how well the partner could follow. A reply below the threshold is off topic."""


def tags_of(context: Any, own: str) -> tuple[str, ...]:
    """The tags of well-formed replies: the option's, separated by blanks, else the task's."""
    return tuple(own.split()) or context.setup.task.tags


@dataclass(eq=False)
class Node:
    """A dialogue up to a reply of the policy and the partner's answer; the root is the prompt."""

    talk: Talk
    parent: Node | None = None
    number: int = -1
    """Of this node in its tree."""
    said: tuple[Said, ...] = ()
    heard: tuple[str, ...] = ()
    """The partner's answers, one for every reply but the last of a dialogue that is over."""
    grade: Grade = field(default_factory=Grade)
    """Of the whole dialogue so far."""

    @property
    def path(self) -> list[int]:
        """Numbers from the first reply to this one."""
        return [] if self.parent is None else [*self.parent.path, self.number]

    def child(self, number: int, said: Said, logp: Sequence[float], versions: Sequence[int]) -> Node:
        """This dialogue, with one more reply."""
        talk = self.talk
        grown = replace(talk)
        for name in GROWING:
            setattr(grown, name, list(getattr(talk, name)))
        count = len(said.ids)
        grown.speak(list(said.ids), list(logp[:count]), list(versions[:count]), len(self.said) + 1)
        grown.lines.append(said.text)
        return Node(grown, self, number, (*self.said, said), self.heard, self.grade)


@dataclass(eq=False)
class DialogueTree:
    """The tree of one prompt as it grows."""

    prompt: Prompt
    ids: list[int]
    number: int
    """Of the prompt in the run."""
    active: list[Node] = field(default_factory=list)
    leaves: list[Node] = field(default_factory=list)
    nodes: int = 0
    replies: int = 0

    def __post_init__(self) -> None:
        self.active = [Node(Talk(list(self.ids)))]


@dataclass(frozen=True)
class DialogueTrees:
    """The policy grows a tree of dialogues for each of the next prompts."""

    prompts: int = option(16, short="prompts_per_batch", at_least=1)
    """Prompts per batch."""
    branches: int = option(4, at_least=1)
    """Replies that are drawn to continue a dialogue (n)."""
    width: int = option(32, at_least=1)
    """Dialogues that stay alive after a turn (w), drawn at random among those that survive."""
    paths: int = option(32, short="group_size", at_least=1)
    """Most paths of a tree that are learned from (G), drawn at random."""
    depth: int = option(0, short="tree_depth", at_least=0)
    """Most turns of a path (T_max); 0 takes as many as the environment allows."""
    replies: int = option(0, short="tree_replies", at_least=0)
    """Most replies of a whole tree; 0 for no limit. One reply is kept for every turn to come, so that a path can always end."""
    threshold: float = option(0.5, short="success_threshold")
    """A dialogue has succeeded once its rewards add up to more than this (eta)."""
    prune: Literal["all", "malformed", "none"] = option("all")
    """Replies that end their branch without a trace: malformed ones and those off topic, malformed ones alone, or none."""
    topic: float = option(0.9, short="topic_threshold", above=0, at_most=1)
    """A reply that the partner understands less than this (from 0 to 1) is off topic."""
    tags: str = ""
    """Tags of a well-formed reply, separated by blanks; empty takes the task's."""
    writes: ClassVar[tuple[str, ...]] = ("path",)
    refuses: ClassVar[dict[str, str]] = {
        "replay_share": "a replayed row does not carry the path that its advantage is computed from",
        "expert_share": "an expert's dialogue has no path in a tree",
    }

    @property
    def group_size(self) -> int:
        """Most rows of a tree."""
        return self.paths

    @property
    def rows(self) -> int:
        """Most rows of a batch."""
        return self.prompts * self.paths

    def idle(self, method: Any) -> dict[str, str]:
        """Options that cannot act, and why."""
        return {} if self.prune == "all" else {"topic": f"prune {self.prune} keeps replies that are off topic, so leave it alone"}

    def bind(self, context: Any) -> None:
        """Refuse trees whose paths cannot end; rows of the batch share their beginnings."""
        context.setup.policy.share = "beginnings"
        turns = context.collector.turns
        if self.depth > turns:
            raise RheostatError(
                f"tree_depth is {self.depth}, but {context.setup.task.name} has at most {turns} turns: lower it, or set it to 0."
            )
        if 0 < self.replies < (depth := self.depth or turns):
            raise RheostatError(
                f"A budget of {self.replies} replies is smaller than one path of {depth} turns: raise tree_replies, or lower tree_depth."
            )

    def collect(self, context: Any) -> Batch:
        """``[paths of all trees, T]``, paths of a tree next to each other, with the columns ``path`` and ``turn``.

        Raises:
            RheostatError: every branch of every tree was pruned.
        """
        drawn, numbers = context.collector.draw(self.prompts)
        trees = [DialogueTree(prompt, ids, number) for (prompt, ids), number in zip(drawn, numbers, strict=True)]
        growth = Growth(self, context, talker_of(context), trees)
        for turn in range(1, growth.depth + 1):
            growth.turn(turn)
        return growth.batch()


def talker_of(context: Any) -> Conversations:
    """Who talks with the environment: the collector, or for a task of one turn a partner that grades."""
    setup, collector = context.setup, context.collector
    if isinstance(collector, Conversations):
        return collector
    return Conversations(setup, collector.seed, make=lambda: OneTurn(setup.task, setup.verifier))


class Growth:
    """How the trees of one batch grow, turn by turn.

    Args:
        options: of the trees.
        context: of the learner.
        talker: talks with the environment.
        trees: at their roots.
    """

    def __init__(self, options: DialogueTrees, context: Any, talker: Any, trees: list[DialogueTree]) -> None:
        self.options, self.context, self.talker, self.trees = options, context, talker, trees
        self.depth, self.tags = options.depth or self.talker.turns, tags_of(context, options.tags)
        self.replies = self.malformed = self.off_topic = self.generated = self.heard = 0

    def chance(self, tree: DialogueTree, purpose: str) -> random.Random:
        """What is drawn at random in a tree, whatever its neighbours."""
        return random.Random(derive_seed(self.talker.seed, purpose, str(self.context.updates), str(tree.number)))

    def turn(self, turn: int) -> None:
        """One more reply for every dialogue that is alive."""
        asked = []
        for tree, child, refused in self.grow(turn):
            if refused or (self.options.prune != "none" and not well_formed(child.said[-1].raw or child.said[-1].text, self.tags)):
                self.malformed += 1
            else:
                asked.append((tree, child))
        self.keep(self.answer(asked) if asked else [], turn)

    def keep(self, alive: list[tuple[DialogueTree, Node]], turn: int) -> None:
        """What goes on after a turn, at most ``width`` dialogues of a tree; after the last one they are leaves."""
        for tree in self.trees:
            mine = [node for other, node in alive if other is tree]
            tree.active = self.some(tree, mine, self.options.width, f"alive after turn {turn}")
            if turn == self.depth:
                for node in tree.active:
                    node.talk.truncated = True
                tree.leaves += tree.active

    def some(self, tree: DialogueTree, nodes: list[Node], count: int, purpose: str) -> list[Node]:
        """At most so many of the nodes, drawn uniformly, in their order; never by their score, which would move the group's mean."""
        if len(nodes) <= count:
            return nodes
        kept = sorted(self.chance(tree, purpose).sample(range(len(nodes)), count))
        return [nodes[index] for index in kept]

    def copies(self, tree: DialogueTree, turn: int) -> list[tuple[Node, int]]:
        """The dialogues of a tree that are continued, and by how many replies."""
        most = self.options.branches
        if not self.options.replies:
            return [(node, most) for node in tree.active]
        left = self.options.replies - tree.replies - (self.depth - turn)
        nodes = self.some(tree, tree.active, max(1, left // most), f"within the budget of turn {turn}")
        return [(node, min(most, left)) for node in nodes]

    def grow(self, turn: int) -> list[tuple[DialogueTree, Node, bool]]:
        """Sample the replies of a turn: every child with its tree, and whether the engine refused to write it."""
        forks = [(tree, node, count) for tree in self.trees for node, count in self.copies(tree, turn)]
        seed = derive_seed(self.talker.seed, "train", *([] if turn == 1 else [f"turn {turn}"]))
        first: dict[int, int] = {}  # children of a tree that were drawn before in this turn
        jobs: dict[int, list[tuple[int, DialogueTree, Node, list[int]]]] = {}
        for place, (tree, node, count) in enumerate(forks):
            start = first.get(tree.number, 0)
            first[tree.number] = start + count
            own = row_streams(seed, self.context.updates, [tree.number], start + count)[start:].tolist()
            jobs.setdefault(count, []).append((place, tree, node, own))
            tree.replies += count
        found: list[list[tuple[DialogueTree, Node, bool]]] = [[] for _ in forks]
        for count, members in sorted(jobs.items()):
            beginnings = [node.talk.prompt + node.talk.ids for *_, node, _ in members]
            streams = torch.tensor([stream for *_, each in members for stream in each])
            drawn = self.context.setup.engine.generate(beginnings, streams=streams, group_size=count, sampling=self.context.sampling)
            said, refused = self.talker.said_of(drawn), (drawn.finish == FinishReason.REFUSED).tolist()
            self.generated += int(drawn.lengths.sum())
            pieces = zip(said, drawn.logp.tolist(), drawn.versions.tolist(), refused, strict=True)
            for place, tree, node, _ in members:
                for _, (each, logp, versions, failed) in zip(range(count), pieces, strict=False):
                    found[place].append((tree, node.child(0, each, logp, versions), failed))
        children = [each for fork in found for each in fork]
        for tree, child, _ in children:
            child.number, tree.nodes = tree.nodes, tree.nodes + 1
        self.replies += len(children)
        return children

    def answer(self, asked: list[tuple[DialogueTree, Node]]) -> list[tuple[DialogueTree, Node]]:
        """The partner's answers to the last replies. Leaves are kept, replies off topic are pruned; those that go on are returned."""
        episodes = self.talker.episodes
        seeds = {tree.number: seed for tree, seed in zip(self.trees, self.seeds(), strict=True)}
        episodes.reset([tree.prompt for tree, _ in asked], [seeds[tree.number] for tree, _ in asked])
        differs = self.repeat(episodes, [node for _, node in asked])
        rows = [row for row in range(len(asked)) if row not in differs]
        alive = []
        for row, reason in differs.items():
            asked[row][1].grade = Grade.failure(reason)
            asked[row][0].leaves.append(asked[row][1])
        if rows:
            step = episodes.step(rows, [asked[row][1].said[-1] for row in rows], self.context.progress)
            replies = zip(step.observations, grades_of(step.scores), step.terminated, step.truncated, step.over, strict=True)
            for row, (text, grade, terminated, truncated, over) in zip(rows, replies, strict=True):
                if self.goes_on(*asked[row], text, grade, terminated, truncated=truncated, over=over):
                    alive.append(asked[row])
        episodes.over = [True] * len(asked)  # what goes on is opened anew in the next turn
        return alive

    def seeds(self) -> list[int]:
        """Of the environment, one for every tree."""
        seed = derive_seed(self.talker.seed, "train", "environment")
        return [int(each) for each in row_streams(seed, self.context.updates, [tree.number for tree in self.trees], 1)]

    def repeat(self, episodes: Any, nodes: list[Node]) -> dict[int, str]:
        """Say all replies but the last again; which conversations then went otherwise than before, and why."""
        differs: dict[int, str] = {}
        for turn in range(len(nodes[0].said) - 1):
            rows = [row for row in range(len(nodes)) if row not in differs]
            if not rows:
                break
            step = episodes.step(rows, [nodes[row].said[turn] for row in rows], self.context.progress)
            for row, text, grade, over in zip(rows, step.observations, grades_of(step.scores), step.over, strict=True):
                if grade.failed:
                    differs[row] = grade.message
                elif over or text != nodes[row].heard[turn]:
                    differs[row] = "the environment answered the same replies differently, so its dialogues cannot branch"
        return differs

    def goes_on(self, tree: DialogueTree, node: Node, text: str, grade: Grade, terminated: bool, *, truncated: bool, over: bool) -> bool:
        """Whether a dialogue is continued after its partner's answer; a leaf is kept in its tree."""
        options, talk, topic = self.options, node.talk, grade.parts.get(TOPIC, 1.0)
        node.grade = added(node.grade, grade)
        success = not grade.failed and (node.grade.reward or 0.0) > options.threshold
        if not success and not grade.failed and options.prune == "all" and topic < options.topic:
            self.off_topic += 1
            return False
        talk.terminated, talk.truncated = terminated or success, truncated and not success
        if not over and not success:
            before = len(talk.ids)
            if self.talker.hears(talk, text, tree.prompt, self.context.sampling):
                node.heard = (*node.heard, text)
                self.heard += len(talk.ids) - before
                return True
        if talk.failure:
            node.grade = Grade.failure(talk.failure)
        tree.leaves.append(node)
        return False

    def batch(self) -> Batch:
        """The rows of all trees, their grades, paths and counters.

        Raises:
            RheostatError: there is none.
        """
        options, context, collector = self.options, self.context, self.context.collector
        chosen = [(tree, node) for tree in self.trees for node in self.some(tree, tree.leaves, options.paths, "paths")]
        if not chosen:
            raise RheostatError(
                f"All branches were pruned: of {self.replies} replies {self.malformed} were malformed and {self.off_topic} off topic; "
                "train the model on well-formed dialogues first, lower topic_threshold, or set prune none."
            )
        talks = [node.talk for _, node in chosen]
        rows, turn = self.talker.rows_of(talks, [tree.ids for tree in self.trees], context.setup.policy.device)
        scores = Scores.from_grades([self.verdict(node) for _, node in chosen])
        reward = reward_at_last_token(torch.where(scores.valid, scores.reward, torch.zeros(())), rows.mask.cpu()).to(rows.mask.device)
        texts, prompts = ["\n".join(talk.lines) for talk in talks], [tree.prompt for tree, _ in chosen]
        graded = collector.graded(rows, prompts, texts, scores, [tree.number for tree, _ in chosen], reward=reward)
        graded.metrics |= self.metrics(chosen)
        graded = collector.enter(graded, self.generated)
        path = torch.full((len(chosen), self.depth), -1)
        for row, (_, node) in enumerate(chosen):
            path[row, : len(node.said)] = torch.tensor(node.path)
        graded.columns |= {"turn": turn, "path": path.to(turn.device)}
        context.count_tokens(FORWARD, sum(len(tree.ids) for tree in self.trees) + self.generated + self.heard)
        return batch_of(graded)

    def verdict(self, node: Node) -> Grade:
        """1 for a path that has succeeded, else 0; what the environment gave is the part ``score``. Without any grade: invalid."""
        total = node.grade
        if total.failed or total.reward is None:
            return total
        success = float(total.reward > self.options.threshold)
        return Grade(success, dict(total.parts) | {"score": total.reward}, dict(total.notes), message=total.message or node.talk.message)

    def metrics(self, chosen: list[tuple[DialogueTree, Node]]) -> dict[str, float]:
        """What the log says of the trees. ``first_turns`` is the effective number of different first replies among a tree's paths."""
        of_tree: dict[int, list[Node]] = {}
        for tree, node in chosen:
            of_tree.setdefault(tree.number, []).append(node)
        firsts = [effective_number([node.said[0].text for node in nodes]) for nodes in of_tree.values()]
        return {
            "tree/replies": self.replies / len(self.trees),
            "tree/malformed_share": self.malformed / max(1, self.replies),
            "tree/off_topic_share": self.off_topic / max(1, self.replies),
            "tree/pruned_trees": 1 - len(of_tree) / len(self.trees),
            "tree/paths": len(chosen) / len(self.trees),
            "tree/depth": sum(len(node.said) for _, node in chosen) / len(chosen),
            "tree/first_turns": sum(firsts) / len(firsts),
            "tree/generated_tokens": self.generated,
            "turns": sum(len(node.said) for _, node in chosen) / len(chosen),
        }


def effective_number(texts: Sequence[str]) -> float:
    """How many different texts there are, weighted by their shares: the inverse of the sum of their squares."""
    shares = [texts.count(text) / len(texts) for text in set(texts)]
    return 1 / sum(share**2 for share in shares)
