"""The program: its commands, what stands before their names, and how it ends.

A module with commands has a function `register(program)` that adds them; `COMMANDS` lists those
modules, in the order of the help.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import signal
import sys
import traceback
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO, cast

import typer
from typer import rich_utils

from sojourn.cli import (
    changing,
    conforming,
    examining,
    looking,
    measuring,
    tailing,
    transferring,
)
from sojourn.cli.call import Given
from sojourn.cli.escaping import printable
from sojourn.cli.failures import ExitCode, Unheard, answer, told
from sojourn.cli.options import App, Url
from sojourn.cli.output import sensible_width
from sojourn.cli.streams import Remarks, drop_the_rest
from sojourn.errors import StorageFull

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

COMMANDS = (looking, tailing, changing, transferring, examining, conforming, measuring)
"""The modules whose `register` adds commands."""

FULL = (errno.ENOSPC, errno.EDQUOT)
"""What the system says where nothing more can be written."""

UsageError: Any = typer.BadParameter.__bases__[0]
"""What typer raises for arguments that it does not understand; it has no public name there."""


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it with the option's value
    if wanted:
        from sojourn.cli.findings import our_version

        sys.stdout.write(f"sojourn {our_version()}\n")
        raise typer.Exit


def before(
    context: typer.Context,
    *,
    url: Url = None,
    app: App = None,
    debug: Annotated[  # noqa: ARG001 - taken out of the arguments before; here for the help
        bool, typer.Option("--debug", help="Show where an error comes from.")
    ] = False,
    version: Annotated[  # noqa: ARG001 - its callback does it
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Look after sessions in any store."""
    context.obj = Given(url=url, app=app)


@cache
def build() -> Any:
    """Return the program with all its commands, to be called with arguments."""
    # It would colour a pipe for any value of PY_COLORS, "0" too, and wherever GitHub runs it.
    rich_utils.FORCE_TERMINAL = True if os.environ.get("FORCE_COLOR") else None
    rich_utils.MAX_WIDTH = rich_utils.MAX_WIDTH or sensible_width()
    program = typer.Typer(
        name="sojourn",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["--help", "-h"]},
    )
    program.callback()(before)
    for module in COMMANDS:
        module.register(program)
    return typer.main.get_command(program)


def run(arguments: Sequence[str]) -> int:
    """Run a command and return its exit code; whatever goes wrong is one line on stderr."""
    debug, arguments = _without_debug(arguments)
    with _prepared():
        if sys.stdout is None:
            say("there is nowhere to write to: stdout is closed", "the same with > /dev/null")
            return ExitCode.USAGE
        return _run(arguments, debug=debug)


def _run(arguments: Sequence[str], *, debug: bool) -> int:
    try:
        code = build().main(list(arguments), prog_name="sojourn", standalone_mode=False)
        sys.stdout.flush()
    except (BrokenPipeError, Unheard):
        return _unheard()
    except SystemExit as ended:  # typer and rich answer a broken pipe by themselves, with 1
        if ended.code != ExitCode.FAILED or not isinstance(ended.__context__, BrokenPipeError):
            raise
        return _unheard()
    except (KeyboardInterrupt, typer.Abort):
        return ExitCode.INTERRUPTED
    except UsageError as error:
        return _misused(error)
    except Exception as error:  # noqa: BLE001 - a traceback is for --debug, whatever it was
        if debug:
            traceback.print_exc()
        return _failed(error)
    return code if isinstance(code, int) else ExitCode.OK


def _without_debug(arguments: Sequence[str]) -> tuple[bool, list[str]]:
    """Take `--debug` out, wherever among the options it stands."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options = [argument for argument in arguments[:end] if argument != "--debug"]
    return len(options) < end, [*options, *arguments[end:]]


@contextmanager
def _prepared() -> Iterator[None]:
    """Have letters that a stream does not know escaped, logs shown, and SIGTERM end in order."""
    with _streams():
        before = signal.signal(signal.SIGTERM, _terminate)
        log, lines = logging.getLogger("sojourn"), _Lines(logging.WARNING)
        log.addHandler(lines)
        try:
            yield
        finally:
            log.removeHandler(lines)
            signal.signal(signal.SIGTERM, before)


@contextmanager
def _streams() -> Iterator[None]:
    """Keep the streams what they are, whatever typer puts in their place when a pipe breaks.

    Where stderr is closed, or can not be written to, remarks go nowhere.
    """
    before = sys.stdout, sys.stderr
    try:
        for stream in before:
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        if sys.stderr is not None:
            sys.stderr = cast("TextIO", Remarks(sys.stderr))
            yield
            return
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
            sys.stderr = nowhere
            yield
    finally:
        sys.stdout, sys.stderr = before


class _Lines(logging.Handler):
    """What the library logs, as lines like all others on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        cause = record.exc_info[1] if record.exc_info else None
        reason = f": {told(cause)}" if isinstance(cause, Exception) else ""
        sys.stderr.write(f"sojourn: {printable(record.getMessage() + reason)}\n")


def _terminate(_number: int, _frame: object) -> None:
    raise SystemExit(ExitCode.TERMINATED)


def _failed(error: Exception) -> ExitCode:
    if isinstance(error, OSError) and error.errno in FULL:  # stores say of themselves what it was
        error = StorageFull(error.filename or "<stdout>", error.strerror or str(error))
        drop_the_rest(sys.stdout)
    code, step = answer(error)
    say(told(error), step)
    return code


def _misused(error: Any) -> ExitCode:
    """Say what typer did not understand; its own hint is the help of the command."""
    path = error.ctx.command_path if error.ctx is not None else "sojourn"
    reason = error.format_message()
    if reason:  # else the help was shown for a call without arguments
        say(reason, f"{path} --help")
    return ExitCode.USAGE


def _unheard() -> ExitCode:
    drop_the_rest(sys.stdout)
    return ExitCode.UNHEARD


def say(reason: str, step: str) -> None:
    """Write one line to stderr: what is wrong, and what to try."""
    text = printable(reason.rstrip(".").replace("\n", " "))
    sys.stderr.write(f"sojourn: {text}. try: {printable(step)}\n")
