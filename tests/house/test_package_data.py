"""What a wheel holds: every file of the library, whether it is code or not."""

from __future__ import annotations

import tomllib
from pathlib import Path

import rheostat

LIBRARY = Path(rheostat.__file__).parent
ROOT = LIBRARY.parent


def test_every_data_file_is_shipped() -> None:
    """A file that is not Python is shipped only where ``package-data`` names it."""
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["rheostat"]
    shipped = {path for pattern in patterns for path in LIBRARY.glob(pattern)}
    found = {path for path in LIBRARY.rglob("*") if path.is_file() and path.suffix != ".py" and "__pycache__" not in path.parts}
    assert LIBRARY / "training" / "version_0_1.json" in found
    assert not {str(path.relative_to(ROOT)) for path in found - shipped}
    assert all(any(LIBRARY.glob(pattern)) for pattern in patterns), "a pattern that matches nothing"


def test_every_folder_of_code_is_a_package() -> None:
    """Setuptools finds packages by their ``__init__.py``: a folder without one would be missing from the wheel."""
    assert not {str(path.parent.relative_to(ROOT)) for path in LIBRARY.rglob("*.py") if not (path.parent / "__init__.py").exists()}


def test_a_stem_names_one_module() -> None:
    """A search for the name of a module gives one file (``__init__`` and ``__main__`` are Python's own names)."""
    seen: dict[str, list[str]] = {}
    for path in LIBRARY.rglob("*.py"):
        seen.setdefault(path.stem, []).append(str(path.relative_to(LIBRARY)))
    assert not {stem: paths for stem, paths in seen.items() if len(paths) > 1 and stem not in ("__init__", "__main__")}
