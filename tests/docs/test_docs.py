"""What the documentation says of the code is so: tables, drawings, links."""

from __future__ import annotations

import builtins
import collections.abc
import contextlib
import inspect
import os
import pathlib
import pkgutil
import re
import typing
from concurrent import futures
from typing import TYPE_CHECKING

import apsw
import pytest
from tests.docs import reference, source
from tests.docs.generated import DOCS, SECTIONS, Section
from tests.docs.pages import PAGES, ROOT, anchors_of, blocks_of, links_of, section_of
from tests.docs.reference_pages import INTERNAL, REFERENCE

import sojourn
from sojourn import SojournError, store
from sojourn.stores.sqlite import schema
from sojourn.telemetry import Result

if TYPE_CHECKING:
    from pathlib import Path

CODE = re.compile(r"`([^`]+)`")
ERRORS: dict[str, type[BaseException]] = {
    name: value
    for name in sojourn.__all__
    if isinstance(value := getattr(sojourn, name), type) and issubclass(value, SojournError)
}


NOT_MODULES = re.compile(r"sojourn\.(toml|operation\.\w+|transition\.\w+)")
"""A file, and metrics, whose names begin as those of modules do."""


def place_of(page: Path) -> str:
    """Return where a page is: two folders may have pages of one name."""
    return str(page.relative_to(ROOT))


def rows_of(page: Path, name: str) -> list[list[str]]:
    """Return the rows of the table in a section, without its heading, cell by cell."""
    lines = section_of(page, name).splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def code_in(cell: str) -> list[str]:
    """Return what a cell shows as code."""
    return CODE.findall(cell)


@pytest.mark.parametrize("section", SECTIONS, ids=str)
def test_what_is_made_from_the_code_is_as_the_code_is(section: Section) -> None:
    """Diagrams, limits and laws; `python -m tests.docs.generated` puts them right."""
    assert section_of(section.page, section.name) == section.render()


def test_every_error_is_explained_once() -> None:
    """The table has each public error, and nothing else."""
    named = [code_in(row[0])[0] for row in rows_of(DOCS / "errors.md", "errors")]
    assert sorted(named) == sorted(ERRORS)


def test_every_error_of_the_library_is_public() -> None:
    """Whoever has to catch it can import it."""
    made = {
        name
        for name, value in vars(sojourn.errors).items()
        if isinstance(value, type) and issubclass(value, SojournError)
    }
    assert made == set(ERRORS)


def test_errors_are_what_the_table_says_they_are() -> None:
    """Their parents, and the facts that they are made of."""
    for name, parents, facts, *_ in rows_of(DOCS / "errors.md", "errors"):
        error = ERRORS[code_in(name)[0]]
        assert code_in(parents) == [base.__name__ for base in error.__bases__], name
        if error is not SojournError:
            given = [part for part in inspect.signature(error).parameters if part != "self"]
            assert code_in(facts) == given, name


def test_what_opening_can_raise_is_explained() -> None:
    """Every error that is about storage, and the two others that opening a file may raise."""
    named = {code_in(row[0])[0] for row in rows_of(DOCS / "sqlite.md", "open errors")}
    storage = {name for name, error in ERRORS.items() if issubclass(error, sojourn.Unavailable)}
    assert named == storage | {"Corrupt", "Closed"}


def test_tables_and_views_of_the_file_are_explained() -> None:
    """The page about the file names what is in it, all of it, and nothing else."""
    with apsw.Connection(":memory:") as db:
        schema.migrate(db, "a file")
        found = db.execute(
            "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') "
            "AND name NOT LIKE 'sqlite_%'"
        )
        there = {name for (name,) in found}
    assert {code_in(row[0])[0] for row in rows_of(DOCS / "sqlite.md", "tables")} == there


def test_the_verbs_of_a_store_are_explained() -> None:
    """Each verb, in the order of the protocol, with the first sentence of its docstring."""
    shown = {code_in(row[0])[0]: row[1] for row in rows_of(DOCS / "stores.md", "verbs")}
    verbs = {
        name: value
        for name, value in vars(store.Store).items()
        if inspect.iscoroutinefunction(value)
    }
    assert list(shown) == list(verbs)
    for name, verb in verbs.items():
        assert (inspect.getdoc(verb) or "").replace("\n", " ").startswith(shown[name]), name


def test_the_abilities_of_a_store_are_explained() -> None:
    """Each optional protocol of the contract."""
    named = {code_in(row[0])[0] for row in rows_of(DOCS / "stores.md", "abilities")}
    assert named == {name for name in vars(store) if name.startswith("Supports")}


def test_the_results_that_observers_are_told_are_explained() -> None:
    """Each word, in order."""
    named = [code_in(row[0])[0] for row in rows_of(DOCS / "telemetry.md", "results")]
    assert named == list(Result)


