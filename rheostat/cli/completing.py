"""What a shell completes: ``python -m rheostat.cli.completing WORD ...`` prints what may stand in the place of the last word.

The words are those after ``rheostat``. Nothing printed means that the shell offers files. What takes long is remembered, so that a key
press takes as long as starting Python.
"""

from __future__ import annotations

import sys
from itertools import takewhile

from rheostat.files import runs_folder
from rheostat.methods import table
from rheostat.plugins import added
from rheostat.remembered import remembered
from rheostat.tasks.families import known_families

METHOD, TASK, RUN = "method", "task", "run"
PLACES: dict[str, tuple[str, ...]] = {
    "train": (METHOD, TASK),
    "show": (METHOD,),
    "config": (METHOD, TASK),
    "sweep": (METHOD, TASK),
    "tune": (METHOD, TASK),
    "resume": (RUN,),
    "watch": (RUN,),
    "evaluate": (RUN,),
    "export": (RUN,),
    "rollouts": (RUN,),
    "ope": (RUN,),
}
"""What the words of a command that are no flags name, in order."""
MANY: dict[str, str] = {"compare": METHOD, "report": RUN, "boundary": RUN, "disagree": METHOD, "microscope": METHOD}
"""Commands that take any number of them."""
FLAG_VALUES = {"--task": TASK, "--from-run": RUN, "--experts": RUN}
"""What flags are followed by, where their choices do not say it."""


def candidates(words: list[str]) -> list[str]:
    """What may stand in the place of the last word.

    Args:
        words: those after ``rheostat``; the last is the one that is being typed, and may be empty.
    """
    *before, last = words or [""]
    return sorted(each for each in _offered(before, last) if each.startswith(last))


def _offered(before: list[str], last: str) -> list[str]:
    commands = remembered("commands", _commands)
    if not before:
        return [*commands, "--help", "--version"]
    command, given = before[0], before[1:]
    if command not in commands:
        return []
    flags = _flags(command, given)
    if last.startswith("-"):
        return [*flags, "--help"]
    flag = next((word for word in reversed(given) if word.startswith("-")), None)
    places = list(takewhile(lambda word: not word.startswith("-"), given))
    if flag is not None and (given[-1] == flag or flag in FLAG_VALUES):
        return flags.get(flag) or named(FLAG_VALUES.get(flag))
    if flag is None and len(places) < len(PLACES.get(command, ())):
        return named(PLACES[command][len(places)], domain_of(places))
    choices = flags.get("") if flag is None and not places else None
    return choices or named(MANY.get(command))


def _flags(command: str, given: list[str]) -> dict[str, list[str]]:
    """The flags of a command and the choices that may follow each; the choices of its first word under the empty name."""
    if command != "train":
        found: dict[str, list[str]] = remembered(f"flags-{command}", lambda: _flags_of(command))
        return found
    if not given or given[0] not in table.METHODS:
        return {}
    return dict(remembered(f"flags-train-{given[0]}", lambda: _flags_of(command, given[0])))


def _flags_of(command: str, method: str = "") -> dict[str, list[str]]:
    """The same, asked of the command's own parser."""
    import tyro

    from rheostat.cli.entry import COMMANDS
    from rheostat.cli.train import Start, train_command

    parser = tyro.extras.get_parser(train_command(Start(method)) if command == "train" else COMMANDS[command])
    found: dict[str, list[str]] = {}
    for action in parser._actions:
        choices = [str(each) for each in action.choices or ()]
        for name in action.option_strings or ["" if choices and "" not in found else None]:
            if name is not None and name not in ("-h", "--help"):
                found[name] = choices
    return found


def _commands() -> list[str]:
    from rheostat.cli.entry import COMMANDS

    return list(COMMANDS)


def named(kind: str | None, domain: str = "") -> list[str]:
    """Methods, tasks (of a domain, where one is named), or runs and what holds several of them."""
    if kind == METHOD:
        return [*table.METHODS, *added("methods")]
    if kind == TASK:
        families = known_families()
        of = {"language": "language", "images": "compression"}
        return [each for family, ids in families.items() for each in ids if domain in ("", of.get(family, "control"))]
    if kind == RUN:
        return [str(each) for each in sorted(runs_folder().glob("*/"))]
    return []


def domain_of(words: list[str]) -> str:
    """The domain of the method that the first word names; empty where there is none."""
    return table.METHODS[words[0]].domain if words and words[0] in table.METHODS else ""


SCRIPTS = {
    "bash": """_rheostat() {{
    local IFS=$'\\n'
    COMPREPLY=($({python} -m rheostat.cli.completing "${{COMP_WORDS[@]:1:COMP_CWORD}}" 2>/dev/null))
}}
complete -o default -o bashdefault -F _rheostat rheostat
""",
    "zsh": """_rheostat() {{
    local -a found
    found=("${{(@f)$({python} -m rheostat.cli.completing "${{(@)words[2,CURRENT]}}" 2>/dev/null)}}")
    if [[ -n $found ]]; then compadd -a found; else _files; fi
}}
(( $+functions[compdef] )) || {{ autoload -Uz compinit && compinit }}
compdef _rheostat rheostat
""",
}


def script(shell: str) -> str:
    """What a shell is told to run when the tabulator key is pressed.

    Args:
        shell: ``bash`` or ``zsh``.
    """
    import shlex

    return SCRIPTS[shell].format(python=shlex.quote(sys.executable))


def main(words: list[str] | None = None) -> None:
    """Print the candidates, one a line."""
    print("\n".join(candidates(sys.argv[1:] if words is None else words)))


if __name__ == "__main__":
    main()
