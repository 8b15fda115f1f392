"""The reference, made from signatures and docstrings: `python -m tests.docs.generated`."""

from __future__ import annotations

import importlib
import inspect
import re
from collections import Counter
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.docs import signatures, source
from tests.docs.pages import ROOT, anchor_of
from tests.docs.reference_pages import CONTRACT, INTERNAL, REFERENCE, ReferencePage

from sojourn import errors, store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FOLDER = ROOT / "docs" / "reference"
FILES = [FOLDER / "index.md", *(FOLDER / page.file for page in REFERENCE)]
NOTE = "<!-- Made from the code by `python -m tests.docs.generated`: change the docstrings. -->"
CODE = re.compile(r"`([A-Za-z_][\w.]*)`")
LONGEST_VALUE = 70
"""Characters of a constant's value that are worth showing."""


class Entry(NamedTuple):
    """A public name with what it stands for."""

    module: str
    name: str
    value: Any


class Member(NamedTuple):
    """A method or an attribute of a class; what it is told as, and what is said of it."""

    name: str
    shown: str
    doc: str
    is_method: bool


# --- what there is -----------------------------------------------------------------------------


def entries_of(page: ReferencePage) -> list[Entry]:
    """Return the names of a page, in order."""
    found = []
    for module, names in page.listed:
        of = importlib.import_module(module)
        # What exists for type checkers alone is told by its source.
        found += [Entry(module, name, getattr(of, name, None)) for name in names]
    return found


@cache
def listed_classes() -> frozenset[type]:
    """Return every class that has an entry."""
    entries = [entry for page in REFERENCE for entry in entries_of(page)]
    return frozenset(entry.value for entry in entries if inspect.isclass(entry.value))


def members_of(cls: type) -> list[Member]:
    """Return the public members of a class, those of bases without an entry too."""
    hidden = INTERNAL.get(cls.__name__, set()) | _verbs_if_a_store(cls)
    found: dict[str, Member] = {}
    for kind in reversed(cls.__mro__):
        if kind is not cls and (kind in listed_classes() or not _is_ours(kind)):
            continue
        for member in [*_attributes(kind), *_own_members(kind)]:
            found.pop(member.name, None)  # an override stands where the class has it
            found[member.name] = member
    return [member for name, member in found.items() if name not in hidden]


def _verbs_if_a_store(cls: type) -> set[str]:
    """Return the names of the contract for a store around a store: they are told once."""
    if cls.__name__ not in CONTRACT:
        return set()
    protocols = [value for name, value in vars(store).items() if name.startswith("Supports")]
    return {name for protocol in (store.Store, *protocols) for name in vars(protocol)}


def _is_ours(cls: type) -> bool:
    return cls.__module__.partition(".")[0] == "sojourn"


def _is_record(cls: type) -> bool:
    """Return whether what a class declares is what its objects are made of."""
    return any(hasattr(cls, mark) for mark in ("__struct_fields__", "_fields", "__match_args__"))


def _attributes(cls: type) -> Iterator[Member]:
    declared = {} if _is_record(cls) else source.fields(cls)
    for found in [*declared.values(), *source.attributes(cls).values()]:
        if not found.name.startswith("_"):
            typed = f": {signatures.plain(found.annotation)}" if found.annotation else ""
            yield Member(found.name, f"{found.name}{typed}", found.doc, is_method=False)


def _own_members(cls: type) -> Iterator[Member]:
    for name, value in vars(cls).items():
        if name.startswith("_"):
            continue
        if isinstance(value, property):
            typed = inspect.signature(value.fget).return_annotation  # type: ignore[arg-type]  # a property of ours can be read
            shown = f"{name}: {signatures.plain(typed)}"
            yield Member(name, shown, inspect.getdoc(value) or "", is_method=False)
        elif isinstance(value, classmethod | staticmethod):
            shown = signatures.function(name, getattr(cls, name))
            yield Member(name, shown, inspect.getdoc(value) or "", is_method=True)
        elif inspect.isfunction(value):
            shown = signatures.function(name, value, bound=False)
            yield Member(name, shown, inspect.getdoc(value) or "", is_method=True)


# --- how it is told ----------------------------------------------------------------------------


def render(page: ReferencePage) -> str:
    """Return a page of the reference."""
    entries = entries_of(page)
    parts = [f"# {page.title}", NOTE, page.lead, _contents(page, entries)]
    parts += [part for entry in entries for part in _told(page, entry)]
    return "\n\n".join(part for part in parts if part) + "\n"


def index() -> str:
    """Return the page that names everything there is, page by page."""
    lines = ["# Reference", "", NOTE, "", "Every public name, from its signature and docstring."]
    lines += ["Errors are in [Errors](../errors.md), commands in [The command line](../cli.md),"]
    lines += ["limits in [Operations](../operations.md#limits).", ""]
    for page in REFERENCE:
        names = ", ".join(
            f"[{entry.name}]({page.file}#{anchor_of(entry.name)})" for entry in entries_of(page)
        )
        lines.append(f"- [{page.title}]({page.file}): {names}")
    return "\n".join(lines) + "\n"


@cache
def pages() -> dict[Path, str]:
    """Return the text of every page of the reference."""
    made = {FOLDER / page.file: render(page) for page in REFERENCE}
    return {FOLDER / "index.md": index(), **made}


