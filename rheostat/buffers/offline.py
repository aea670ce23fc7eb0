"""Offline data sets: transitions of another policy, in memory and checked, read from and written to Minari's format.

Time order. ``transitions`` holds episodes one after the other; ``breaks`` is True on the last step of each. Within an episode the next
observation of a step is the observation of the following one.

Ends. ``terminated``: the environment ended. ``truncated``: a time limit, or the collection was stopped within the episode (then ``cut`` is
True for it, and its return is not that of a whole episode).

Actions are the executed ones, inside the bounds of the action space. A Gaussian policy may have sampled another action, which was
then clipped; ``drawn_action`` holds that sample and ``sampler_logp`` its log-probability, so importance weights are the sample's.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from torch import Tensor

from rheostat.buffers import minari_format
from rheostat.buffers.flat_files import SUFFIXES, read_flat
from rheostat.buffers.minari_format import Stored
from rheostat.buffers.offline_checks import agree, check_shapes, check_values, inside, title
from rheostat.buffers.offline_reading import (
    MakeEncoder,
    check_ends,
    environment_of,
    foreign_facts_of,
    observed,
    policy_actions,
    reference_of,
    split_after_ends,
)
from rheostat.errors import RheostatError
from rheostat.trajectories import Source, Transitions

if TYPE_CHECKING:
    from gymnasium import Space

OURS = "rheostat"
"""The entry of Minari's metadata that holds Rheostat's own."""
INFOS = ("sampler_logp", "version", "drawn_action")
"""What Minari's infos hold in addition to the data: log-probability, number of the policy's updates, and the action before clipping."""
MINARI_ID = re.compile(r"(?:[-_\w][-_\w/]*[-_\w]+/)?[-_\w]+?-v\d+")


class OfflineData:
    """A data set of n steps in whole episodes.

    Args:
        transitions: ``[n]`` in time order; ``sampler_logp`` is NaN where unknown. ``source`` is set to offline.
        breaks: bool ``[n]``, True on the last step of each episode.
        observation_space: of one encoded observation: Box float32 ``[k]``, or uint8 ``[C, H, W]``.
        action_space: Box float32, Discrete from 0, MultiDiscrete from 0 or MultiBinary.
        task: id of the task; empty where unknown.
        reference: returns that count as 0 and 100 percent, (random, expert), where known.
        reference_source: where these two numbers come from.
        drawn_action: ``[n, ...]`` what the policy drew before clipping; None where nothing was clipped or it is unknown.
        cut: bool ``[episodes]``, the collection was stopped within this episode; None for nowhere.
        continued: bool ``[episodes]``, this one begins where another ended and the environment was not reset; None for nowhere.
        facts: what else is known (behaviour, seed, command, ...), as plain JSON; saved with the data.
        name: what error messages call this data set.
        outside: continuous actions beyond their bounds are an error, or are clipped to them.
        adopts: the actions' space is only what the data span; that of the task it is used for takes its place.

    Raises:
        RheostatError: anything that is wrong with the data: which episode, which step, and what to do.
    """

    def __init__(
        self,
        transitions: Transitions,
        breaks: Tensor,
        *,
        observation_space: Space,
        action_space: Space,
        task: str = "",
        reference: tuple[float, float] | None = None,
        reference_source: str = "",
        drawn_action: Tensor | None = None,
        cut: Tensor | None = None,
        continued: Tensor | None = None,
        facts: dict[str, Any] | None = None,
        name: str = "the data set",
        outside: Literal["error", "clip"] = "error",
        adopts: bool = False,
    ) -> None:
        self.name, self.task = name, task
        self.outside, self.adopts = outside, adopts
        self.observation_space, self.action_space = observation_space, action_space
        self.reference, self.reference_source = reference, reference_source
        self.facts: dict[str, Any] = json.loads(json.dumps(facts or {}))
        self.drawn_action = drawn_action
        self.breaks = breaks
        check_shapes(transitions, breaks, observation_space, action_space, name)
        ends = breaks.nonzero().flatten().tolist()
        self.episodes: list[slice] = [slice(first, end + 1) for first, end in zip([0, *(e + 1 for e in ends[:-1])], ends, strict=True)]
        nowhere = torch.zeros(len(self.episodes), dtype=torch.bool)
        self.cut = nowhere if cut is None else cut
        self.continued = nowhere if continued is None else continued
        self.transitions = transitions.clone(recurse=False)
        self.transitions.source = torch.full((len(breaks),), int(Source.OFFLINE))
        if self.transitions.version is None:
            self.transitions.version = torch.zeros(len(breaks), dtype=torch.int64)
        check_values(self.transitions, breaks, name)
        self.transitions.action = inside(transitions.action, action_space, breaks, outside, name)

    # --- facts --------------------------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Number of steps n."""
        return len(self.breaks)

    @property
    def as_drawn(self) -> Transitions:
        """The steps with the actions that the policy sampled, before the environment clipped some; ``sampler_logp`` is of these."""
        if self.drawn_action is None:
            return self.transitions
        rows = self.transitions.clone(recurse=False)
        rows.action = self.drawn_action
        return rows

    @property
    def behaviour(self) -> str:
        """A description of the behaviour policy; empty where unknown."""
        return str(self.facts.get("behaviour", ""))

    @cached_property
    def lengths(self) -> Tensor:
        """Steps of every episode, int64 ``[episodes]``."""
        return torch.tensor([episode.stop - episode.start for episode in self.episodes])

    @cached_property
    def returns(self) -> Tensor:
        """Undiscounted return of every episode, float64 ``[episodes]``; see ``cut`` and ``continued`` for those that are not whole."""
        reward = self.transitions.reward.double()
        return torch.stack([reward[episode].sum() for episode in self.episodes])

    @property
    def whole_returns(self) -> Tensor:
        """Returns of the whole episodes, neither cut nor continued, float64; of all of them where none is whole."""
        parts = self.cut | self.continued
        return self.returns if parts.all() else self.returns[~parts]

    def normalised_score(self, value: float) -> float:
        """A return in percent: 0 is the random policy, 100 the expert of ``reference``.

        Raises:
            RheostatError: no reference returns are known.
        """
        if self.reference is None:
            raise RheostatError(
                f"{title(self.name)} has no reference returns, so no score can be computed: set reference=(random, expert)."
            )
        random, expert = self.reference
        return 100 * (value - random) / (expert - random)

    @property
    def warnings(self) -> list[str]:
        """Sentences about what is unusual and allowed."""
        found = []
        if len(self.episodes) == 1:
            found.append(
                f"{title(self.name)} is one trajectory only: nothing can be held out, and one return says nothing about their spread."
            )
        if self.continued.any():
            found.append(
                f"{int(self.continued.sum()):,} of the {len(self.episodes):,} episodes of {self.name} go on after the environment ended: "
                "they are learned from, and count neither among the returns nor as first states."
            )
        if self.transitions.sampler_logp.isnan().any():
            found.append(f"{title(self.name)} does not say how likely its actions were: importance weights need a fitted behaviour policy.")
        return found

    def require_episodes(self, least: int, purpose: str) -> None:
        """Refuse a data set with fewer than ``least`` episodes.

        Raises:
            RheostatError: with the purpose they are needed for.
        """
        if len(self.episodes) < least:
            raise RheostatError(f"{purpose} needs at least {least} episodes; {self.name} has {len(self.episodes)}: use a larger data set.")

    def require_spaces(self, observation_space: Space, action_space: Space, task: str) -> None:
        """Refuse to be used for a task with other spaces.

        Raises:
            RheostatError: the observations or actions of the task have another shape, kind or bounds, or other entries.
        """
        names = [[name for name, _ in getattr(space, "entries", ())] for space in (self.observation_space, observation_space)]
        if all(names) and names[0] != names[1]:
            raise RheostatError(
                f"The observations of {self.name} have the entries {', '.join(names[0])}, those of {task} have {', '.join(names[1])}: they "
                "belong to another task."
            )
        if self.adopts and type(self.action_space) is type(action_space) and self.action_space.shape == action_space.shape:
            self.action_space, self.adopts = action_space, False
            self.transitions.action = inside(self.transitions.action, action_space, self.breaks, self.outside, self.name)
        for kind, mine, theirs in (
            ("observations", self.observation_space, observation_space),
            ("actions", self.action_space, action_space),
        ):
            if not agree(mine, theirs, bounds=kind == "actions"):
                raise RheostatError(f"The {kind} of {self.name} are {mine}, those of {task} are {theirs}: they belong to another task.")

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the task, the spaces and every number of the data."""
        rows, result = self.transitions, hashlib.sha256()
        result.update(json.dumps([self.task, str(self.observation_space), str(self.action_space)]).encode())
        parts = [rows.observation, rows.next_observation[self.breaks], rows.action, rows.reward, rows.terminated, rows.truncated]
        parts += [rows.sampler_logp, rows.version, self.breaks, self.cut]
        parts += [] if self.drawn_action is None else [self.drawn_action]
        parts += [self.continued] if self.continued.any() else []
        for part in parts:
            array = part.contiguous().numpy()
            result.update(f"{array.dtype}{array.shape}".encode())
            result.update(array.tobytes())
        return result.hexdigest()

    def best(self, share: float) -> OfflineData:
        """The share of the episodes with the highest returns, rounded and at least one, in their order; earlier ones before their equals.

        Args:
            share: above 0 and at most 1.

        Raises:
            RheostatError: a share outside its range.
        """
        if not 0 < share <= 1:
            raise RheostatError(f"A share of the episodes lies above 0 and at most at 1, not at {share:g}.")
        count = max(1, round(share * len(self.episodes)))
        return self._of(self.returns.argsort(descending=True, stable=True)[:count].sort().values, f"the best {share:.3g} of {self.name}")

    def from_the_start(self) -> OfflineData:
        """The episodes that begin with a reset; all of them where none does."""
        if not self.continued.any() or self.continued.all():
            return self
        return self._of((~self.continued).nonzero().flatten(), self.name)

    def _of(self, kept: Tensor, name: str) -> OfflineData:
        """Some of the episodes, int64 ``[k]`` in ascending order."""
        rows = torch.cat([torch.arange(self.episodes[k].start, self.episodes[k].stop) for k in kept.tolist()])
        return OfflineData(
            self.transitions[rows],
            self.breaks[rows],
            observation_space=self.observation_space,
            action_space=self.action_space,
            task=self.task,
            reference=self.reference,
            reference_source=self.reference_source,
            drawn_action=None if self.drawn_action is None else self.drawn_action[rows],
            cut=self.cut[kept],
            continued=self.continued[kept],
            facts=self.facts,
            name=name,
        )

    @classmethod
    def join(cls, parts: Sequence[OfflineData], *, facts: dict[str, Any] | None = None, name: str = "the data set") -> OfflineData:
        """The episodes of several data sets of one task, one after the other; reference returns are those of the first.

        Args:
            parts: at least one; all with the same spaces.
            facts: what to remember about the whole.
            name: what error messages call it.

        Raises:
            RheostatError: no parts, or parts with other spaces.
        """
        if not parts:
            raise RheostatError("There are no data sets to join.")
        first = parts[0]
        for part in parts[1:]:
            part.require_spaces(first.observation_space, first.action_space, first.name)
        drawn = None
        if any(part.drawn_action is not None for part in parts):
            drawn = torch.cat([part.transitions.action if part.drawn_action is None else part.drawn_action for part in parts])
        return cls(
            cast(Transitions, torch.cat(cast(Any, [part.transitions for part in parts]))),
            torch.cat([part.breaks for part in parts]),
            observation_space=first.observation_space,
            action_space=first.action_space,
            task=first.task,
            reference=first.reference,
            reference_source=first.reference_source,
            drawn_action=drawn,
            cut=torch.cat([part.cut for part in parts]),
            continued=torch.cat([part.continued for part in parts]),
            facts=facts,
            name=name,
        )

    # --- files --------------------------------------------------------------------------------------------------------------------

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        encode: MakeEncoder | None = None,
        unknown_end: Literal["error", "truncate"] = "error",
        outside: Literal["error", "clip"] = "error",
        final_observation: Literal["error", "drop"] = "error",
        split_after_success: bool = False,
    ) -> OfflineData:
        """Read a data set in Minari's format, or a file of D4RL's kind (:mod:`rheostat.buffers.flat_files`).

        Args:
            source: folder of the data set, the id of a local Minari data set (nothing is downloaded), or a .hdf5, .h5 or .npz file.
            encode: how Dict, Tuple and discrete observations and images become one tensor; without it only Boxes of numbers, and images of
                three axes with the channels first, can be read.
            unknown_end: an episode whose last step is neither terminated nor truncated is an error, or counts as cut (truncate).
            outside: continuous actions beyond their bounds are an error, or are clipped.
            final_observation: an episode without the observation after its last step is an error, or loses that step (drop), unless the
                environment ended with it: then nothing is ever read from that observation and the last one stands in for it.
            split_after_success: an episode that continues after the environment ended is split there, and what follows is marked as
                continued; otherwise it is an error.

        Raises:
            RheostatError: not found, damaged, or wrong in a way that a sentence describes.
            MissingExtra: minari is not installed.
        """
        file = Path(source).expanduser()
        flat = file.suffix.lower() in SUFFIXES and file.is_file()
        folder = file if flat else minari_format.find_data(source)
        stored = read_flat(file) if flat else minari_format.read(folder, INFOS)
        result = cls.of_stored(
            stored,
            name=f"the data set {source}",
            encode=encode,
            unknown_end=unknown_end,
            outside=outside,
            final_observation=final_observation,
            split_after_success=split_after_success,
            adopts=flat,
        )
        if (stored.metadata.get(OURS) or {}).get("digest", result.digest) != result.digest:
            raise RheostatError(
                f"{title(result.name)} was changed after it was written: its digest is not that of its metadata; if that was meant, "
                f"remove the entry {OURS}.digest from {folder / minari_format.METADATA}."
            )
        return result

    @classmethod
    def of_stored(
        cls,
        stored: Stored,
        *,
        name: str,
        encode: MakeEncoder | None = None,
        unknown_end: Literal["error", "truncate"] = "error",
        outside: Literal["error", "clip"] = "error",
        final_observation: Literal["error", "drop"] = "error",
        split_after_success: bool = False,
        adopts: bool = False,
    ) -> OfflineData:
        """The content of files, or of arrays that are like one.

        Args:
            stored: arrays of all episodes.
            name: what error messages call it.
            encode, unknown_end, outside, final_observation, split_after_success: as in :meth:`load`.
            adopts: see the class.

        Raises:
            RheostatError: what is wrong, in a sentence.
        """
        ours = stored.metadata.get(OURS) or {}
        stored, observation, following = observed(stored, name, encode, final_observation)
        if split_after_success:
            split_after_ends(stored)
        check_ends(stored, name, unknown_end)
        action, action_space = policy_actions(stored.actions, stored.action_space, name)
        count = len(stored.rewards)
        logp, version, drawn = (stored.infos.get(key) for key in INFOS)
        transitions = Transitions(
            observation=observation[0],
            next_observation=following,
            action=action,
            reward=torch.from_numpy(stored.rewards.astype(np.float32)),
            terminated=torch.from_numpy(stored.terminations),
            truncated=torch.from_numpy(stored.truncations & ~stored.terminations),
            sampler_logp=torch.full((count,), math.nan) if logp is None else torch.from_numpy(logp.astype(np.float32)),
            version=torch.zeros(count, dtype=torch.int64) if version is None else torch.from_numpy(version.astype(np.int64)),
            batch_size=[count],
        )
        breaks = torch.zeros(count, dtype=torch.bool)
        breaks[torch.from_numpy(stored.lengths).cumsum(0) - 1] = True
        reference, said = reference_of(stored.metadata, ours)
        return cls(
            transitions,
            breaks,
            observation_space=observation[1],
            action_space=action_space,
            task=str(ours.get("task") or environment_of(stored.metadata)),
            reference=reference,
            reference_source=said,
            drawn_action=None if drawn is None else torch.from_numpy(drawn),
            cut=None if stored.cut is None else torch.from_numpy(stored.cut),
            continued=None if stored.continued is None else torch.from_numpy(stored.continued),
            facts=ours.get("facts") or foreign_facts_of(stored.metadata),
            name=name,
            outside=outside,
            adopts=adopts,
        )

    def save(self, path: str | Path, *, dataset_id: str | None = None) -> Path:
        """Write the data set in Minari's format to ``path/data``; the same data give the same bytes.

        Put (or name) ``path`` so that it is ``$MINARI_DATASETS_PATH/ID``, and ``minari.load_dataset(ID)`` finds it.

        Args:
            path: folder of the data set; must not hold one.
            dataset_id: Minari id, ``namespace/name-v0``; by default made of the task and the kind of data.

        Raises:
            RheostatError: the place is taken or cannot be written, or the id is not one.
            MissingExtra: minari is not installed.
        """
        dataset_id = dataset_id or self._default_id()
        if not MINARI_ID.fullmatch(dataset_id):
            raise RheostatError(f"{dataset_id!r} is no Minari id: use letters, digits, - and _, as in namespace/name-v0.")
        rows = self.transitions
        following = rows.next_observation[self.breaks]
        pieces = [part for index, episode in enumerate(self.episodes) for part in (rows.observation[episode], following[index : index + 1])]
        infos = {"sampler_logp": rows.sampler_logp, "version": rows.version}
        if self.drawn_action is not None:
            infos["drawn_action"] = self.drawn_action
        ours = {"task": self.task, "digest": self.digest, "reference_source": self.reference_source, "facts": self.facts}
        metadata: dict[str, Any] = {"dataset_id": dataset_id, OURS: ours} | self._environment_metadata()
        if self.behaviour:
            metadata["algorithm_name"] = self.behaviour
        if self.facts.get("description"):
            metadata["description"] = str(self.facts["description"])
        if self.reference is not None:
            metadata |= {"ref_min_score": self.reference[0], "ref_max_score": self.reference[1]}
        stored = Stored(
            observation_space=self.observation_space,
            action_space=self.action_space,
            lengths=self.lengths.numpy(),
            observations=torch.cat(pieces).numpy(),
            observation_rows=self.lengths.numpy() + 1,
            actions=rows.action.numpy(),
            rewards=rows.reward.numpy(),
            terminations=rows.terminated.numpy(),
            truncations=rows.truncated.numpy(),
            infos={key: value.numpy() for key, value in infos.items()},
            cut=self.cut.numpy(),
            continued=self.continued.numpy(),
            metadata=metadata,
        )
        minari_format.write(Path(path) / minari_format.DATA, stored)
        return Path(path)

    def _default_id(self) -> str:
        words = [OURS, self.task.replace(":", "-") or "unknown", str(self.facts.get("kind", "data"))]
        seed = f"-s{self.facts['seed']}" if "seed" in self.facts else ""
        return re.sub(r"[^-\w/]", "-", "/".join(words)) + f"{seed}-v0"

    def _environment_metadata(self) -> dict[str, str]:
        """The specification by which Minari makes the environment again, where Gymnasium knows the task."""
        import gymnasium

        spec = gymnasium.registry.get(self.task.split(":", 1)[-1] if self.task.startswith(("gymnasium:", "envpool:")) else self.task)
        return {} if spec is None else {"env_spec": spec.to_json()}
