"""A file from before documents had places: opened, they have them, in the order of their puts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.checkpoints.contents import ids

from sojourn import SessionManager
from sojourn.store import DocumentQuery
from sojourn.stores.sqlite import schema

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


async def test_documents_of_an_older_file_have_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By key and by place; a fork keeps both; checkpoints can be saved beside them."""
    url = f"sqlite:///{tmp_path / 'a.db'}"
    names = ["m", "a", "z", "b"]
    with monkeypatch.context() as older:
        older.setattr(schema, "MIGRATIONS", schema.MIGRATIONS[:1])
        async with SessionManager.open(url) as sessions:
            await sessions.create(id="s")
            for name in names:
                await sessions.documents("s").put("c", name, name.encode())
    async with SessionManager.open(url) as sessions:
        await sessions.fork("s", new_id="f")
        for id in ("s", "f"):
            documents = sessions.documents(id)
            assert [found.key for found in await documents.list("c")] == sorted(names)
            newest = DocumentQuery(app="default", id=id, collection="c", now=0, newest=True)
            found = await sessions.store.documents(newest)
            assert [document.key for document in found] == names[::-1]
        checkpoints = sessions.checkpoints("s")
        saved = [(await checkpoints.save(b"x" * size)).id for size in (1, 20_000)]
        assert await ids(checkpoints) == saved[::-1]