def _contents(page: ReferencePage, entries: list[Entry]) -> str:
    lines = []
    for entry in entries:
        line = f"- [{entry.name}](#{anchor_of(entry.name)})"
        methods = [member.name for member in _methods(page, entry)]
        if methods:
            links = (f"[{name}](#{anchor_of(f'{entry.name}.{name}')})" for name in methods)
            line += f": {', '.join(links)}"
        lines.append(line)
    return "\n".join(lines)


def _told(page: ReferencePage, entry: Entry) -> Iterator[str]:
    yield f"## {entry.name}"
    if entry.module != "sojourn":
        yield f"From `{entry.module}`."
    if not inspect.isclass(entry.value):
        yield from _plain_told(page, entry)
        return
    yield from _class_told(page, entry)
    for member in _methods(page, entry):
        yield f"### {entry.name}.{member.name}"
        yield _block(member.shown)
        yield _linked(member.doc, page, f"{entry.name}.{member.name}")


def _plain_told(page: ReferencePage, entry: Entry) -> Iterator[str]:
    if inspect.isfunction(entry.value):
        yield _block(signatures.function(entry.name, entry.value))
        yield _linked(inspect.getdoc(entry.value) or "", page, entry.name)
        return
    found = source.constant(entry.module, entry.name)
    value = found.value.strip("\"'") if found.annotation == "TypeAlias" else found.value
    if len(value) <= LONGEST_VALUE:
        yield _block(f"{entry.name} = {value}")
    yield _linked(found.doc, page, entry.name)


def _class_told(page: ReferencePage, entry: Entry) -> Iterator[str]:
    cls = entry.value
    if issubclass(cls, Enum):
        yield _linked(inspect.getdoc(cls) or "", page, entry.name)
        yield ", ".join(f"`{entry.name}.{each.name}`" for each in cls)
        return
    making = _init_doc(cls)
    made_by = making.startswith("Made by")
    if not made_by and (making or _is_record(cls)) and not getattr(cls, "_is_protocol", False):
        yield _block(signatures.constructor(cls))
    yield _linked(inspect.getdoc(cls) or "", page, entry.name)
    yield _linked(making, page, entry.name)
    yield "\n".join(
        f"- `{member.shown}`: {_linked(' '.join(member.doc.split()), page, '')}".removesuffix(": ")
        for member in members_of(cls)
        if not member.is_method
    )
    yield from _mirrored(page, entry)


def _init_doc(cls: type) -> str:
    for kind in cls.__mro__:
        if _is_ours(kind) and "__init__" in vars(kind):
            return inspect.cleandoc(vars(kind)["__init__"].__doc__ or "")
    return ""


def _methods(page: ReferencePage, entry: Entry) -> list[Member]:
    """Return the methods that are told: all, or on the page of a mirror those that differ."""
    if not inspect.isclass(entry.value):
        return []
    methods = [member for member in members_of(entry.value) if member.is_method]
    alike = _docs_of_async(page, entry)
    return [member for member in methods if alike.get(member.name) != member.doc]


def _docs_of_async(page: ReferencePage, entry: Entry) -> dict[str, str]:
    original = page.mirrors and getattr(importlib.import_module(page.mirrors), entry.name, None)
    return {member.name: member.doc for member in members_of(original)} if original else {}


def _mirrored(page: ReferencePage, entry: Entry) -> Iterator[str]:
    """Yield the signatures of methods that are what their async ones are."""
    different = {member.name for member in _methods(page, entry)}
    same = [m for m in members_of(entry.value) if m.is_method and m.name not in different]
    if same:
        where = _places()[entry.name]
        yield f"As those of the async [{entry.name}]({where}), without `await`:"
        yield _block("\n".join(member.shown for member in same))


def _block(code: str) -> str:
    return f"```py\n{code}\n```"


# --- links -------------------------------------------------------------------------------------


@cache
def _places() -> dict[str, str]:
    """Return where each name is told that means one thing only; mirrors have no say."""
    pages = [page for page in REFERENCE if not page.mirrors and not page.borrowed]
    times = Counter(entry.name for page in pages for entry in entries_of(page))
    return {
        name: f"{page.file}#{anchor}"
        for page in pages
        for name, anchor in _anchors(page.file).items()
        if times[name.partition(".")[0]] == 1
    }


@cache
def _anchors(file: str) -> dict[str, str]:
    """Return the anchors of a page: those of its names, and of their methods."""
    (page,) = [page for page in REFERENCE if page.file == file]
    names = []
    for entry in entries_of(page):
        names += [entry.name, *(f"{entry.name}.{m.name}" for m in _methods(page, entry))]
    return {name: anchor_of(name) for name in names}


def _linked(text: str, page: ReferencePage, own: str) -> str:
    """Return a docstring with the names in it as links to where they are told."""

    def link(found: re.Match[str]) -> str:
        name = found[1]
        target = None
        if name in _anchors(page.file):
            target = f"#{_anchors(page.file)[name]}"
        elif isinstance(getattr(errors, name, None), type):
            target = "../errors.md"
        else:
            target = _places().get(name)
        return found[0] if target is None or name == own else f"[{found[0]}]({target})"

    return CODE.sub(link, text)
