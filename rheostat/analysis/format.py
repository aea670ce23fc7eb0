"""Numbers, intervals and effects as people read them: text only."""

from __future__ import annotations

import json
from typing import Any

import numpy as np


def format_number(value: float | None) -> str:
    """Four significant digits, thousands separated, – for unknown values."""
    if value is None or not np.isfinite(value):
        return "–"
    if value == 0 or 1e-4 <= abs(value) < 1e7:
        digits = 4 - 1 - int(np.floor(np.log10(abs(value)))) if value else 0
        return f"{value:,.{max(0, digits)}f}".rstrip("0").rstrip(".") if digits > 0 else f"{value:,.0f}"
    return f"{value:.3g}"


def format_interval(interval: Any) -> str:
    """``[low, high]``, or why there is none."""
    if interval is None:
        return ""
    if not (np.isfinite(interval.low) and np.isfinite(interval.high)):
        return "too few seeds for an interval"
    return f"[{format_number(interval.low)}, {format_number(interval.high)}]"


def format_setting(value: Any) -> str:
    """A setting as JSON would show it, without quotes around text."""
    return value if isinstance(value, str) else json.dumps(value)


def found_text(numbers: dict[str, Any]) -> str:
    """The numbers of a condition on a line: the estimate with its interval first; nested tables are in the result file."""
    numbers = dict(numbers)
    parts = []
    for name in ("ratio", "difference", "estimate"):
        if isinstance(numbers.get(name), int | float):
            low, high = numbers.pop("low", None), numbers.pop("high", None)
            interval = f" [{low:.4g}, {high:.4g}]" if low is not None and high is not None else ""
            label = "" if name == "estimate" else f"{name} "
            parts.append(f"{label}{numbers.pop(name):.4g}{interval}")
            break
    for name, value in numbers.items():
        if value is None or value == [] or isinstance(value, dict) or name == "more_seeds":  # which the old rule asked for
            continue
        words = {"iqm": "IQM", "improvement": "probability of improvement"}.get(name, name.replace("_", " ").replace("p value", "p"))
        parts.append(
            f"{words} {value:.4g}" if isinstance(value, float) else f"{words} {', '.join(value) if isinstance(value, list) else value}"
        )
    return ", ".join(parts)


def effect_text(effect: dict[str, Any] | None) -> str:
    """An effect with its interval."""
    if effect is None:
        return "–"
    interval = "" if effect["low"] is None or effect["high"] is None else f" [{effect['low']:.3g}, {effect['high']:.3g}]"
    what = effect["what"].partition(":")[0]
    return f"{'' if what == 'estimate' else what + ' '}{effect['estimate']:.3g}{interval}"
