"""Laws of paging: a position is a place in the order, not a number of rows to skip."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sojourn.errors import InvalidCursor
from sojourn.testing.laws.expect import equal, holds, refused
from sojourn.testing.laws.law import law

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sojourn.testing.laws.corner import Corner

TOO_MANY = 10
"""More pages than any list here has."""

ORDERS = ("created", "-created", "active", "-active")


async def walk(
    corner: Corner,
    limit: int,
    between: Callable[[int], Awaitable[object]] | None = None,
    **query: Any,
) -> list[str]:
    """Return the ids on all pages; `between` runs after each page with its number."""
    seen: list[str] = []
    position = None
    for number in range(1, 100):
        page = await corner.page(limit=limit, position=position, **query)
        holds(len(page.records) <= limit, f"a page holds at most {limit} sessions")
        seen += [record.header.id for record in page.records]
        position = page.position
        if position is None:
            return seen
        holds(page.records, "a page that is not the last holds something")
        if between is not None:
            await between(number)
    holds(False, "the pages come to an end")
    return seen


@law()
async def pages_are_the_list_cut_up(corner: Corner) -> None:
    """Page after page, in every order, by every filter: each session once, in order."""
    for n in range(12):
        labels = {"third": str(n % 3), "all": "yes"}
        await corner.create(f"s{n}", now=n, user="u" if n % 2 else None, labels=labels)
    filters: tuple[dict[str, Any], ...] = (
        {},
        {"user": "u"},
        {"anonymous": True},
        {"labels": {"third": "1"}},
        {"labels": {"all": "yes"}},
        {"user": "u", "labels": {"all": "yes"}},
    )
    for order in ORDERS:
        for query in filters:
            whole = await corner.ids(order=order, now=20, **query)
            for limit in (1, 2, 3, 5, 12, 100):
                cut = await walk(corner, limit, order=order, now=20, **query)
                equal(cut, whole, f"pages of {limit} by {query} in the order {order!r}")


@law()
async def the_last_page_has_no_position(corner: Corner) -> None:
    """Also when it is full: no empty page follows."""
    for n in range(6):
        await corner.create(f"s{n}")
    for order in ORDERS:
        for limit in (2, 3, 6, 7):
            sizes = []
            position = None
            while True:
                page = await corner.page(order=order, limit=limit, position=position)
                sizes.append(len(page.records))
                position = page.position
                if position is None or len(sizes) > TOO_MANY:
                    break
            pages = -(-6 // limit)
            equal(len(sizes), pages, f"pages of {limit} in the order {order!r}")


@law()
async def ties_are_paged_without_loss(corner: Corner) -> None:
    """Sessions that were created and active at the same instant: each on one page."""
    for n in range(25):
        await corner.create(f"s{n}")
    for order in ORDERS:
        cut = await walk(corner, 4, order=order)
        equal(sorted(cut), sorted(f"s{n}" for n in range(25)), f"the sessions by {order!r}")


@law()
async def paging_is_steady_while_sessions_come_and_go(corner: Corner) -> None:
    """What is not touched meanwhile is seen once, though others are created, used and deleted."""
    for order in ORDERS:
        part = corner.beside(f"{corner.app} {order}")
        for n in range(30):
            await part.create(f"s{n:02}", now=n)
        disturbed = {"s00", "s05", "s10", "s20", "s25", "s29"}

        async def disturb(page: int, part: Corner = part) -> None:
            await part.create(f"new{page}", now=100 + page)
            await part.create(f"old{page}", now=-page)
            if page == 2:  # noqa: PLR2004 - once some were seen and some were not
                for id in ("s05", "s10", "s20", "s25"):
                    await part.touch(id, now=200)
                await part.delete("s00", now=200)
                await part.delete("s29", now=200)

        seen = await walk(part, 5, disturb, order=order, now=300)
        for n in range(30):
            id = f"s{n:02}"
            if id not in disturbed:
                equal(seen.count(id), 1, f"how often {id} was seen in the order {order!r}")
        for id in {id for id in seen if id.startswith("s")} - {"s05", "s10", "s20", "s25"}:
            equal(seen.count(id), 1, f"how often {id} was seen in the order {order!r}")


@law()
async def a_position_outlives_the_session_it_stands_for(corner: Corner) -> None:
    """The page goes on where it was, though the session at the position is gone or has moved."""
    for order in ORDERS:
        part = corner.beside(f"{corner.app} {order}")
        for n in range(6):
            await part.create(f"s{n}", now=n)
        whole = await part.ids(order=order, now=9)
        page = await part.page(order=order, limit=3, now=9)
        await part.delete(whole[2])
        rest = await part.ids(order=order, limit=3, position=page.position, now=9)
        equal(rest, whole[3:], f"the rest in the order {order!r}")


@law()
async def a_malformed_position_is_an_invalid_cursor(corner: Corner) -> None:
    """Whatever a client made up: `InvalidCursor`, never another error and never the first page."""
    for n in range(3):
        await corner.create(f"s{n}")
    for order in ORDERS:
        for position in (
            "",
            "garbage",
            "?",
            "\x00",
            "{}",
            "null",
            "' OR 1=1 --",
            "1.2.3.4",
            "\u00e9",
        ):
            call = corner.page(order=order, position=position)
            await refused(call, InvalidCursor, f"the position {position!r} in the order {order!r}")
