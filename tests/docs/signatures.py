"""Signatures as a reader wants them: annotations as written, one parameter a line if it is long."""

from __future__ import annotations

import inspect
import json
import re
from enum import Enum
from inspect import Parameter
from types import MethodType
from typing import TYPE_CHECKING, Any

from tests.docs import source

if TYPE_CHECKING:
    from collections.abc import Iterable

STARS: dict[object, str] = {Parameter.VAR_POSITIONAL: "*", Parameter.VAR_KEYWORD: "**"}
"""What stands before parameters that take any number of arguments."""

WIDTH = 92
"""Characters of a line of code that fit beside each other on a page."""


def function(name: str, made: Any, *, bound: bool = True) -> str:
    """Return a function's signature; of one that is not `bound`, without its first parameter."""
    inner = inspect.unwrap(made)
    signature = inspect.signature(made)
    parameters = list(signature.parameters.values())[0 if bound else 1 :]
    returned = _annotation(signature.return_annotation)
    if inner is not made and inspect.isgeneratorfunction(inner):  # a `contextmanager`
        returned = re.sub(r"^Iterator\[", "AbstractContextManager[", returned)
    is_async = inspect.iscoroutinefunction(made) or inspect.isasyncgenfunction(made)
    start = f"{'async ' * is_async}def {name}"
    return _laid_out(start, [_parameter(each) for each in _marked(parameters)], f" -> {returned}")


def constructor(cls: type) -> str:
    """Return how an object of a class is made."""
    written = source.fields(cls)
    lines = []
    made = vars(cls).get("__init__")  # what `__new__` takes may be looser
    given = inspect.signature(cls if made is None else MethodType(made, cls))
    for each in _marked(given.parameters.values()):
        field = None if isinstance(each, str) else written.get(each.name)
        lines.append(_parameter(each) if field is None else _field(field, each))
    return _laid_out(cls.__name__, lines, "")


def _laid_out(start: str, parameters: list[str], end: str) -> str:
    short = f"{start}({', '.join(parameters)}){end}"
    if len(short) <= WIDTH:
        return short
    return "\n".join([f"{start}(", *(f"    {each}," for each in parameters), f"){end}"])


def _marked(parameters: Iterable[Parameter]) -> list[Parameter | str]:
    """Return the parameters with the marks `/` and `*` between their kinds."""
    marked: list[Parameter | str] = []
    before = None
    for each in parameters:
        if before is Parameter.POSITIONAL_ONLY and each.kind is not before:
            marked.append("/")
        if each.kind is Parameter.KEYWORD_ONLY and before not in (
            Parameter.KEYWORD_ONLY,
            Parameter.VAR_POSITIONAL,
        ):
            marked.append("*")
        marked.append(each)
        before = each.kind
    if before is Parameter.POSITIONAL_ONLY:
        marked.append("/")
    return marked


def _field(field: source.Assigned, parameter: Parameter | str) -> str:
    assert isinstance(parameter, Parameter)
    text = f"{field.name}: {plain(field.annotation)}"
    if parameter.default is Parameter.empty:
        return text
    is_made_anew = repr(parameter.default).startswith("<")  # told by the source alone
    return f"{text} = {field.value if is_made_anew else _value(parameter.default)}"


def _parameter(parameter: Parameter | str) -> str:
    if isinstance(parameter, str):
        return parameter
    stars = STARS.get(parameter.kind, "")
    annotation = _annotation(parameter.annotation)
    text = f"{stars}{parameter.name}: {annotation}" if annotation else f"{stars}{parameter.name}"
    if parameter.default is Parameter.empty:
        return text
    return f"{text} = {_value(parameter.default)}"


def _annotation(annotation: Any) -> str:
    if annotation is inspect.Signature.empty:
        return ""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return plain(text)


def plain(annotation: str) -> str:
    """Return an annotation in which classes stand without their modules."""
    return re.sub(r"\b[a-z_.]+\.(?=[A-Z])", "", annotation)


def _value(default: Any) -> str:
    if isinstance(default, Enum):
        return str(default)
    if callable(default):
        return f"{default.__module__}.{default.__name__}"
    return json.dumps(default) if isinstance(default, str) else repr(default)
