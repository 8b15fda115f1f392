"""The options that commands share, each said once."""

from __future__ import annotations

from typing import Annotated

import typer

Url = Annotated[
    str | None,
    typer.Option("--url", "-u", metavar="URL", help="The store; else SOJOURN_URL or sojourn.toml."),
]
StoreUrl = Annotated[
    str | None,
    typer.Argument(metavar="[URL]", help="The store; else --url.", show_default=False),
]
App = Annotated[
    str | None,
    typer.Option("--app", metavar="NAME", help="Whose sessions; else SOJOURN_APP or sojourn.toml."),
]
Id = Annotated[str, typer.Argument(metavar="ID", help="The id of the session.")]
Json = Annotated[bool, typer.Option("--json", help="Write JSON, with whole values.")]
Wide = Annotated[bool, typer.Option("--wide", "-w", help="Show values whole, however wide.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Hooks = Annotated[
    str | None,
    typer.Option(
        metavar="MODULE:FUNCTION",
        help="Called with the manager, to register the end hooks of the application.",
    ),
]
