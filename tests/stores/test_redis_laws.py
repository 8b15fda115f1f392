"""The Redis store keeps every law, on one server and on a cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.servers.redis import Cluster, Servers

from sojourn.store import SupportsBackup
from sojourn.stores import open_store
from sojourn.testing.plugin import StoreLaws

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sojourn.store import Store

pytestmark = pytest.mark.xdist_group("redis")


class RedisLaws(StoreLaws):
    """One test for each law; each test has a prefix of its own on shared servers."""

    without = (SupportsBackup,)
    url = ""

    def make_store(self, folder: Path) -> Store:
        return open_store(f"{self.url}&prefix={folder.name}")

    reopen_store = make_store


class TestRedisStore(RedisLaws):
    """On one server that syncs every write."""

    @pytest.fixture(scope="class", autouse=True)
    @staticmethod
    def server(request: pytest.FixtureRequest) -> Iterator[None]:
        servers = Servers()
        try:
            durable = ("--appendonly", "yes", "--appendfsync", "always")
            request.cls.url = f"{servers.add(*durable).url}?timeout=30"
            yield
        finally:
            servers.stop()


class TestRedisClusterStore(RedisLaws):
    """On three masters, each with a replica that confirms every write."""

    @pytest.fixture(scope="class", autouse=True)
    @staticmethod
    def cluster(request: pytest.FixtureRequest) -> Iterator[None]:
        cluster = Cluster(node_timeout=15_000)  # a busy machine is no lost master
        try:
            request.cls.url = f"{cluster.url}?replicas=1&timeout=30"
            yield
        finally:
            cluster.stop()
