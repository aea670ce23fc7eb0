"""Where the studies lie, found without loading one of them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import rheostat
from rheostat.errors import RheostatError

FOLDER, RESULTS = "studies", "results"


def studies_folder() -> Path:
    """The folder ``studies`` of the working directory, else that of the repository this package is installed from.

    Raises:
        RheostatError: there is neither.
    """
    for place in (Path.cwd(), Path(rheostat.__file__).resolve().parent.parent):
        if any(path.stem[0] != "_" for path in (place / FOLDER).glob("*.py")):
            return place / FOLDER
    raise RheostatError("There is no folder 'studies' here: run this in a checkout of Rheostat, or in a folder with studies of your own.")


def state_of_studies() -> str:
    """A digest that changes with any file of the studies, their results and the tables that results are carried over by.

    Raises:
        RheostatError: there is no folder of studies.
    """
    folder = studies_folder()
    files = sorted(path for pattern in ("*.py", f"{RESULTS}/**/*.json") for path in folder.glob(pattern))
    facts = [f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files]
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]
