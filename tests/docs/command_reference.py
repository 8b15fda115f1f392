"""The reference of the command line, made from the program itself."""

from __future__ import annotations

from typing import Any

from sojourn.cli.failures import MEANINGS
from sojourn.cli.program import build


def exit_codes_table() -> str:
    """Return every exit code and what it says."""
    lines = ["| code | means |", "|---|---|"]
    lines += [f"| {code.value} | {said} |" for code, said in MEANINGS.items()]
    return "\n".join(lines)


def options_table() -> str:
    """Return the options that come before the name of a command."""
    return _options(build().params)


def commands() -> str:
    """Return every command: how it is called, what it does, its options."""
    return "\n\n".join(_command(name, command) for name, command in build().commands.items())


def _command(name: str, command: Any) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option"]
    called = " ".join(["sojourn", name, *(_metavar(p) for p in arguments)])
    return f"### {name}\n\n`{called}`\n\n{command.help.strip()}\n\n{_options(options)}"


def _options(params: list[Any]) -> str:
    lines = ["| option | what |", "|---|---|"]
    return "\n".join([*lines, *(_row(param) for param in params)])


def _row(param: Any) -> str:
    value = "" if param.is_flag else f" {_metavar(param)}"
    names = ", ".join(f"`{name}`" for name in (*param.opts, *param.secondary_opts))
    default = "" if param.default in (None, False, True) else f" Default: {param.default}."
    return f"| {names}{value} | {param.help}{default} |".replace("\n", " ")


def _metavar(param: Any) -> str:
    return str(param.metavar or param.name.upper())
