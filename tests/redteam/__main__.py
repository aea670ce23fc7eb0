"""Print what gets out, attack by attack and level by level."""

from __future__ import annotations

import os
import sys
import time

from rheostat.credit.verifiers.sandbox.levels import LEVELS
from rheostat.errors import RheostatError
from rheostat.terminal import print_table
from tests.redteam.attacks import ATTACKS
from tests.redteam.target_range import at, outside


def main(arguments: list[str]) -> None:
    """``python -m tests.redteam [LEVEL ...] [only=TEXT]``."""
    only = next((argument.removeprefix("only=") for argument in arguments if argument.startswith("only=")), "")
    levels = [argument for argument in arguments if not argument.startswith("only=")] or list(LEVELS)
    attacks = [attack for attack in ATTACKS if only in attack.name or only in attack.kind]
    results: dict[str, dict[str, list[str]]] = {}
    for level in levels:
        began = time.monotonic()
        try:
            with at(level) as ground:
                results[level] = {attack.kind + attack.name: ground.fire(attack) for attack in attacks}
        except RheostatError as error:
            print(f"{level}: not here ({error})")
            continue
        print(f"{level}: {time.monotonic() - began:.1f} s", file=sys.stderr)
    cells = [
        (attack.kind, attack.name, *(", ".join(found[attack.kind + attack.name]) or "-" for found in results.values()))
        for attack in attacks
    ]
    print_table("Red team", ["kind", "attack", *results], cells)
    for level, found in results.items():
        out = sum(bool(outside(effects)) for effects in found.values())
        own = sum("own reward forged" in effects for effects in found.values())
        print(f"{level}: {out} of {len(attacks)} attacks had an effect outside; {own} forged their own reward")


if __name__ == "__main__":
    os.environ.setdefault("COLUMNS", "200")
    main(sys.argv[1:])
