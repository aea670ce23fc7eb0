"""What takes seconds to find out and changes only with the installation, kept in the user's cache folder so that small commands are quick.

The files are JSON, ``remembered/DIGEST/NAME.json``. The digest covers the library's source files, the installed packages and Python itself:
after a change of any of them nothing old is read. Losing the folder costs time and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from rheostat.files import cache_root, write_atomically

PACKAGE = Path(__file__).parent
STATES_KEPT = 8


def remembered(name: str, find: Callable[[], Any]) -> Any:
    """The value of ``find()`` as JSON gives it back: from the cache folder where it was found before, else computed and kept there.

    Args:
        name: of the value, a word that is a file's name; two values have two names.
        find: takes no argument and gives a value that JSON can say; dataclasses and paths are told as text.
    """
    place = cache_root() / "remembered" / installation() / f"{name}.json"
    try:
        return json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        text = json.dumps(find(), default=str)
    try:
        if not place.parent.is_dir():
            place.parent.mkdir(mode=0o700, parents=True)
            _forget_old(place.parent.parent)
        write_atomically(place, text)
    except OSError:
        pass
    return json.loads(text)


def _forget_old(folder: Path) -> None:
    """Keep what the newest few states of installations found."""
    for old in sorted(folder.iterdir(), key=lambda each: each.stat().st_mtime, reverse=True)[STATES_KEPT:]:
        shutil.rmtree(old, ignore_errors=True)


@cache
def installation() -> str:
    """A digest of everything that the remembered values depend on."""
    facts = [sys.version, str(PACKAGE)]
    for folder, _, names in sorted(os.walk(PACKAGE)):
        for name in sorted(names):
            if name.endswith((".py", ".json")):
                found = os.stat(os.path.join(folder, name))
                facts.append(f"{folder}/{name} {found.st_size} {found.st_mtime_ns}")
    for folder in sys.path:
        if folder.endswith("site-packages") and os.path.isdir(folder):
            facts += sorted(each for each in os.listdir(folder) if each.endswith((".dist-info", ".egg-info", ".pth")))
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:24]
