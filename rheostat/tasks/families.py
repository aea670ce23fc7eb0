"""The ids of every task there is, by family; remembered, so that listing them is quick."""

from __future__ import annotations

from rheostat import plugins
from rheostat.remembered import remembered


def known_families() -> dict[str, list[str]]:
    """Every task id by family; those that only installed packages add come last."""
    families: dict[str, list[str]] = remembered("tasks", _find)
    if others := [name for name in plugins.added("tasks") if not any(name in ids for ids in families.values())]:
        families["installed packages"] = others
    return families


def _find() -> dict[str, list[str]]:
    from rheostat.tasks.compression.images import IMAGE_TASKS
    from rheostat.tasks.control.registration import known_tasks
    from rheostat.tasks.fleet.city_list import CITIES
    from rheostat.tasks.language import LANGUAGE_TASKS
    from rheostat.tasks.language.reasoning import PREFIX, data_sets
    from rheostat.tasks.language.task_list import ADAPTERS
    from rheostat.tasks.preferences.problem import PROBLEMS

    language = [name for name in LANGUAGE_TASKS if not name.startswith(tuple(ADAPTERS))] + [PREFIX + name for name in data_sets()]
    ours = {"fleets": list(CITIES), "preferences": list(PROBLEMS), "language": language, "images": list(IMAGE_TASKS)}
    return known_tasks() | ours
