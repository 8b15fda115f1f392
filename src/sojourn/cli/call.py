"""One call of a command: which store, which app, and where the results go."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from sojourn.app import open_sessions, store_url
from sojourn.cli import places
from sojourn.cli.failures import ExitCode, Refusal, Unheard
from sojourn.cli.output import Output
from sojourn.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    import typer

    from sojourn.manager import SessionManager


class Given(NamedTuple):
    """What was said before the name of the command; the command's own options come first."""

    url: str | None = None
    app: str | None = None


class Call:
    """What every command is given, in one place.

    The store and the app are the command's own options, else the ones before its name, else those
    of the settings (`SOJOURN_URL`, `SOJOURN_APP`, `sojourn.toml`).
    """

    def __init__(
        self,
        context: typer.Context,
        *,
        url: str | None = None,
        app: str | None = None,
        json: bool = False,
        wide: bool = False,
    ) -> None:
        """Take the options of the command; nothing is opened and nothing is checked yet."""
        given = context.obj if isinstance(context.obj, Given) else Given()
        # An empty one is refused where it is used: somebody's variable was not set.
        self._given = Given(
            given.url if url is None else url,
            given.app if app is None else app,
        )
        self.output = Output(json=json, wide=wide)

    @cached_property
    def settings(self) -> Settings:
        """The settings of this call. Raises `InvalidSetting`.

        Nobody looks at the telemetry of a command, so none is set up.
        """
        given = {name: value for name, value in self._given._asdict().items() if value is not None}
        return load_settings(**given, telemetry=())

    @property
    def app(self) -> str:
        """The app whose sessions are meant."""
        return self.settings.app

    @property
    def named_app(self) -> str | None:
        """The app that was named with this call, `None` if none was: then all may be meant."""
        return None if self._given.app is None else self.settings.app

    @property
    def url(self) -> str:
        """The URL of the store. It may hold a password: do not show it, show `masked`."""
        return store_url(self.settings)

    async def check_there(self, *, version: bool = True) -> None:
        """Raise `Refusal` (exit code 5) if opening the store would make it.

        With `version` also if opening it would change the version of its file, or its schema.
        """
        self.check_kept(version=version)
        await places.check_served(self.url, version=version)

    def check_kept(self, *, version: bool = True) -> None:
        """Raise `Refusal` as `check_there` does, but ask no server."""
        try:
            places.check_there(self.url)
        except Refusal as refusal:
            if self.settings.sources["url"] != "default":
                raise
            raise Refusal(
                ExitCode.USAGE,
                f"no store was named, and {refusal}",
                "--url sqlite:///app.db, or set SOJOURN_URL",
            ) from None
        if version:
            places.check_version(self.url)

    @asynccontextmanager
    async def sessions(
        self, *, make: bool = False, upgrade: bool = False
    ) -> AsyncIterator[SessionManager]:
        """Open a manager on the store of this call.

        Unless `make`, a store that is not there is refused, not made; unless `upgrade`, so is one
        whose file is of an older version: `Refusal`.
        """
        if not make:
            await self.check_there(version=not upgrade)
        async with open_sessions(self.settings) as sessions:
            yield sessions

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run the command's work to its end; Ctrl-C cancels it, and the store is closed first."""
        try:
            asyncio.run(work)
            self.output.flush()
        except BrokenPipeError as error:  # typer would answer this one by itself
            raise Unheard from error
