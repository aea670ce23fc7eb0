"""Studies on other models and other machines: ``rheostat study NAME --model PATH --scale gpu``.

As declared, a study of language models trains a tiny base that takes seconds. The same arms, conditions, margins and preconditions can be
run on any model, and at a named scale that a study declares: usually that of its paper. It is then a study of its own, with its own pilot,
declaration, looks and folder; its result stays beside its cells, because what the repository shows is the study as it is declared.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

from rheostat.errors import RheostatError, unknown

if TYPE_CHECKING:
    from rheostat.experiments.studies.study import Scale, Study


def adapted(study: Study, *, scale: str | None = None, model: str | None = None, smoke: bool = False) -> Study:
    """A study on another model, at another scale, or both.

    Args:
        study: as it is declared.
        scale: a name among those that it declares.
        model: a Hugging Face folder, hub name or base-model recipe.
        smoke: whether only the tiny form is to be run, which needs no GPU.

    Raises:
        RheostatError: a scale that is not declared, or needs a GPU where there is none; a model for a study that trains none.
    """
    if scale is not None:
        study = _at(study, scale, smoke)
    if model is None:
        return study
    if "model" not in {item.name for item in dataclasses.fields(study.full)}:
        raise RheostatError(f"The study {study.slug} trains no language model, so --model has nothing to replace.")
    return dataclasses.replace(
        study,
        slug=f"{study.slug}-{_name_of(model)}",
        system=f"{study.system} on {model}",
        full=dataclasses.replace(study.full, model=model),
        smoke=dataclasses.replace(study.smoke, model=model),
        search=None,
    )


def _at(study: Study, name: str, smoke: bool) -> Study:
    if not study.scales:
        raise RheostatError(f"The study {study.slug} declares no other scale: leave --scale out.")
    if name not in study.scales:
        raise unknown("scale", name, study.scales)
    chosen: Scale = study.scales[name]
    if not smoke and chosen.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise RheostatError(
                f"The scale {name} of the study {study.slug} trains on a GPU ({chosen.source}), and there is none here: leave --scale out, "
                "or try its arms in seconds with --smoke."
            )
    return dataclasses.replace(
        study,
        slug=f"{study.slug}-{name}",
        system=f"{study.system}, scale {name}",
        full=chosen.sizes,
        smoke=chosen.smoke,
        search=None,
        scales={},
    )


def _name_of(model: str) -> str:
    """A model's name as part of a study's: the end of its path, and a few digits of all of it."""
    plain = re.sub(r"[^A-Za-z0-9.]+", "-", Path(model).name).strip("-.")[:40]
    return f"{plain}-{hashlib.sha256(model.encode()).hexdigest()[:6]}"
