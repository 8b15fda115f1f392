"""The settings of the SQLite connections: what is asked for is in force."""

from __future__ import annotations

from typing import TYPE_CHECKING

import apsw
import pytest

from sojourn.stores.sqlite import connection

if TYPE_CHECKING:
    from pathlib import Path


def test_the_writing_connection_has_every_setting(tmp_path: Path) -> None:
    """Every setting of the writing connection is in force, those behind one that answers too."""
    db = connection.connect(str(tmp_path / "s.db"), vfs=None, writer=True)
    connection.make_durable(db)
    assert db.pragma("journal_mode") == "wal"
    assert db.pragma("synchronous") == 2
    assert db.pragma("wal_autocheckpoint") == 0
    assert db.pragma("journal_size_limit") == connection.LOG_BYTES
    assert db.pragma("cache_size") == -connection.CACHE_KIB
    assert db.pragma("trusted_schema") == 0
    assert db.pragma("cell_size_check") == 1
    assert db.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, -1) == 1
    db.close()


@pytest.mark.parametrize("long", [False, True])
def test_a_reading_connection_has_every_setting(tmp_path: Path, long: bool) -> None:
    """Every setting of a reading connection is in force, those behind one that answers too."""
    path = str(tmp_path / "s.db")
    writer = connection.connect(path, vfs=None, writer=True)
    connection.make_durable(writer)
    writer.execute("CREATE TABLE t(x)")
    db = connection.connect(path, vfs=None, writer=False, long=long)
    assert db.pragma("query_only") == 1
    assert db.pragma("wal_autocheckpoint") == 0
    assert db.pragma("mmap_size") == (connection.MAPPED_BYTES if long else 0)
    assert db.pragma("trusted_schema") == 0
    assert db.pragma("cell_size_check") == 1
    assert db.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, -1) == 1
    db.close()
    writer.close()
