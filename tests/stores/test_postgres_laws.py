"""The PostgreSQL store keeps every law."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from tests.servers.postgres import emptied

from sojourn import open_store
from sojourn.store import SupportsBackup
from sojourn.testing.plugin import StoreLaws

if TYPE_CHECKING:
    from pathlib import Path

    from tests.servers.postgres import PostgresServer

    from sojourn.store import Store


class TestPostgresStore(StoreLaws):
    """One test for each law, in one schema, emptied before each."""

    without = (SupportsBackup,)
    server: PostgresServer

    @pytest.fixture(autouse=True)
    def _server(self, postgres: PostgresServer) -> None:
        type(self).server = postgres
        asyncio.run(emptied(self.url))

    @property
    def url(self) -> str:
        return self.server.url(schema="laws")

    def make_store(self, folder: Path) -> Store:  # noqa: ARG002 - it is in no folder
        return open_store(self.url)

    def reopen_store(self, folder: Path) -> Store:
        return self.make_store(folder)
