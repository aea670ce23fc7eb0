"""verl's form: one completion at a time. ``score`` is the reward, the other entries are logged as its parts."""

from typing import Any


def compute_score(data_source: str, solution_str: str, ground_truth: str, extra_info: Any = None) -> dict[str, float]:
    right = float(solution_str.rpartition("#")[2] == ground_truth)
    return {"score": right, "worked_out": float(";" in solution_str)}
