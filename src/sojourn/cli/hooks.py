"""The end hooks of an application, registered with the manager of a command."""

from __future__ import annotations

import importlib
import inspect
import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Any, TextIO

from sojourn.cli.failures import ExitCode, Refusal

if TYPE_CHECKING:
    from sojourn.manager import SessionManager

FORM = "--hooks MODULE:FUNCTION, a function that takes the manager"


def printing_aside() -> redirect_stdout[TextIO]:
    """Have what hooks print go to stderr while this is entered: stdout is for results alone.

    The output of a call that was made before writes where it did.
    """
    return redirect_stdout(sys.stderr)


async def register_hooks(sessions: SessionManager, named: str | None) -> None:
    """Call the function named `MODULE:FUNCTION` with the manager; it may be a coroutine function.

    The module is looked for in the current folder first. Raises `Refusal` when there is none,
    or it does not take the manager.
    """
    if named is None:
        return
    made = _function(named)(sessions)
    if inspect.isawaitable(made):
        await made


def _check_takes_one(function: Any, named: str) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some that are written in C have none; calling it will tell
        return
    try:
        signature.bind(None)
    except TypeError as error:
        reason = f"--hooks: {named!r} can not be called with the manager: {error}"
        raise Refusal(ExitCode.USAGE, reason, FORM) from None


def _function(named: str) -> Any:
    module, colon, name = named.partition(":")
    if not (module and colon and name):
        raise Refusal(ExitCode.USAGE, f"--hooks: {named!r} does not name a function", FORM)
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise Refusal(ExitCode.USAGE, f"--hooks: {error}", FORM) from error
    if not callable(found):
        raise Refusal(ExitCode.USAGE, f"--hooks: {named!r} can not be called", FORM)
    _check_takes_one(found, named)
    return found
