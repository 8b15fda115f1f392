"""Any session at all, as generated, is the same wherever it is moved: by file, store to store."""

from __future__ import annotations

import asyncio
import io
import tempfile
from typing import TYPE_CHECKING, Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.transfer.contents import CLOCK, contents, opened

from sojourn import codec
from sojourn.expiry import is_past
from sojourn.lifecycle import Phase
from sojourn.model import Entry, Header, StoredDocument
from sojourn.store import Restore, RestoreShared, Snapshot, Tier
from sojourn.timestamps import EARLIEST, LATEST
from sojourn.transfer import copy, export_sessions, import_sessions

if TYPE_CHECKING:
    from sojourn.transfer.walking import TransferStore

EXAMPLES = 12

names = st.text(
    st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=20
) | st.sampled_from(["a", "é", "多", 'quo"te', "back\\slash", "a b", "user:x", "-"])
instants = st.integers(EARLIEST, LATEST)
spans = st.none() | st.integers(1, LATEST)
texts = st.text(st.characters(codec="utf-8"), max_size=30)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**200), 2**200)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(texts, parts, max_size=3),
    max_leaves=8,
)


def encoded(state: dict[str, Any]) -> dict[str, msgspec.Raw]:
    return {key: msgspec.Raw(codec.encode(value, key)) for key, value in state.items()}


states = st.dictionaries(names, values, max_size=4).map(encoded)


@st.composite
def documents(draw: st.DrawFn) -> StoredDocument:
    body = draw(st.binary(max_size=40) | texts.map(str.encode))
    expires = draw(st.none() | instants)
    return StoredDocument(
        collection=draw(names),
        key=draw(names),
        content_type=draw(names),
        size=len(body),
        seq=draw(st.integers(0, 9)),
        created_at=draw(instants),
        updated_at=draw(instants),
        expires_at=expires if not is_past(expires, CLOCK.now()) else None,
        body=body,
    )


several = st.lists(documents(), max_size=3, unique_by=lambda item: (item.collection, item.key))


@st.composite
def sessions(draw: st.DrawFn, id: str) -> Snapshot:
    seqs = sorted(draw(st.sets(st.integers(1, 40), max_size=5)))
    entries = tuple(
        Entry(
            seq,
            draw(names),
            draw(names),
            draw(st.none() | names),
            draw(instants),
            codec.encode(draw(values), "body").decode(),
            draw(st.none() | states.map(lambda state: codec.encode_object(state).decode())),
            draw(st.none() | st.lists(names).map(lambda keys: codec.encode_names(keys).decode())),
        )
        for seq in seqs
    )
    labels = draw(st.dictionaries(names, names, max_size=3))
    header = Header(
        app=draw(st.sampled_from(["shop", "多"])),
        id=id,
        epoch=draw(names),
        user=draw(st.none() | names),
        lifecycle=draw(st.sampled_from(["open", "agent"])),
        phase=draw(st.sampled_from(Phase)),
        reason=draw(st.none() | texts),
        revision=draw(st.integers(1, 2**60)),
        seq=draw(st.integers(max(seqs, default=0), 50)),
        created_at=draw(instants),
        active_at=draw(instants),
        idle=draw(spans),
        absolute_at=draw(st.none() | instants),
        expires_at=draw(st.none() | instants),
        due_at=draw(st.none() | instants),
        retain=draw(spans),
        attempts=draw(st.integers(0, 100)),
        forked_from=draw(st.none() | names),
        labels=labels,
        exclusive=tuple(sorted(labels))[: draw(st.integers(0, 1))] if id == "first" else (),
        fence=draw(st.integers(0, 2**40)),
        remembered=draw(st.binary(min_size=20, max_size=20)),
    )
    return Snapshot(
        header=header,
        state=draw(states),
        entries=entries,
        documents=tuple(sorted(draw(several), key=lambda item: item.collection)),
    )


async def filled(
    store: TransferStore, found: list[Snapshot], shared: list[Tier | StoredDocument]
) -> dict[str, Any]:
    """Put everything into a store and return what it holds then."""
    for number, snapshot in enumerate(found):
        op = number.to_bytes(8, "big")
        await store.restore(Restore(snapshot=snapshot, op=op, abandoned_at=0))
    await store.restore_shared(RestoreShared(app="shop", items=tuple(shared)))
    return await contents(store)


tiers = st.lists(
    st.builds(Tier, user=st.none() | names, state=states.filter(bool)),
    max_size=2,
    unique_by=lambda tier: tier.user,
)


@settings(max_examples=EXAMPLES, deadline=None)
@given(first=sessions("first"), second=sessions("sécond"), tiers=tiers, documents=several)
def test_any_session_is_the_same_wherever_it_is_moved(
    first: Snapshot, second: Snapshot, tiers: list[Tier], documents: list[StoredDocument]
) -> None:
    async def moved(folder: str) -> None:
        async with (
            opened("memory://") as source,
            opened(f"sqlite:///{folder}/file.db") as through_file,
            opened(f"sqlite:///{folder}/copy.db") as copied,
            opened("memory://") as back,
        ):
            before = await filled(source, [first, second], [*tiers, *documents])
            stream = io.BytesIO()
            await export_sessions(source, stream, clock=CLOCK)
            stream.seek(0)
            imported = await import_sessions(through_file, stream, clock=CLOCK)
            assert imported.refused == 0
            assert await contents(through_file) == before
            for ours, theirs in ((source, copied), (copied, back)):
                assert (await copy(ours, theirs, clock=CLOCK)).verified == 2
                assert await contents(theirs) == before
            assert await copied.check() == []  # type: ignore[attr-defined]  # a SQLite store can

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(moved(folder))
