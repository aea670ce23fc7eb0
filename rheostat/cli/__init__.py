"""The command line: one module per group of commands, ``entry`` puts them together."""

from __future__ import annotations


def main() -> None:
    """The ``rheostat`` command."""
    from rheostat.cli.entry import main as run

    run()
