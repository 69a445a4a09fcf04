"""Where a step may go, read from its code and without running it.

The source of a method is parsed, and every call of one of the functions of `returns` is looked at,
under whatever name it was imported. A target that is written out (`self.ship`, `"ship"`, or one of
two as in `self.ship if paid else self.ask`) is known; one that is computed is not, and is said to
be unknown. A plain method of the class that is called (`return self._next()`) is read as well, one
level deep. Code whose source can't be had (typed into a prompt) says nothing at all.

This module refuses to guess: it follows no variables and no other functions.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from types import FunctionType, ModuleType
from typing import Any, cast

from stepwell.authoring.machine import returns


@dataclass(frozen=True, slots=True)
class Reach:
    """What the code of a step says of where it goes.

    Attributes:
        targets: the steps that it names, in the order of the code.
        labels: for each way on (target, word): "goto", "sleep 1 d", "signal approved",
            "event paid", "timeout 7 d", "subflow Shipping".
        implicit: whether it waits without naming the step that follows; `next_words` says for what.
        again: whether it sleeps and then runs again itself; `again_words` says for how long.
        ends: "complete", "fail" or both, if it can end the run.
        unknown: whether some target could not be read from the code, or nothing could.
        read: whether there was source code to read.
        subflows: the classes that it runs, as they are written in the code.
    """

    targets: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    implicit: bool = False
    again: bool = False
    ends: tuple[str, ...] = ()
    unknown: bool = False
    read: bool = True
    next_words: tuple[str, ...] = ()
    again_words: tuple[str, ...] = ()
    subflows: tuple[str, ...] = ()


_KINDS: dict[object, str] = {
    returns.goto: "goto",
    returns.sleep: "sleep",
    returns.wait_for_event: "event",
    returns.run_subflow: "subflow",
    returns.complete: "complete",
    returns.fail: "fail",
}

_PLACES: dict[str, tuple[tuple[str, int | None], ...]] = {
    "goto": (("step", 0),),
    "sleep": (("then", 1),),
    "signal": (("then", 3), ("on_timeout", 2)),
    "event": (("then", 3), ("on_timeout", 2)),
    "subflow": (("on_complete", 1),),
}
"""For each kind of call, its arguments that are targets: their names and positions."""


def scan(func: Callable[..., Any], cls: type | None = None) -> Reach:
    """What the code of `func`, a step of `cls`, says of where it goes."""
    plain = inspect.unwrap(func)
    tree = _parsed(plain)
    if tree is None:
        return Reach(unknown=True, read=False)
    found = _Found(cls)
    found.read(plain, tree)
    for helper in _helpers(plain, tree, cls):
        inner = _parsed(helper)
        if inner is not None:
            found.read(helper, inner)
    labels = tuple(dict.fromkeys(found.labels))
    nothing = not (labels or found.ends or found.next_words or found.again_words)
    return Reach(
        tuple(dict.fromkeys(target for target, _ in labels)),
        labels,
        bool(found.next_words),
        bool(found.again_words),
        tuple(dict.fromkeys(found.ends)),
        found.unknown or nothing,
        True,
        tuple(dict.fromkeys(found.next_words)),
        tuple(dict.fromkeys(found.again_words)),
        tuple(dict.fromkeys(found.subflows)),
    )


def _parsed(func: Callable[..., Any]) -> ast.AST | None:
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(func)))
    except (OSError, TypeError, SyntaxError):
        return None


def _helpers(func: Callable[..., Any], tree: ast.AST, cls: type | None) -> Iterator[FunctionType]:
    """The methods of the class that a step calls."""
    me = _me(func)
    seen: set[str] = set()
    for node in ast.walk(tree):
        called = node.func if isinstance(node, ast.Call) else None
        if not (isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name)):
            continue
        if called.value.id != me or called.attr in seen:
            continue
        seen.add(called.attr)
        method: object = inspect.getattr_static(cls, called.attr, None)
        if isinstance(method, FunctionType) and inspect.unwrap(method) is not func:
            yield cast(FunctionType, inspect.unwrap(method))


def _me(func: Callable[..., Any]) -> str:
    """What a method calls its instance."""
    code: Any = getattr(func, "__code__", None)
    return code.co_varnames[0] if code is not None and code.co_argcount else "self"


class _Found:
    """What was found in the code of a step and of the methods that it calls."""

    def __init__(self, cls: type | None) -> None:
        self.cls = cls
        self.me = "self"
        self.names: dict[str, object] = {}
        self.labels: list[tuple[str, str]] = []
        self.next_words: list[str] = []
        self.again_words: list[str] = []
        self.ends: list[str] = []
        self.subflows: list[str] = []
        self.unknown = False

    def read(self, func: Callable[..., Any], tree: ast.AST) -> None:
        """Look at every call in the code of a function."""
        self.me = _me(func)
        self.names = known_names(func)
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                self.names.update(_imported(node))
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        for node in sorted(calls, key=lambda call: (call.lineno, call.col_offset)):
            kind = _kind(node.func, self.names)
            if kind is not None:
                self.call(kind, node)

    def call(self, kind: str, node: ast.Call) -> None:
        """A call of one of the functions of `returns`."""
        if kind in ("complete", "fail"):
            self.ends.append(kind)
            return
        hidden = any(keyword.arg is None for keyword in node.keywords) or any(
            isinstance(argument, ast.Starred) for argument in node.args
        )
        self.unknown |= hidden  # f(*arguments, **options)
        word = self.word(kind, node)
        for name, place in _PLACES[kind]:
            value = _argument(node, name, place)
            if value is None or (isinstance(value, ast.Constant) and value.value is None):
                if name == "then" and not hidden:
                    (self.again_words if kind == "sleep" else self.next_words).append(word)
                continue
            said = word
            if name == "on_timeout":
                said = self.lasting("timeout", _argument(node, "timeout", 1))
            for target in self.targets(value):
                if target is None:
                    self.unknown = True
                else:
                    self.labels.append((target, said))

    def word(self, kind: str, node: ast.Call) -> str:
        """What is written on the arrow."""
        if kind in ("signal", "event"):
            name = _argument(node, "name", 0)
            return f"{kind} {name.value if isinstance(name, ast.Constant) else '...'}"
        if kind == "sleep":
            return self.lasting(kind, _argument(node, "duration", 0))
        if kind == "subflow":
            child = _argument(node, "workflow", 0)
            if isinstance(child, ast.Name | ast.Attribute):
                self.subflows.append(ast.unparse(child))
                return f"{kind} {self.subflows[-1].rpartition('.')[2]}"
        return kind

    def lasting(self, word: str, value: ast.expr | None) -> str:
        """A word, and how long, where that is written out."""
        seconds = None
        if isinstance(value, ast.Constant) and isinstance(value.value, int | float):
            seconds = float(value.value)
        elif isinstance(value, ast.Call) and _value(value.func, self.names) is timedelta:
            given = {
                k.arg: k.value.value for k in value.keywords if isinstance(k.value, ast.Constant)
            }
            if not value.args and len(given) == len(value.keywords) and None not in given:
                try:
                    seconds = timedelta(**cast("dict[str, float]", given)).total_seconds()
                except (TypeError, OverflowError):
                    seconds = None  # it will raise when it is run, too
        return word if seconds is None else f"{word} {lasting(seconds)}"

    def targets(self, value: ast.expr) -> Iterator[str | None]:
        """The steps that an expression names; None for one that is not written out."""
        if isinstance(value, ast.IfExp):
            yield from self.targets(value.body)
            yield from self.targets(value.orelse)
            return
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            yield value.value
            return
        owners = (self.me,) if self.cls is None else (self.me, self.cls.__name__)
        if (
            isinstance(value, ast.Attribute)
            and isinstance(value.value, ast.Name)
            and value.value.id in owners
        ):
            yield value.attr
            return
        yield None


def lasting(seconds: float) -> str:
    """A duration as it was meant: `1 d`, `36 h`, `90 s`."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


