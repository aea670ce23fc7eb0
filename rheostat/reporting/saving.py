"""Results as files in a folder: numbers, pictures, pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from rheostat.diagnostics.disagreement.disagreement_result import Disagreement
from rheostat.diagnostics.microscope.microscope_result import MicroscopeResult
from rheostat.errors import RheostatError
from rheostat.json_text import dumps


def save(result: Any, directory: str | Path) -> list[Path]:
    """Keep a result: ``microscope.json`` with its picture, or ``disagree.json`` with picture, page and every token's numbers.

    Args:
        result: of the microscope, or a disagreement (comparisons and sweeps are stored where they ran).
        directory: the folder, made if need be.

    Returns:
        The files.

    Raises:
        RheostatError: a result of another kind, or a place that cannot be written.
    """
    folder = Path(directory)
    if isinstance(result, MicroscopeResult):
        return _save_microscope(result, folder)
    if isinstance(result, Disagreement):
        return _save_disagreement(result, folder)
    raise RheostatError(f"A {type(result).__name__} cannot be saved here: give a microscope's look or a disagreement.")


def _save_microscope(result: MicroscopeResult, folder: Path) -> list[Path]:
    from rheostat.reporting.microscope_figures import draw

    path = folder / "microscope.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(dumps(result.to_json(), indent=2))
    except OSError as error:
        raise RheostatError(f"Could not write to {folder}: {error}.") from error
    return [path, *draw(result, folder / "microscope")]


def _save_disagreement(found: Disagreement, folder: Path) -> list[Path]:
    from rheostat.reporting.disagreement_figures import draw
    from rheostat.reporting.disagreement_page import section
    from rheostat.reporting.report import write_report

    numbers, tokens = folder / "disagree.json", folder / "tokens.safetensors"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        numbers.write_text(dumps(found.to_json(), indent=2))
        save_file({name: value.contiguous() for name, value in found.tensors.items()}, tokens)
    except OSError as error:
        raise RheostatError(f"Could not write to {folder}: {error}.") from error
    pictures = draw(found, folder / "disagree")
    title = f"Same data, different method: {Path(found.facts['run']).name}"
    page = write_report([found.facts["run"]], folder / "disagree.html", sections=[section(found)], title=title)
    return [numbers, tokens, *pictures, page]
