"""What a method is made of: GRPO's parts, question by question."""

from __future__ import annotations

from rheostat.learner.learner import Composition
from rheostat.methods.language.grpo import GRPO


def names(parts: list[object]) -> str:
    return ", ".join(type(part).__name__ for part in parts)


def main() -> Composition:
    method = GRPO()  # a frozen dataclass of parts
    found = method.compose()
    print(f"collect   {type(found.collect).__name__}")  # WHO ACTS?
    print(f"retain    {names(found.retain)}")  # WHAT IS KEPT?
    print(f"credit    {names(found.credit)}")  # WHAT IS IT WORTH?
    print(f"improve   {names(found.improve)} of {names(found.terms())}")  # HOW DOES THE POLICY MOVE?
    print(f"models    {', '.join(found.models)}")
    return found


if __name__ == "__main__":
    main()
