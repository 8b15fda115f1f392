"""The way into the command line: `sojourn` and `python -m sojourn`."""

from __future__ import annotations

import sys

EXTRA = ("typer", "rich", "click")
"""What `sojourn[cli]` brings."""

USAGE = 2
"""The exit code for a command that can not be run as it was given."""


def main() -> int:
    """Run the command line and return its exit code; without its extra, say how to get it."""
    try:
        from sojourn.cli.program import run
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in EXTRA:
            raise
        sys.stderr.write(
            f'sojourn: the command line needs {error.name}. try: pip install "sojourn[cli]"\n'
        )
        return USAGE
    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
