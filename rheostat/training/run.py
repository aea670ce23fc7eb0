"""A run: a directory, a method and the one training loop.

    config.json      what defines the run (settings), plus versions and the command
    metrics.jsonl    one row per iteration of the loop, deterministic to the byte
    timings.jsonl    wall-clock seconds of the same rows, in a file of their own because they differ every time
    checkpoints/     atomic, checksummed; the newest two are kept
    best/            the policy of the best evaluation, where the run keeps it
    sandbox.json     sandbox of the graders of a language run
    summary.json     the final evaluation, written when the budget is spent
    lock.json        the process that writes the run now
    offline/         the data set, where it was passed as an object
    curves.png, report.html

Exactness. The checkpoint holds all state of a run, and a resume cuts the metrics file back to where the checkpoint was taken, so that
``train N, kill, resume, train N`` ends bit for bit where ``train 2N`` does. Environments that can save their state (Gymnasium's) are saved.
EnvPool's and those of users are restored by repeating the actions since their episodes began
(:mod:`rheostat.tasks.control.pools`, :mod:`rheostat.tasks.control.recording`). Checkpoints change nothing: curves do not depend on how
often a run is saved, and no episode is cut. Opening a run steps no environment; where a resume cannot restore one, it warns.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, cast

import torch
from safetensors.torch import save_file

from rheostat.buffers.offline import OfflineData
from rheostat.credit.verifiers.timing import seconds_of
from rheostat.errors import Interrupted, RheostatError
from rheostat.files import write_atomically
from rheostat.learner.own_networks import described
from rheostat.learner.running import RunningMethod
from rheostat.learner.starting_weights import StartingWeights
from rheostat.locks import held
from rheostat.methods import table
from rheostat.parts import NonFinite
from rheostat.policies.control.in_context import Memory
from rheostat.training import checkpoint
from rheostat.training.building import build_method, control_context, no_control
from rheostat.training.callbacks import best_in, call, check_measured, listening_ones, standing
from rheostat.training.identity import Identity, changed_settings, changed_sources, identity_of, versions, without_digests
from rheostat.training.logs import METRICS, Counted, Logs, count, count_whole, read_jsonl, read_timings
from rheostat.training.opening import Opened, another_run, growth, larger_settings, open_checkpoint, refuse_without_objects
from rheostat.training.progress import Progress, Silent
from rheostat.training.rollout_files import keep_rollouts
from rheostat.training.run_directory import CONFIG, LOCK, command_line, grow, read_description, refuse_taken, write_description
from rheostat.training.sandboxing import FILE as SANDBOX
from rheostat.training.sandboxing import keep_sandbox
from rheostat.training.settings import CUSTOM, Settings
from rheostat.training.signals import listening
from rheostat.training.sinks import Sink, open_sinks
from rheostat.training.starting_point import StartingPoint, starting_point
from rheostat.training.trust import code_of, remember, require_trust
from rheostat.training.version_0_1 import current_summary
from rheostat.training.warnings import LEAST_UPDATES, SILENT_UPDATES, idle_run, no_signal, warnings_of

DATA = "offline"
"""Folder of a data set that was passed as an object."""


class Run:
    """One training run; make it with :meth:`create` or :meth:`load`.

    Attributes:
        directory: holds all its files.
        settings: what defines the run.
        finished: whether the budget is spent.
    """

    def __init__(
        self, directory: Path, settings: Settings, task: Any = None, policy: Any = None, facts: dict[str, Any] | None = None
    ) -> None:
        self.directory, self.settings = Path(directory), settings
        self.finished = False
        self.warnings: list[str] = []
        without = task is None and facts is not None and settings.task.startswith(CUSTOM)  # open for acting only
        self._task = settings.task if task is None and not without else task
        self._policy = policy
        self._facts = facts
        self._callbacks: list[Any] = []
        self._stopped = ""  # why it ends before its budget is spent
        self._at_best = False  # opened at its best policy
        self._kept_warnings: list[str] = []  # those that belong to the run itself, and are saved with it
        self._data: OfflineData | Path | None = None  # the data set that was passed, or its folder
        if settings.offline is not None and settings.offline.startswith(CUSTOM):
            self._data = self.directory / DATA
        self._method: RunningMethod | None = None
        self._iteration = 0
        self._logs = Logs(self.directory)
        self._log_was: Counted = self._logs.counted  # where the checkpoint that was loaded counted it
        self._files: dict[str, Counted] = {}  # the other files, as they were then
        self._identity: Identity | None = None  # of the run, from its checkpoint
        self._accepts = False  # resumes with differences from that
        self._weights: StartingWeights | None = None  # of another run, while the method is built
        self._began: dict[str, Any] | None = None  # the origin of those weights
        self._next_checkpoint = settings.checkpoint_interval
        self._seconds = 0.0
        self._seen: list[str] = []  # the checkpoints that are there

    # --- making and opening ---------------------------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls, directory: str | Path, settings: Settings, *, task: Any = None, policy: Any = None, data: OfflineData | None = None
    ) -> Self:
        """A new run in a new directory.

        Raises:
            RheostatError: the directory already holds a run, the method, task or configuration is wrong, or the disk is not writable.
        """
        directory = Path(directory)
        refuse_taken(directory)
        run = cls(directory, settings, task, policy)
        run._data = data
        run._begin_with(starting_point(settings))
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RheostatError(f"Cannot write to {directory}: {error}.") from error
        remember(directory, code_of(settings))
        with run.alone():
            refuse_taken(directory)  # by a process that began at the same time
            try:
                run._describe(policy)
                keep_sandbox(directory, run.method)
                if data is not None:
                    data.save(directory / DATA)
                run._files = count_whole(directory)
            except OSError as error:
                raise RheostatError(f"Cannot write to {directory}: {error}.") from error
            run._identity = run._identity_now()
            run.save()
        return run

    def _begin_with(self, point: StartingPoint | None) -> None:
        """Build the method, with another run's weights or without; refuses what is impossible before anything is written.

        Raises:
            RheostatError: compiled kernels were demanded, and there are none.
        """
        self._weights = None if point is None else point.weights
        _ = self.method
        self._weights = None  # they are a part of the run now
        if point is not None:
            self._began = point.facts
            self._kept_warnings.append(point.sentence)
            self.warnings.append(point.sentence)
        compute = self.method.compute
        if compute is not None and compute.why_plain:
            if self.settings.compute == "fast":
                raise RheostatError(f"compute=fast needs compiled kernels, but {compute.why_plain}: choose auto or plain.")
            self._kept_warnings.append(compute.sentence)
            self.warnings.append(compute.sentence)

    def _identity_now(self) -> Identity:
        began = {} if self._began is None else {"began": self._began}
        return identity_of(self.settings, versions(), self.method, self._task) | began

    def _compare_identity(self, progress: Progress) -> None:
        """Continue with the identity that the run began with, or with accepted differences, which are recorded.

        Raises:
            RheostatError: naming what is different.
        """
        if self._identity is None:  # of a version that did not store it
            return
        now = self._identity_now()
        grave, slight = changed_sources(self._identity, now, self.settings.method)
        if grave and not self._accepts:
            raise another_run(self.directory, grave)
        for sentence in grave + slight:
            self._record(sentence)
            progress.note(sentence)
        self._identity = now

    def _record(self, sentence: str) -> None:
        """Record in the run and its report that its identity changed."""
        where = f"From iteration {self._iteration} on: {sentence}"
        if where not in self._kept_warnings:
            self._kept_warnings.append(where)

    def _describe(self, policy: Any) -> None:
        """Write what defines the run."""
        description = {"settings": self.settings.to_json(), "versions": versions(), "command": command_line()}
        if self.environments is not None and self.environments.facts is not None:
            description["environment"] = self.environments.facts.to_json()
        if (network := described(policy)) is not None:
            description["network"] = network
        if self._began is not None:
            description["began"] = self._began
        write_description(self.directory, description)

    @contextmanager
    def alone(self, progress: Progress | None = None) -> Iterator[None]:
        """Inside the context, no other process may write the run.

        Raises:
            RheostatError: one does, or one has continued the run since it was opened here.
        """
        with held(self.directory / LOCK, f"the run in {self.directory}", say=(progress or Silent()).note):
            if checkpoint.names(self.directory / "checkpoints") != self._seen:
                raise RheostatError(f"Another process has continued {self.directory} since it was opened here: open it again.")
            yield

    @classmethod
    def load(
        cls,
        directory: str | Path,
        *,
        task: Any = None,
        policy: Any = None,
        sandbox: str | None = None,
        at: str | None = None,
        to_continue: bool = False,
        larger: Settings | None = None,
        accept_changes: bool = False,
    ) -> Self:
        """Open a run at its newest whole checkpoint; ``warnings`` names damaged ones that were passed over.

        ``at`` names another checkpoint that is kept, or is ``best``: the best policy, for inspection.
        ``sandbox`` replaces the run's own setting, to inspect a run on a machine where that does not hold.
        ``to_continue`` passes over checkpoints whose log was cut or altered, too: what is missing is computed again.
        ``larger`` are the settings with a larger budget (see :meth:`extended`).
        ``accept_changes`` resumes although settings, data, sources or versions have changed, and records that.

        Raises:
            RheostatError: no run there, a damaged configuration, no usable checkpoint, or code that nobody has vouched for
                (:mod:`rheostat.training.trust`).
        """
        directory = Path(directory)
        description = read_description(directory)
        on_file: Settings = description["settings"]
        settings = on_file if larger is None else larger
        if sandbox is not None:
            settings = dataclasses.replace(settings, sandbox=cast(Any, sandbox))
        refuse_without_objects(directory, description, task, policy)
        require_trust(directory, settings, with_task=task is None)
        facts = description.get("environment")
        if at == "best":
            return cls._at_its_best(directory, settings, task, policy, facts)
        run = cls(directory, settings, task, policy, facts)
        run._seen = checkpoint.names(directory / "checkpoints")
        run._accepts, run._began = accept_changes, description.get("began")
        run._go_on_from(open_checkpoint(directory, at, to_continue=to_continue), on_file)
        return run

    def _go_on_from(self, found: Opened, on_file: Settings) -> None:
        """Restore the state of a checkpoint.

        Raises:
            RheostatError: ``config.json`` or the data have changed and that was not accepted, or it does not fit the method.
        """
        self._identity, self.warnings, state = found.identity, found.warnings, found.state
        changes = [] if found.identity is None else changed_settings(found.identity, on_file)
        if changes and not self._accepts:
            raise another_run(self.directory, changes)
        try:
            changes += self._take_state(state["method"])
        except (KeyError, RuntimeError) as error:
            raise RheostatError(f"The checkpoint {found.path} does not fit this version of the method: {error}.") from error
        self._iteration, self._next_checkpoint, self.finished = state["iteration"], state["next_checkpoint"], state["finished"]
        self._kept_warnings, self._stopped = list(state.get("said", [])), state.get("stopped", "")
        self._log_was, self._files = found.log, found.other_files(self.directory)
        for sentence in changes:
            self._record(sentence)
        if changes:
            self._files[CONFIG] = count(self.directory / CONFIG)
            self.warnings += changes

    @classmethod
    def _at_its_best(cls, directory: Path, settings: Settings, task: Any, policy: Any, facts: dict[str, Any] | None) -> Self:
        """The run with the policy that it has kept as the best."""
        best_in(directory)
        if (model := directory / "best" / "model").is_dir():
            settings, policy = dataclasses.replace(settings, model=str(model)), None
        run = cls(directory, settings, task, policy, facts)
        run._at_best = True
        if not model.is_dir():
            run.method.load_acting_state(checkpoint.read(directory / "best" / "policy"))
        return run

    def _take_state(self, state: Any) -> list[str]:
        """Load the method's state; returns the rows of data that differ from those it began with, if that was accepted.

        Raises:
            RheostatError: there are such, and it was not.
        """
        try:
            self.method.load_state_dict(state)
        except RheostatError as error:
            if not self._accepts:
                raise
            self.method.load_state_dict(without_digests(state))
            return [str(error)]
        return []

    @classmethod
    def extended(
        cls,
        directory: str | Path,
        steps: int | None = None,
        *,
        online_steps: int | None = None,
        task: Any = None,
        policy: Any = None,
        accept_changes: bool = False,
    ) -> Self:
        """Open a run, finished or not, with a larger budget, which is stored at once.

        What depends on the budget (annealed step sizes, exploration) is computed for the new one from here on; the run records that.

        Args:
            directory: of the run.
            steps: the new budget in all, in the method's unit; None keeps it.
            online_steps: environment steps in all after the data set, for a run that began with one: a finished one continues online.
            task, policy, accept_changes: as in :meth:`load`.

        Raises:
            RheostatError: no more than was spent, or a kind of steps that the run cannot have more of.
        """
        directory = Path(directory)
        before = cls.settings_in(directory)
        larger = larger_settings(directory, before, steps, online_steps)
        opening: dict[str, Any] = {"to_continue": True, "accept_changes": accept_changes}
        run = cls.load(directory, task=task, policy=policy, larger=larger, **opening)
        spent = run.method.steps
        if larger.budget <= spent:
            run.close()
            raise RheostatError(
                f"{directory} has spent {spent:,} of {before.budget:,} steps: what is given is the new budget in all, so name a larger one."
            )
        run._kept_warnings = [sentence for sentence in run._kept_warnings if sentence != run._stopped] + [growth(before, larger, spent)]
        run.warnings.append(run._kept_warnings[-1])
        run.finished, run._stopped = False, ""
        if run._identity is not None:
            run._identity |= {"settings": run.settings.to_json()}
        with run.alone(Silent()), run._writing():
            grow(directory, run.settings, spent)
            run._files[CONFIG] = count(directory / CONFIG)
            run._logs.go_on(run._log_was)
            run.save()
        return run

    @staticmethod
    def settings_in(directory: str | Path) -> Settings:
        """The settings of the run in a directory.

        Raises:
            RheostatError: there is none, or its configuration is damaged.
        """
        found: Settings = read_description(directory)["settings"]
        return found

    @property
    def method(self) -> RunningMethod:
        """The method, built on first use."""
        if self._method is None:
            torch.set_num_threads(self.settings.threads)
            self._method = build_method(self.settings, self._task, self._policy, self._facts, self._weights, self._data)
            check_measured(self.settings, table.entry(self.settings.method).domain, self._method.context.measures)
        return self._method

    @property
    def environments(self) -> Any:
        """What makes the environments of a control run (:class:`rheostat.training.building.RunEnvironments`); None for language runs."""
        return getattr(self.method.context, "make", None)

    # --- the loop -------------------------------------------------------------------------------------------------------------------

    def train(self, *, progress: Progress | None = None, sinks: tuple[str, ...] = (), callbacks: Iterable[Any] = ()) -> Self:
        """Train until the budget is spent: collect, retain, credit, improve.

        Ctrl-C and SIGTERM save and stop; a second Ctrl-C stops at once.

        Args:
            progress: a display.
            sinks: dashboards that get a copy of the log.
            callbacks: objects whose methods the loop calls (:class:`rheostat.training.callbacks.Callback`).

        Raises:
            RheostatError: the run is finished already or was opened at its best policy, another process writes it, a callback has no known
                method, a number became NaN or infinite, or the disk is full.
            Interrupted: a signal came; the run is saved.
        """
        if self.finished:
            raise RheostatError(f"{self.directory} is finished ({self.settings.budget:,} steps): look at its report, or start a new run.")
        if self._at_best:
            raise RheostatError(f"{self.directory} was opened at its best policy, for looking at: open it without at='best' to go on.")
        self._callbacks = [*standing(self.settings), *listening_ones(callbacks)]
        progress = progress or Silent()
        with self.alone(progress):
            self._train(progress, sinks)
        return self

    def _train(self, progress: Progress, sinks: tuple[str, ...]) -> None:
        self._compare_identity(progress)
        keep_sandbox(self.directory, self.method, self._files.get(SANDBOX))  # never weaker than at its beginning
        outputs: list[Sink] = open_sinks(
            sinks, self.directory, self.settings.to_json(), self.method.steps if self._iteration else None, progress.note
        )
        method, total = self.method, self.settings.budget
        self._wake(progress)
        self._seconds = self._restore_logs()
        (self.directory / "summary.json").unlink(missing_ok=True)  # left by a finished run that is resumed from an earlier checkpoint
        self._files.pop("summary.json", None)
        began = time.monotonic() - self._seconds
        progress.start(method.steps, total, method.unit)
        try:
            with listening() as stop, self._open_logs():

                def tell(found: dict[str, Any]) -> None:
                    metrics = {"iteration": self._iteration, "steps": method.steps, "updates": method.updates} | found
                    with self._writing():
                        self._log(metrics)
                    for sink in outputs:
                        sink.log(method.steps, metrics)
                    progress.update(method.steps, metrics)
                    call(self._callbacks, "on_update", self, metrics)
                    if method.measured:
                        call(self._callbacks, "on_evaluation", self, metrics)

                if not self._iteration and (found := method.begin()):
                    tell(found)
                while method.steps < total and not self._stopped:
                    found = method.turn()
                    self._iteration += 1
                    self._seconds = time.monotonic() - began
                    with self._writing():
                        if kept := self.settings.rollouts_kept:
                            keep_rollouts(self.directory, self._iteration, method.rollouts(kept))
                    if found:  # methods that update with every step log a row only at intervals
                        tell(found)
                        if method.updates == LEAST_UPDATES and found.get("gradient_steps"):
                            for sentence in warnings_of(self.metrics):
                                progress.note(sentence)
                        elif method.updates == SILENT_UPDATES:
                            for sentence in no_signal(self.metrics):
                                progress.note(sentence)
                    if method.ended and method.steps < total:
                        self.stop(method.ended)
                    if method.steps >= self._next_checkpoint and method.steps < total and not self._stopped:
                        while self._next_checkpoint <= method.steps:
                            self._next_checkpoint += self.settings.checkpoint_interval
                        self.save()
                    if stop() and method.steps < total and not self._stopped:
                        self.save()
                        raise Interrupted(self.directory)
        except NonFinite as error:
            raise RheostatError(f"{error}; {self._keep_culprit(error)}") from error
        finally:
            progress.stop()
            for sink in outputs:
                sink.close()
        self._finish(method)

    def _wake(self, progress: Progress) -> None:
        """Restore the environments; where that is impossible, begin new episodes and warn."""
        if self.environments is None or not hasattr(self.environments, "wake"):
            return
        warned, restart = self.environments.wake()
        if restart:
            self.method.restart_episodes()
        for sentence in warned:
            self._kept_warnings.append(sentence)
            self.warnings.append(sentence)
            progress.note(sentence)
            warnings.warn(sentence, stacklevel=3)

    def _finish(self, method: RunningMethod) -> None:
        """Save, evaluate, save again: a failing evaluation loses nothing."""
        if self._stopped and self._stopped not in self._kept_warnings:
            self._kept_warnings.append(self._stopped)
        self.save()
        summary: dict[str, Any] = {"steps": method.steps, "updates": method.updates, "seconds": round(self._seconds, 2)}
        rows = [] if getattr(method.context, "never_acts", False) else self.metrics  # of a run in which nobody acts no episode is missed
        warned = warnings_of(self.metrics) + idle_run(rows, method.steps, method.updates, method.unit) + self._kept_warnings
        kept = {"warnings": warned} if warned else {}
        try:
            if self.settings.evaluation_episodes:
                if hasattr(self.environments, "park"):
                    self.environments.park()  # an evaluation never needs more copies than training did
                summary |= method.evaluate(self.settings.evaluation_episodes)
        except Exception as error:
            error.add_note(
                f"This happened in the final evaluation. Training is complete and saved: evaluate the policy with `rheostat evaluate "
                f"{self.directory}` or rheostat.load({str(self.directory)!r}).evaluate(...)."
            )
            self._write_summary(summary | {"warnings": [*warned, f"The final evaluation failed: {type(error).__name__}: {error}"]})
            raise
        grading = seconds_of(getattr(getattr(method.context, "setup", None), "verifier", None))
        summary |= {f"seconds in reward {name}": round(seconds, 2) for name, seconds in grading.items()}
        summary = {name: value for name, value in summary.items() if not isinstance(value, float) or math.isfinite(value)}
        self._write_summary(summary | kept)

    def _write_summary(self, summary: dict[str, Any]) -> None:
        with self._writing():
            write_atomically(self.directory / "summary.json", json.dumps(summary, indent=2))
            self._files["summary.json"] = count(self.directory / "summary.json")
        self.export()
        self.finished = True
        self.save()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RheostatError(f"Could not write the logs of {self.directory}: {error}; make room and resume the run.") from error

    def _log(self, metrics: dict[str, Any]) -> None:
        """Write a row of metrics and a row of timings. JSON has no NaN: values that are no number (the mean reward of no graded row) are
        left out."""
        self._refuse_nonfinite(metrics)
        told = {name: value for name, value in metrics.items() if not isinstance(value, float) or math.isfinite(value)}
        self._logs.append(told, {"iteration": self._iteration, "steps": metrics["steps"], "seconds": round(self._seconds, 4)})

    def stop(self, why: str) -> None:
        """End the run after this iteration as if its budget were spent; for callbacks.

        Args:
            why: the reason, stored in the run and in its summary.
        """
        self._stopped = f"Stopped at {self.method.steps:,} of {self.settings.budget:,} steps: {why}."

    def keep_best(self, facts: dict[str, Any]) -> Path:
        """Keep the present policy in ``best``: a Hugging Face folder ``model``, or for control ``policy`` with everything it needs to act.

        Args:
            facts: about it, for ``best.json``.

        Raises:
            RheostatError: the disk is full or not writable.
        """
        folder = self.directory / "best"
        with self._writing():
            folder.mkdir(exist_ok=True)
            if self.export(folder / "model") is None:
                checkpoint.write(folder, "policy", self.method.acting_state())
            write_atomically(folder / "best.json", json.dumps(facts, indent=2))
        return folder

    def export(self, path: Path | None = None) -> Path | None:
        """Write a language policy as an ordinary Hugging Face folder, by default ``directory/model``; None for methods without one."""
        save = getattr(getattr(self.method, "policy", None), "save_pretrained", None)
        if save is None:
            return None
        path = self.directory / "model" if path is None else path
        temporary = path.with_name(f".{path.name}.writing")
        shutil.rmtree(temporary, ignore_errors=True)
        save(temporary, **({"adapters_only": True} if self.settings.export == "adapters" else {}))
        shutil.rmtree(path, ignore_errors=True)
        os.replace(temporary, path)
        return path

    def save(self) -> Path:
        """Write a checkpoint of the present state; the log that it counts is flushed to disk before."""
        with self._writing():
            self._logs.sync()
        counted = self._logs.counted
        state = {
            "method": self.method.state_dict(),
            "iteration": self._iteration,
            "metrics_bytes": counted["bytes"],
            "next_checkpoint": self._next_checkpoint,
            "finished": self.finished,
            "said": list(self._kept_warnings),
            "stopped": self._stopped,
        }
        facts = {"files": self._files | {METRICS: counted}, "notes": self._kept_warnings, "identity": self._identity}
        path = checkpoint.write(self.directory / "checkpoints", f"iteration-{self._iteration:09d}", state, facts=facts)
        self._seen = checkpoint.names(self.directory / "checkpoints")
        call(self._callbacks, "on_checkpoint", self, path)
        return path

    def _restore_logs(self) -> float:
        """Cut the log back to where the checkpoint counted it; returns the seconds spent until then.

        Raises:
            RheostatError: the log was cut or altered before that.
        """
        self._logs.go_on(self._log_was)
        before = [row["seconds"] for row in read_timings(self.directory) if row["iteration"] <= self._iteration]
        return float(before[-1]) if before else 0.0

    @contextmanager
    def _open_logs(self) -> Iterator[None]:
        with self._writing():
            self._logs.open()
        try:
            yield
        finally:
            with self._writing():
                self._logs.close()

    def _keep_culprit(self, error: NonFinite) -> str:
        """Store the batch whose loss was not finite; returns the end of the error message, which names the place."""
        path = self.directory / "nonfinite.safetensors"
        save_file({name: value.contiguous() for name, value in error.batch.items() if value is not None}, path)
        return f"the batch that caused it is in {path}, the newest checkpoint is {checkpoint.names(self.directory / 'checkpoints')[-1]}."

    def _refuse_nonfinite(self, metrics: dict[str, Any]) -> None:
        bad = [name for name, value in metrics.items() if isinstance(value, float) and not math.isfinite(value) and "loss" in name]
        if bad:
            raise RheostatError(
                f"{', '.join(bad)} became {metrics[bad[0]]} at step {metrics['steps']:,} of {self.directory}: lower the learning rate "
                f"or look at the rewards; the newest checkpoint is {checkpoint.names(self.directory / 'checkpoints')[-1]}."
            )

    # --- reading --------------------------------------------------------------------------------------------------------------------

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The rows of ``metrics.jsonl``."""
        return read_jsonl(self.directory / METRICS)

    @property
    def timings(self) -> list[dict[str, Any]]:
        """The rows of ``timings.jsonl``."""
        return read_timings(self.directory)

    @property
    def summary(self) -> dict[str, Any]:
        """The final evaluation; empty while the run is not finished."""
        path = self.directory / "summary.json"
        return current_summary(json.loads(path.read_text())) if path.exists() else {}

    def policy(self, observation: Any, memory: Memory | None = None) -> Any:
        """The learned policy's deterministic action for one raw observation, or for a batch of them.

        Args:
            observation: one of the environment (an array, or a dict or tuple of arrays), or several of them with a leading axis N in
                every array.
            memory: for a recurrent policy, the result of :meth:`memory` when the episode (or each of the N) began; this call updates
                it.

        Returns:
            A NumPy action in the environment's own action space (its shape, dtype, bounds and first category), or N of them: pass it to the
            environment unchanged.

        Raises:
            RheostatError: an observation of another shape, a method that does not train a control policy, or a recurrent policy
                without its memory.
        """
        return control_context(self).act(observation, memory)

    def memory(self, episodes: int = 1) -> Memory:
        """The memory of a recurrent policy at the beginning of episodes, for :meth:`policy`.

        Make a new one for every new episode. Of several episodes side by side, ``memory.forget(ended)`` lets those begin anew where
        ``ended`` (bool, one per episode) is True. A policy that learns in context has one for every trial, and is told what came of every
        action with ``memory.observe(reward, ended)``.

        Args:
            episodes: how many run side by side.

        Raises:
            RheostatError: a policy that acts on single observations.
        """
        found: Memory = control_context(self).remember(episodes)
        return found

    def evaluate(self, episodes: int = 20, *, task: Any = None, environment_options: dict[str, Any] | None = None) -> dict[str, Any]:
        """Evaluate the policy on whole episodes with deterministic actions; training does not change.

        Args:
            episodes: how many.
            task: another environment with the same spaces than the one it was trained on, in any form that training takes.
            environment_options: options of that environment.

        Raises:
            RheostatError: spaces that differ, or a run on a Python environment without it.
        """
        if task is None and environment_options is None:
            return self.method.evaluate(episodes)
        if self.environments is None or not hasattr(self.environments, "instead"):
            no_control(self.settings.method)
        with self.environments.instead(task, environment_options):
            return self.method.evaluate(episodes)

    def close(self) -> None:
        """Close environments and free models."""
        if self._method is not None:
            self._method.close()