def _argument(node: ast.Call, name: str, place: int | None) -> ast.expr | None:
    for keyword in node.keywords:
        if keyword.arg == name:
            return keyword.value
    if place is not None and place < len(node.args):
        found = node.args[place]
        if not any(isinstance(argument, ast.Starred) for argument in node.args[: place + 1]):
            return found
    return None


def _imported(node: ast.Import | ast.ImportFrom) -> Iterator[tuple[str, object]]:
    """What an import inside of a function binds, if its module is loaded already."""
    for alias in node.names:
        if isinstance(node, ast.ImportFrom):
            owner = sys.modules.get(node.module or "") if not node.level else None
            found = getattr(owner, alias.name, None)
            yield alias.asname or alias.name, found
        elif alias.asname is not None:
            yield alias.asname, sys.modules.get(alias.name)
        else:
            top = alias.name.partition(".")[0]
            yield top, sys.modules.get(top)


def known_names(func: Callable[..., Any]) -> dict[str, object]:
    """What the names in the code of `func` stand for."""
    code: Any = getattr(func, "__code__", None)
    names: dict[str, object] = dict(vars(builtins))
    names.update(cast("dict[str, object]", getattr(func, "__globals__", {})))
    if code is not None:
        cells = cast("tuple[Any, ...]", getattr(func, "__closure__", None) or ())
        for name, cell in zip(code.co_freevars, cells, strict=False):
            try:
                names[name] = cell.cell_contents
            except ValueError:  # not bound yet
                continue
    return names


def _kind(func: ast.expr, names: dict[str, object]) -> str | None:
    """Which of our functions an expression is."""
    value = _value(func, names)
    if value is None:
        return None
    try:
        kind = _KINDS.get(value)
    except TypeError:  # unhashable: none of ours
        return None
    if kind is not None:
        return kind
    if getattr(value, "__self__", None) is returns.wait:
        return "signal" if getattr(value, "__name__", "") == "for_signal" else "event"
    return None


def _value(expr: ast.expr, names: dict[str, object]) -> object | None:
    if isinstance(expr, ast.Name):
        return names.get(expr.id)
    if isinstance(expr, ast.Attribute):
        owner = _value(expr.value, names)
        # Only modules and our own `wait`: looking up attributes of other things may run code.
        if isinstance(owner, ModuleType) or owner is returns.wait:
            return getattr(owner, expr.attr, None)
    return None
