"""What only the source tells of the code: the words below an assignment, annotations as written."""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
import json
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator


class Assigned(NamedTuple):
    """A name that is given a value: how that is written, and what is said of it below."""

    name: str
    annotation: str
    value: str
    doc: str


@cache
def tree_of(module: str) -> ast.Module:
    """Return a module's syntax tree."""
    return ast.parse(inspect.getsource(importlib.import_module(module)))


def home_of(module: str, name: str) -> str:
    """Return the module in which a name is made that this one may only import."""
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return home_of(node.module, alias.name)
    return module


def constant(module: str, name: str) -> Assigned:
    """Return how a module gives a name its value. Raises `KeyError` if it does not."""
    home = tree_of(home_of(module, name))
    blocks = [home.body, *(node.body for node in home.body if isinstance(node, ast.If))]
    return {found.name: found for body in blocks for found in _assigned(body)}[name]


def fields(cls: type) -> dict[str, Assigned]:
    """Return what a class declares in its body: the fields of a struct, a protocol's attributes."""
    return {found.name: found for found in _assigned(_class(cls).body) if found.annotation}


def attributes(cls: type) -> dict[str, Assigned]:
    """Return what an object gives itself when it is made, `self.x = ...`."""
    for node in _class(cls).body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            return {found.name: found for found in _assigned(node.body, "self")}
    return {}


def _class(cls: type) -> ast.ClassDef:
    body = tree_of(cls.__module__).body
    (node,) = [
        each for each in body if isinstance(each, ast.ClassDef) and each.name == cls.__name__
    ]
    return node


def _assigned(body: list[ast.stmt], owner: str | None = None) -> Iterator[Assigned]:
    for node, below in itertools.pairwise([*body, ast.Pass()]):
        if isinstance(node, ast.Assign):
            targets, annotation, value = node.targets, "", _text(node.value)
        elif isinstance(node, ast.AnnAssign):
            targets, annotation = [node.target], _plain(node.annotation)
            value = "" if node.value is None else _text(node.value)
        else:
            continue
        doc = _words(below)
        for target in targets:
            name = _name(target, owner)
            if name is not None:
                yield Assigned(name, annotation, value, doc)


def _name(target: ast.expr, owner: str | None) -> str | None:
    """Return the name that is assigned: `x`, or with an owner the `x` of `owner.x`."""
    if owner is None:
        return target.id if isinstance(target, ast.Name) else None
    if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name):
        return target.attr if target.value.id == owner else None
    return None


def _plain(annotation: ast.expr) -> str:
    """Return an annotation as text, of `Annotated[X, ...]` only the X."""
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Annotated":
        assert isinstance(annotation.slice, ast.Tuple)
        annotation = annotation.slice.elts[0]
    return ast.unparse(annotation)


def _text(value: ast.expr) -> str:
    """Return an expression as text; a plain string in the quotes that the code has."""
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        return json.dumps(value.value)
    return ast.unparse(value)


def _words(node: ast.stmt) -> str:
    """Return the text that a statement is, if it is one."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        said = node.value.value
        return inspect.cleandoc(said) if isinstance(said, str) else ""
    return ""
