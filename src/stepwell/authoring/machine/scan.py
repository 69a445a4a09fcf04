"""Where a step may go, read from its code and without running it.

The source of a method is parsed, and every call of one of the functions of `returns` is looked at,
under whatever name it was imported. A target that is written out (`self.ship`, `"ship"`) is known;
one that is computed is not, and is said to be unknown. Code whose source can't be had (typed into a
prompt) says nothing at all.

This module refuses to guess: it follows no variables and no helper functions.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, cast

from stepwell.authoring.machine import returns


@dataclass(frozen=True, slots=True)
class Reach:
    """What the code of a step says of where it goes.

    Attributes:
        targets: the steps that it names, in the order of the code.
        labels: for each way on (target, word): "goto", "sleep 1 d", "signal approved" and the like.
        implicit: whether it waits without naming the step that follows.
        again: whether it sleeps and then runs again itself.
        ends: "complete", "fail" or both, if it can end the run.
        unknown: whether some target could not be read from the code.
        read: whether there was source code to read.
    """

    targets: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    implicit: bool = False
    again: bool = False
    ends: tuple[str, ...] = ()
    unknown: bool = False
    read: bool = True


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


def scan(func: Callable[..., Any]) -> Reach:
    """What the code of `func` says of where it goes."""
    plain = inspect.unwrap(func)
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(plain)))
    except (OSError, TypeError, SyntaxError, IndentationError):
        return Reach(unknown=True, read=False)
    names = _names(plain)
    found = _Found()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            kind = _kind(node.func, names)
            if kind is not None:
                found.call(kind, node)
    return Reach(
        tuple(dict.fromkeys(target for target, _ in found.labels)),
        tuple(dict.fromkeys(found.labels)),
        found.implicit,
        found.again,
        tuple(dict.fromkeys(found.ends)),
        found.unknown,
    )


class _Found:
    def __init__(self) -> None:
        self.labels: list[tuple[str, str]] = []
        self.ends: list[str] = []
        self.implicit = self.again = self.unknown = False

    def call(self, kind: str, node: ast.Call) -> None:
        if kind in ("complete", "fail"):
            self.ends.append(kind)
            return
        if any(keyword.arg is None for keyword in node.keywords):
            self.unknown = True  # **options
        word = kind
        if kind in ("signal", "event"):
            name = _argument(node, "name", 0)
            said = name.value if isinstance(name, ast.Constant) else "..."
            word = f"{kind} {said}"
        for name, place in _PLACES[kind]:
            value = _argument(node, name, place)
            if value is None or (isinstance(value, ast.Constant) and value.value is None):
                if name == "then" and kind == "sleep":
                    self.again = True
                elif name == "then":
                    self.implicit = True
                continue
            target = _target(value)
            if target is None:
                self.unknown = True
            else:
                self.labels.append((target, "timeout" if name == "on_timeout" else word))


def _argument(node: ast.Call, name: str, place: int | None) -> ast.expr | None:
    for keyword in node.keywords:
        if keyword.arg == name:
            return keyword.value
    if place is not None and place < len(node.args):
        return node.args[place]
    return None


def _target(value: ast.expr) -> str | None:
    """The step that an expression names, if it is written out."""
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        return value.value
    if (
        isinstance(value, ast.Attribute)
        and isinstance(value.value, ast.Name)
        and value.value.id == "self"
    ):
        return value.attr
    return None


def _names(func: Callable[..., Any]) -> dict[str, object]:
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
