"""What the documentation says of the code is so: tables, drawings, links."""

from __future__ import annotations

import inspect
import pkgutil
import re
from typing import TYPE_CHECKING

import apsw
import pytest
from tests.docs.generated import DOCS, SECTIONS, Section
from tests.docs.pages import PAGES, ROOT, anchors_of, links_of, section_of

import sojourn
from sojourn import SojournError, store
from sojourn.stores.sqlite import schema

if TYPE_CHECKING:
    from pathlib import Path

CODE = re.compile(r"`([^`]+)`")
ERRORS: dict[str, type[BaseException]] = {
    name: value
    for name in sojourn.__all__
    if isinstance(value := getattr(sojourn, name), type) and issubclass(value, SojournError)
}


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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
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


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.name)
def test_every_page_is_in_the_readme(page: Path) -> None:
    """A page that nothing leads to is not read."""
    assert f"docs/{page.name}" in links_of(ROOT / "README.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_modules_and_names_in_running_text_exist(page: Path) -> None:
    """What is written in code as `sojourn.something` can be imported."""
    for name in re.findall(r"`(sojourn(?:\.\w+)+)`", page.read_text(encoding="utf-8")):
        assert pkgutil.resolve_name(name), name
