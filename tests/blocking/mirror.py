"""The verbs of the sync face, made from those of the async one: `python -m tests.blocking.mirror`.

What is made is plain code with types and docstrings of its own, so that editors and type checkers
see it as it is. Whatever is more than handing a call on is written by hand, in the other modules.
"""

from __future__ import annotations

import ast
import builtins
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
SRC = ROOT / "src"

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Face(NamedTuple):
    """A class of the async face, and the module that is made of it."""

    source: str
    """The module of the async class."""
    name: str
    """The name of the async class."""
    target: str
    """The module of the sync class."""
    summary: str
    """The first line of that module's docstring."""
    made: str | None = None
    """The name of the sync class, if it is another."""
    by_hand: frozenset[str] = frozenset()
    """Public methods that are written by hand elsewhere."""


FACES = [
    Face(
        "sojourn.manager",
        "SessionManager",
        "sojourn.blocking.verbs",
        "The verbs of a session manager, without `await`",
        "Verbs",
        frozenset({"open", "close", "app", "store", "on_end"}),
    ),
    Face(
        "sojourn.documents",
        "Documents",
        "sojourn.blocking.documents",
        "Documents without `await`: named bytes with a content type, of a session or of an app",
    ),
    Face(
        "sojourn.history",
        "History",
        "sojourn.blocking.history",
        "History without `await`: chat messages over a session's log",
    ),
    Face(
        "sojourn.checkpoints.verbs",
        "Checkpoints",
        "sojourn.blocking.checkpoints",
        "Checkpoints without `await`: saved bytes of a session, each with the one it came from",
    ),
]

OURS = {
    "AbstractContextManager": "contextlib",
    "Callable": "collections.abc",
    "Checkpoints": "sojourn.blocking.checkpoints",
    "Documents": "sojourn.blocking.documents",
    "Gateway": "sojourn.blocking.gateway",
    "History": "sojourn.blocking.history",
    "Iteration": "sojourn.blocking.iteration",
    "Lease": "sojourn.blocking.lease",
    "Source": "sojourn.blocking.arguments",
    "Span": "sojourn.blocking.spans",
    "as_it_is": "sojourn.blocking.spans",
    "held": "sojourn.blocking.lease",
    "pieces_of": "sojourn.blocking.arguments",
}
"""Names that mean something else in the sync face than in the async one, and where they are."""

HANDLES = {face.name for face in FACES[1:]}
"""What is handed out to be asked later."""

CONVERTED = {"Lease": "held", "Source": "pieces_of"}
"""What an argument of a type goes through on its way."""

WORDS = [("async iterator", "iterator"), ("async with", "with"), ("`await ", "`")]
"""What a docstring of the async face says, and what the sync one says instead."""

RETURNED = [
    (r"AsyncIterator\[(.*)\]", r"Iteration[\1]"),
    (r"AsyncGenerator\[(.*?)(?:, None)?\]$", r"Iteration[\1]"),
    (r"AbstractAsyncContextManager\[", r"AbstractContextManager["),
]
"""What a method of the async face returns, and what the sync one does."""


def in_sync_words(docstring: str) -> str:
    """Return a docstring as the sync face has it."""
    for theirs, ours in WORDS:
        docstring = docstring.replace(theirs, ours)
    return docstring


def in_sync_types(annotation: str) -> str:
    """Return the annotation of what is returned as the sync face has it."""
    for theirs, ours in RETURNED:
        annotation = re.sub(theirs, ours, annotation)
    assert "Async" not in annotation, f"what is the sync face to return for {annotation}?"
    return annotation


# --- from one class to the other ------------------------------------------------------------------


def path_of(module: str) -> Path:
    """Return the file of a module."""
    path = SRC / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _text_of(module: str) -> str:
    return path_of(module).read_text(encoding="utf-8")


def class_in(tree: ast.Module, name: str) -> ast.ClassDef:
    """Return a class at the top of a module."""
    (found,) = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name]
    return found


def verbs_of(face: Face) -> list[Function]:
    """Return the public methods that are handed on."""
    body = class_in(ast.parse(_text_of(face.source)), face.name).body
    return [
        node
        for node in body
        if isinstance(node, Function)
        and not node.name.startswith("_")
        and node.name not in face.by_hand
    ]


def made_from(face: Face) -> str:
    """Return the text of the module that is made of a class."""
    verbs = verbs_of(face)
    parts = [_method(face, verb) for verb in verbs]
    code = "\n\n".join([_class_head(face), *parts])
    text = f'"""{face.summary}.\n\nMade of `{face.source}` by `python -m tests.blocking.mirror`: '
    text += f'change that one.\n"""\n\n{_imports(face, code)}\n\n{code}\n'
    return _formatted(text, path_of(face.target))