@pytest.mark.parametrize("page", PAGES, ids=place_of)
def test_links_lead_somewhere(page: Path) -> None:
    """Files are there, and so are the headings that a link names."""
    for link in links_of(page):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors_of(target), link


def test_every_page_is_in_the_index() -> None:
    """A page that nothing leads to is not read; the reference has an index of its own."""
    linked = {(DOCS / link.partition("#")[0]).resolve() for link in links_of(DOCS / "index.md")}
    assert {*DOCS.glob("*.md"), reference.FOLDER / "index.md"} <= linked | {DOCS / "index.md"}


def test_the_readme_leads_to_every_page() -> None:
    """By links, however many."""
    reached: set[Path] = set()
    found = [ROOT / "README.md"]
    while found:
        page = found.pop()
        reached.add(page)
        targets = {(page.parent / link.partition("#")[0]).resolve() for link in links_of(page)}
        found += [target for target in targets - reached if target in PAGES]
    assert reached == set(PAGES)


@pytest.mark.parametrize("page", PAGES, ids=place_of)
def test_modules_and_names_in_running_text_exist(page: Path) -> None:
    """What is written in code as `sojourn.something` can be imported."""
    for name in re.findall(r"`(sojourn(?:\.\w+)+)`", page.read_text(encoding="utf-8")):
        assert NOT_MODULES.fullmatch(name) or pkgutil.resolve_name(name), name


# --- the reference -----------------------------------------------------------------------------

PUBLIC = ("sojourn", "sojourn.blocking", "sojourn.telemetry", "sojourn.testing", "sojourn.transfer")
"""The modules that say what of them is public."""

ELSEWHERE = {
    "App",
    "AsyncContainer",
    "BaseRouteHandler",
    "Bearer",
    "CollectorRegistry",
    "Connection",
    "Deletion",
    "Flask",
    "GET",
    "Guard",
    "HEAD",
    "HTTPConnection",
    "HttpRequest",
    "HttpResponseBase",
    "Logger",
    "MeterProvider",
    "NullSession",
    "OPTIONS",
    "Raw",
    "Request",
    "Response",
    "Scopes",
    "SessionMixin",
    "TRACE",
    "TracerProvider",
}
"""Types of other packages, an ASGI application, the type of `DELETE`; and words of HTTP."""


@pytest.mark.parametrize("page", reference.FILES, ids=lambda page: page.name)
def test_the_reference_is_as_the_code_is(page: Path) -> None:
    """Signatures and docstrings; `python -m tests.docs.generated` puts it right."""
    assert page.read_text(encoding="utf-8") == reference.pages()[page]


def test_the_reference_has_no_other_pages() -> None:
    """What the code no longer has is gone from the reference too."""
    assert sorted(reference.FOLDER.iterdir()) == sorted(reference.FILES)


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_is_in_the_reference(module: str) -> None:
    """Or it is an error, and in the table of those."""
    told = {entry.name for page in REFERENCE for entry in reference.entries_of(page)}
    assert set(pkgutil.resolve_name(module).__all__) - set(ERRORS) <= told


def test_everything_in_the_reference_is_explained() -> None:
    """Each name and each public member of a class has words of its own."""
    for page in REFERENCE:
        for entry in reference.entries_of(page):
            if inspect.isclass(entry.value):
                assert inspect.getdoc(entry.value), entry.name
                for member in reference.members_of(entry.value):
                    assert member.doc, f"{entry.name}.{member.name}"
            elif inspect.isfunction(entry.value):
                assert inspect.getdoc(entry.value), entry.name
            else:
                assert source.constant(entry.module, entry.name).doc, entry.name


def test_members_that_are_kept_out_of_the_reference_exist() -> None:
    """A name that was renamed or removed would hide another one some day."""
    for name, members in INTERNAL.items():
        classes = [cls for cls in reference.listed_classes() if cls.__name__ == name]
        known = {member for cls in classes for member in (*dir(cls), *source.attributes(cls))}
        assert members <= known, name


@pytest.mark.parametrize("page", reference.FILES, ids=lambda page: page.name)
def test_the_types_in_signatures_are_explained(page: Path) -> None:
    """By the reference, by the table of errors, or by Python itself."""
    known = {entry.name for each in REFERENCE for entry in reference.entries_of(each)}
    known |= {*ERRORS, *ELSEWHERE, *dir(builtins), *dir(collections.abc), *dir(typing)}
    known |= {*dir(contextlib), *dir(futures), *dir(os), *dir(pathlib), "Item", "Ts", "OPEN"}
    shown = {name for block in blocks_of(page) for name in re.findall(r"\b[A-Z]\w+", block.text)}
    assert shown <= known
