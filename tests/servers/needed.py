"""Programs that tests need: where one is missing they are skipped, and fail when CI=1 (or true)
says that nothing may be left out."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest


def missing(package: str) -> NoReturn:
    """A program is not here; `package` is the Debian package that has it."""
    text = f"{package} is not installed (Debian: apt-get install {package})"
    if os.environ.get("CI", "") in ("1", "true"):
        pytest.fail(text)
    pytest.skip(text)


def program(name: str, package: str | None = None) -> str:
    """The path of a program, which is in the Debian package of its name by default."""
    return shutil.which(name) or missing(package or name)
