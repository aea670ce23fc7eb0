"""The harness of the golden runs: ``python -m tests.golden [--write] [--only NAME...] [--list]``.

A case (``cases.py``) is a small run. It is trained once without a break, and once more with two: stopped after a row, it goes on in a new
object, dies in the middle of a turn, and goes on from its checkpoint in a third. ``table.json`` holds for every case

    weights   SHA-256 over all weights by role (``accessor.py``), float bytes
    metrics   SHA-256 over the rows of ``metrics.jsonl`` and the final evaluation, by column
    columns   of every metric eight digits of its own hash, and its last number with six digits
    resumed   the same of the resumed run, whose weights and metrics must be those of the run without a break
    roles     mean and norm of the weights by role, with six digits

Bits depend on the processor and on the builds of PyTorch and NumPy. So the table also holds ``numerics``, a hash over a few canonical
computations and the versions of what computes. Where it is the one of the machine at hand, every hash must be equal. Elsewhere the numbers
of ``roles`` and ``columns`` must agree to a relative 1e-4 (or 1e-5 absolutely, for those that are zero up to rounding); a resumed run must
equal the one without a break bit for bit on every machine.
"""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import json
import math
import os
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from rheostat.api import settings_for
from rheostat.errors import RheostatError
from rheostat.training.identity import versions
from rheostat.training.run import Interrupted, Run
from tests.golden.accessor import weights
from tests.golden.cases import ADDED, CASES, REMOVED, RENAMED, Setting, setting
from tests.golden.inputs import given

TABLE = Path(__file__).with_name("table.json")
RELATIVE, ABSOLUTE = 1e-4, 1e-5
COMPUTING = ("torch", "numpy", "gymnasium", "envpool", "mujoco", "transformers")
"""Packages whose versions belong to the fingerprint."""
Record = dict[str, Any]


# --- digests ----------------------------------------------------------------------------------------------------------------------------


def digest(parts: Iterable[str | bytes]) -> str:
    """SHA-256 of a list of texts or bytes, in order."""
    found = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        found.update(len(data).to_bytes(8, "little") + data)
    return found.hexdigest()


def digest_tensor(tensor: Tensor) -> str:
    """Of dtype, shape and bytes."""
    plain = tensor.detach().cpu().contiguous()
    exact = plain if plain.dtype in (torch.float32, torch.float64) else plain.float()
    return digest([str(plain.dtype), str(tuple(plain.shape)), exact.numpy().tobytes()])


def digest_weights(found: list[tuple[str, Tensor]]) -> str:
    """Of all weights by role; the order of the tensors of a role does not matter."""
    return digest(part for role, each in sorted((role, digest_tensor(tensor)) for role, tensor in found) for part in (role, each))