def _class_head(face: Face) -> str:
    if face.made is not None:
        return (
            f'class {face.made}:\n    """What `SessionManager` hands on to the loop."""\n\n'
            "    _gateway: Gateway\n"
        )
    tree = ast.parse(_text_of(face.source))
    said = in_sync_words(ast.get_docstring(class_in(tree, face.name), clean=False) or "")
    return (
        f'class {face.name}:\n    """{said}"""\n\n'
        "    def __init__(self, gateway: Gateway,"
        f" of: Callable[[manager.SessionManager], async_face.{face.name}]) -> None:\n"
        f'        """Made by `SessionManager.{face.name.lower()}`."""\n'
        "        of(gateway.bridge().sessions)  # refuses at once what makes no sense\n"
        "        self._gateway = gateway\n"
        "        self._of = of\n"
    )


def _method(face: Face, verb: Function) -> str:
    assert verb.returns is not None
    returns = in_sync_types(ast.unparse(verb.returns))
    said = in_sync_words(ast.get_docstring(verb, clean=False) or "")
    return (
        f"    def {verb.name}({ast.unparse(verb.args)}) -> {returns}:\n"
        f'        """{said}"""\n'
        f"        {_body(face, verb, returns)}\n"
    )


def _body(face: Face, verb: Function, returns: str) -> str:
    """Return what hands a call on, by what it returns."""
    on = "sessions" if face.made is not None else "self._of(sessions)"
    work = f"lambda sessions: {on}.{verb.name}({_arguments(verb)})"
    if returns.startswith("Iteration["):
        return f"return Iteration(self._gateway, {work})"
    if returns.startswith("AbstractContextManager["):
        shown = "Lease" if returns == "AbstractContextManager[Lease]" else "as_it_is"
        return f"return Span(self._gateway, {work}, {shown})"
    if returns in HANDLES:
        return f"return {returns}(self._gateway, {work})"
    how = "run" if isinstance(verb, ast.AsyncFunctionDef) else "ask"
    return ("" if returns == "None" else "return ") + f"self._gateway.{how}({work})"


def _arguments(verb: Function) -> str:
    """Return the arguments of a method as it hands them on."""
    given = [_converted(a) for a in (*verb.args.posonlyargs, *verb.args.args) if a.arg != "self"]
    if verb.args.vararg is not None:
        given.append(f"*{verb.args.vararg.arg}")
    given += [f"{a.arg}={_converted(a)}" for a in verb.args.kwonlyargs]
    if verb.args.kwarg is not None:
        given.append(f"**{verb.args.kwarg.arg}")
    return ", ".join(given)


def _converted(argument: ast.arg) -> str:
    for name in _names_in(argument.annotation):
        if name in CONVERTED:
            return f"{CONVERTED[name]}({argument.arg})"
    return argument.arg


# --- the module around it -------------------------------------------------------------------------


def _names_in(node: ast.AST | None) -> list[str]:
    if node is None:
        return []
    return [n.id for n in ast.walk(node) if isinstance(n, ast.Name)]


def _imports(face: Face, code: str) -> str:
    """Return the imports that the code needs: what runs first, then what only types need."""
    tree = ast.parse(f"from __future__ import annotations\n{code}")
    at_run_time = {name for node in _run_parts(tree) for name in _names_in(node)}
    known = _known_in(face)
    running, typing = ["from __future__ import annotations"], ["if TYPE_CHECKING:"]
    for name in sorted(set(_names_in(tree))):
        if name in {"async_face", "manager"}:
            module, _, last = (
                face.source if name == "async_face" else "sojourn.manager"
            ).rpartition(".")
            line = f"from {module} import {last}" + (f" as {name}" if last != name else "")
        elif name in OURS and f"class {name}" not in code:
            line = f"from {OURS[name]} import {name}"
        elif name in known:
            line = f"from {known[name]} import {name}"
        else:
            continue
        if name in at_run_time:
            running.append(line)
        else:
            typing.append(f"    {line}")
    return "\n".join([*running, "from typing import TYPE_CHECKING", *typing])


def _run_parts(tree: ast.Module) -> list[ast.AST]:
    """Return the statements of all functions: what is not annotation."""
    functions = (node for node in ast.walk(tree) if isinstance(node, Function))
    return [statement for function in functions for statement in function.body]


def _known_in(face: Face) -> dict[str, str]:
    """Return where the names are from that a module of the async face uses."""
    tree = ast.parse(_text_of(face.source))
    known = {
        alias.asname or alias.name: str(node.module)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    for node in tree.body:
        if isinstance(node, ast.Assign):
            known |= dict.fromkeys(_names_in(node.targets[0]), face.source)
    return {name: module for name, module in known.items() if not hasattr(builtins, name)}


def _formatted(text: str, path: Path) -> str:
    """Return code as the formatter and the sorter of imports have it."""
    ruff = shutil.which("ruff", path=str(Path(sys.executable).parent)) or "ruff"
    for command in (["check", "--select", "I,F401", "--fix"], ["format"]):
        done = subprocess.run(
            [ruff, *command, "--quiet", "--stdin-filename", str(path), "-"],
            input=text,
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        text = done.stdout
    return text


def write() -> None:
    """Write the modules anew."""
    for face in FACES:
        path_of(face.target).write_text(made_from(face), encoding="utf-8")


if __name__ == "__main__":
    write()
