"""What importing costs, what the kernel may know, and that every public name is there."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import stepwell

SRC = Path(__file__).parent.parent / "src"
KERNEL = SRC / "stepwell" / "kernel"

# All that a decision may be made of. No clock, no I/O, no randomness, no event loop: what is not
# listed is refused, so a module that nobody thought of is refused too.
KERNEL_MAY_IMPORT = {
    "__future__",
    "collections",
    "dataclasses",
    "enum",
    "hashlib",
    "heapq",
    "typing",
    "stepwell.errors",
    "stepwell.kernel",
    "stepwell.options",
    "stepwell.patch",
    "stepwell.retry",
    "stepwell.values",
}

# Built-in functions that would get around the list above, or around purity itself.
KERNEL_MAY_NOT_CALL = {"__import__", "breakpoint", "compile", "eval", "exec", "input", "open"}


def impurities(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """What `source`, the text of `module`, imports or calls that a kernel module may not.

    `from package import name` counts as `package.name`, which may be a module.
    Imports anywhere count: inside functions and under `TYPE_CHECKING` too.
    """
    found: list[str] = []
    package = module.split(".") if is_package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        imported: list[str] = []
        match node:
            case ast.Import():
                imported = [alias.name for alias in node.names]
            case ast.ImportFrom():
                base = package[: len(package) - node.level + 1] if node.level else []
                origin = ".".join([*base, *([node.module] if node.module else [])])
                imported = [f"{origin}.{alias.name}" for alias in node.names]
            case ast.Call(func=ast.Name(id=name)) if name in KERNEL_MAY_NOT_CALL:
                found.append(f"{module}:{node.lineno} calls {name}()")
            case _:
                pass
        for name in imported:
            if not any(f"{name}.".startswith(f"{allowed}.") for allowed in KERNEL_MAY_IMPORT):
                line = getattr(node, "lineno", 0)
                found.append(f"{module}:{line} imports {name}")
    return found


def test_the_kernel_imports_nothing_that_could_touch_the_world() -> None:
    files = sorted(KERNEL.rglob("*.py"))
    assert files, f"no kernel under {KERNEL}"
    found: list[str] = []
    for file in files:
        parts = list(file.relative_to(SRC).with_suffix("").parts)
        is_package = parts[-1] == "__init__"
        module = ".".join(parts[:-1] if is_package else parts)
        found += impurities(file.read_text(encoding="utf-8"), module, is_package=is_package)
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "source",
    [
        "import asyncio",
        "import os.path",
        "import time as clock",
        "from datetime import datetime",
        "from typing import Any\nfrom random import random",
        "import typing_extensions",
        "import pydantic",
        "import typingx",
        "import stepwell",
        "from stepwell import Workflow",
        "from stepwell.runtime import engine",
        "from ..runtime import engine",
        "from .. import stores",
        "def f():\n    import json",
        "if TYPE_CHECKING:\n    from stepwell.authoring import program",
        "__import__('time')",
        "open('x')",
    ],
)
def test_an_impure_kernel_module_is_found_out(source: str) -> None:
    assert len(impurities(source, "stepwell.kernel.decide")) == 1


@pytest.mark.parametrize(
    "source",
    [
        "from __future__ import annotations",
        "from collections.abc import Iterator",
        "import heapq, hashlib",
        "from typing import assert_never",
        "from stepwell.values import Json",
        "from stepwell import values",
        "from ..values import Json",
        "from .journal import Entry",
        "from . import journal",
    ],
)
def test_a_pure_kernel_module_passes(source: str) -> None:
    assert impurities(source, "stepwell.kernel.decide") == []


def test_importing_stepwell_loads_no_other_module_of_its_own_and_none_of_others() -> None:
    program = (
        "import json, sys\n"
        "before = set(sys.modules)\n"
        "import stepwell\n"
        "print(json.dumps(sorted(set(sys.modules) - before)))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(SRC)},
    )
    loaded: list[str] = json.loads(ran.stdout)
    foreign = [name for name in loaded if name.partition(".")[0] not in sys.stdlib_module_names]
    assert foreign == ["stepwell", "stepwell._version"]
    assert "asyncio" not in loaded


@pytest.mark.parametrize("name", stepwell.__all__)
def test_every_public_name_resolves_and_is_listed(name: str) -> None:
    assert getattr(stepwell, name) is not None
    assert name in dir(stepwell)


def test_an_unknown_name_is_an_ordinary_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"^module 'stepwell' has no attribute 'Wrokflow'$"):
        getattr(stepwell, "Wrokflow")  # noqa: B009  a type checker would refuse stepwell.Wrokflow


def test_no_public_name_hides_a_submodule() -> None:
    directory = SRC / "stepwell"
    submodules = {path.stem for path in directory.glob("*.py")}
    submodules |= {path.parent.name for path in directory.glob("*/__init__.py")}
    assert not submodules & set(stepwell.__all__)


def test_the_retry_policies_are_a_module_of_their_own() -> None:
    assert importlib.import_module("stepwell.retry_policy") is vars(stepwell)["retry_policy"]