def columns_of(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Metrics by name, with the place of every number; names as they were before :data:`RENAMED`, without those of :data:`ADDED` and the
    measurement before the first update, which was added too."""
    rows = [row for row in rows if row.get("iteration") != 0]
    old = {after: before for before, after in RENAMED.items()}
    found: dict[str, list[Any]] = {}
    for place, row in enumerate(rows):
        for name, value in row.items():
            if name not in ADDED:
                found.setdefault(old.get(name, name), []).append([place, value])
    return dict(sorted(found.items()))


def rounded(value: float) -> float | str:
    """Six digits; text where JSON has no such number."""
    return float(f"{value:.6g}") if math.isfinite(value) else repr(float(value))


def numerics() -> str:
    """The fingerprint: canonical computations of the kinds and sizes that the cases use, and the versions of what computes."""
    torch.set_num_threads(1)
    draw = torch.Generator().manual_seed(0)
    found: list[Tensor] = []
    for rows, inputs, outputs in ((4, 4, 8), (16, 3, 8), (32, 8, 8), (64, 8, 2), (192, 16, 32), (192, 16, 28)):
        x, w = torch.randn(rows, inputs, generator=draw), torch.randn(outputs, inputs, generator=draw)
        y = torch.nn.functional.linear(x, w)
        found += [y, y.tanh(), y.exp(), y.log_softmax(-1), y.sum(), y.mean(0), y.var(), torch.nn.functional.silu(y), y.t() @ x]
        array = y.numpy()
        found += [torch.from_numpy(np.asarray(value)) for value in (np.tanh(array), np.exp(array), array.sum(0), array.astype(float).sum())]
    batch = torch.randn(2, 16, 8, generator=draw)
    found += [torch.bmm(batch, batch.transpose(1, 2)), torch.nn.functional.scaled_dot_product_attention(batch, batch, batch)]
    parameter = torch.nn.Parameter(torch.randn(101, generator=draw))
    optimizer = torch.optim.Adam([parameter], lr=1e-2, fused=True)
    parameter.square().sum().backward()
    optimizer.step()
    known = versions()
    return digest([digest_tensor(tensor) for tensor in [*found, parameter]] + [known.get(package, "") for package in COMPUTING])


# --- running ----------------------------------------------------------------------------------------------------------------------------


class StopAfter:
    """A progress display that asks the run to stop, as SIGTERM does, after so many rows."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def start(self, done: int, total: int, unit: str) -> None: ...
    def stop(self) -> None: ...
    def note(self, text: str) -> None: ...

    def update(self, done: int, metrics: dict[str, Any]) -> None:
        """Count; at the last one, send the signal to this process."""
        self.rows -= 1
        if self.rows == 0:
            os.kill(os.getpid(), signal.SIGTERM)


def opened(name: str) -> tuple[Setting, dict[str, Any]]:
    """A case, and what :class:`Run` is given besides its settings: a task and a network where they are objects, made anew."""
    case = setting(name)
    own = given({"task": case.task, "policy": case.options.get("policy")})
    return case, {"task": None if isinstance(own["task"], str) else own["task"], "policy": own["policy"]}


def created(directory: Path, name: str) -> Run:
    """The run of a case, untrained."""
    case, own = opened(name)
    options = given({key: value for key, value in case.options.items() if key not in ("policy", "preset")})
    settings = settings_for(case.method, own["task"] or case.task, preset=case.options.get("preset"), **options)
    return Run.create(directory, settings, **own)


class Killed(Exception):
    """The run died."""


def die_in_a_turn(run: Run) -> None:
    """Go on until a model has moved, and die there: the turn is not over, nothing of it is logged, and other models have not moved yet.

    Raises:
        AssertionError: no model moves any more.
    """

    def die(model: str) -> None:
        raise Killed

    run.method.context.finish_update = die
    try:
        run.train()
    except Killed:
        run.close()
        return
    raise AssertionError(f"{run.directory.name}: no model moves after the stop; stop the run earlier.")


def resumed(directory: Path, name: str) -> Run:
    """The same run, stopped after some rows of its log, killed in a turn after that, and trained to its end in a third object."""
    case, run = setting(name), created(directory, name)
    try:
        run.train(progress=StopAfter(case.stop))
    except Interrupted:
        run.close()
        die_in_a_turn(Run.load(directory, **opened(name)[1]))
        return Run.load(directory, **opened(name)[1]).train()
    raise AssertionError(f"{name}: the run was over before its stop; stop it earlier.")


class Numbers(NamedTuple):
    """What a finished run is compared by."""

    weights: str
    columns: dict[str, str]
    roles: dict[str, list[float | str]]
    last: dict[str, float | str]

    @property
    def metrics(self) -> str:
        """Of all columns."""
        return digest(part for name, each in sorted(self.columns.items()) for part in (name, each))


def numbers(run: Run) -> Numbers:
    """Of a finished run; the final evaluation is the last row of its metrics."""
    summary = {f"final/{name}": value for name, value in run.summary.items() if name.split()[0] not in ("seconds", "warnings")}
    columns, found = columns_of([*run.metrics, summary]), weights(run.method)
    roles: dict[str, list[float | str]] = {}
    for role in sorted({role for role, _ in found}):
        flat = torch.cat([tensor.flatten().double() for own, tensor in found if own == role])
        roles[role] = [rounded(flat.mean().item()), rounded(flat.norm().item())]
    return Numbers(
        digest_weights(found),
        {name: digest([json.dumps(values)])[:8] for name, values in columns.items()},
        roles,
        {name: rounded(float(values[-1][1])) for name, values in columns.items()},
    )


def record(name: str) -> Record:
    """Run a case, whole and with a break, and return its row of the table.

    Raises:
        AssertionError: no weight has moved, the run was over before its stop, or a resumed run ended differently.
    """
    with tempfile.TemporaryDirectory(prefix="rheostat-golden-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = created(Path(folder) / "whole", name)
        start = digest_weights(weights(run.method))
        whole = numbers(run.train())
        run.close()
        if whole.weights == start:
            raise AssertionError(f"{name}: no weight has moved, so the case proves nothing.")
        run = resumed(Path(folder) / "halted", name)
        again = numbers(run)
        run.close()
    differing = [column for column in whole.columns.keys() | again.columns.keys() if whole.columns.get(column) != again.columns.get(column)]
    if differing or again.weights != whole.weights:
        where = ["weights"] * (again.weights != whole.weights) + sorted(differing)
        raise AssertionError(f"{name}: stopped and resumed, the run ended differently in {', '.join(where)}.")
    return {
        "weights": whole.weights,
        "metrics": whole.metrics,
        "resumed": digest([again.weights, again.metrics]),
        "roles": whole.roles,
        "columns": {column: [whole.columns[column], whole.last[column]] for column in sorted(whole.columns)},
    }


# --- comparing --------------------------------------------------------------------------------------------------------------------------


def close(found: float | str, expected: float | str) -> bool:
    """Whether two numbers agree as numbers of different machines can."""
    if isinstance(found, str) or isinstance(expected, str):
        return found == expected
    return math.isclose(found, expected, rel_tol=RELATIVE, abs_tol=ABSOLUTE)


def differences(found: Record, expected: Record, *, exact: bool) -> list[str]:
    """What is not as the table says, as words.

    Args:
        found, expected: rows of the table.
        exact: whether hashes must be equal; else rounded numbers must be close.
    """
    said = []
    columns = {name: value for name, value in expected["columns"].items() if name not in REMOVED}
    if missing := sorted(columns.keys() - found["columns"].keys()):
        said.append(f"metrics are gone: {', '.join(missing)}")
    if new := sorted(found["columns"].keys() - expected["columns"].keys()):
        said.append(f"metrics are new: {', '.join(new)}")
    if roles := sorted(expected["roles"].keys() ^ found["roles"].keys()):
        said.append(f"roles are gone or new: {', '.join(roles)}")
    for name in sorted(columns.keys() & found["columns"].keys()):
        (mine, value), (theirs, was) = found["columns"][name], columns[name]
        if mine != theirs if exact else not close(value, was):
            said.append(f"{name} differs (at the end {value}, in the table {was})")
    for role in sorted(expected["roles"].keys() & found["roles"].keys()):
        mine, theirs = found["roles"][role], expected["roles"][role]
        if not all(map(close, mine, theirs)):
            said.append(f"weights of {role} differ: mean and norm {mine}, in the table {theirs}")
    if exact and found["weights"] != expected["weights"]:
        said.append("the hash of the weights differs")
    if exact and not REMOVED:
        said += [f"the hash of {name} differs" for name in ("metrics", "resumed") if found[name] != expected[name]]
    return said


def read() -> dict[str, Any]:
    """The table."""
    return json.loads(TABLE.read_text()) if TABLE.exists() else {"numerics": "", "cases": {}}


def check(name: str) -> list[str]:
    """Run a case and compare it with the table; what differs, as words."""
    table = read()
    if name not in table["cases"]:
        return ["the table has no such case: write it with --write"]
    return differences(record(name), table["cases"][name], exact=table["numerics"] == numerics())


def write(records: dict[str, Record]) -> None:
    """Put rows into the table, drop those of cases that are gone, and note what computed.

    Raises:
        SystemExit: some rows would come from another kind of machine than the others.
    """
    table, known = read(), versions()
    kept = {name: row for name, row in table["cases"].items() if name in CASES and name not in records}
    if kept and table["numerics"] != numerics():
        raise SystemExit("The table was written with other numerics: write all cases together.")
    computing = {package: known[package] for package in COMPUTING if package in known}
    cases = dict(sorted((kept | records).items()))
    rows = ",\n".join(f"{json.dumps(name)}: {json.dumps(row, separators=(',', ':'))}" for name, row in cases.items())
    head = json.dumps({"numerics": numerics(), "versions": computing})
    TABLE.write_text(f'{head[:-1]},\n"cases": {{\n{rows}\n}}}}\n')


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.golden", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--write", action="store_true", help="put the numbers into the table instead of comparing them")
    parser.add_argument("--only", nargs="+", metavar="NAME", default=["*"], help="cases, or patterns such as 'grpo/*'")
    parser.add_argument("--list", action="store_true", help="print the cases and stop")
    words = parser.parse_args()
    names = [name for name in CASES if any(fnmatch.fnmatchcase(name, pattern) for pattern in words.only)]
    if not names:
        raise SystemExit(f"No case is called {' or '.join(words.only)}: --list shows them all.")
    if words.list:
        print("\n".join(f"{name}  (slow)" if setting(name).slow else name for name in names))
        return
    if not words.write and read()["numerics"] != numerics():
        print("The table comes from other numerics: rounded numbers are compared, not hashes.")
    records, failed, began = {}, 0, time.process_time()
    for name in names:
        since = time.process_time()
        try:
            if words.write:
                records[name] = record(name)
                said = []
            else:
                said = check(name)
        except (AssertionError, RheostatError) as error:
            said = [str(error)]
        failed += bool(said)
        print(f"{name:36} {time.process_time() - since:5.2f} s  {'; '.join(said) or 'ok'}", flush=True)
    print(f"{len(names)} cases, {failed} differ or fail, {time.process_time() - began:.0f} s")
    if words.write:
        write(records)
    sys.exit(failed > 0)
