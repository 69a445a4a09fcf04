"""Every Python block of the documentation runs, and prints what the page says it prints.

The Python blocks of a page are one program, in their order, run in an empty folder with warnings as
errors. A block of the language `output` right after a Python block is what that one prints; a
Python block without one prints nothing.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.docs.pages import ROOT, Block, Page, pages

MARK = "\x1e"
PAGES = [page for page in pages() if any(b.language == "python" for b in page.blocks)]
LANGUAGES = {"python", "output", "text", "sh", "console", "mermaid", "json", "toml", "sql", "yaml"}


def expected(page: Page) -> list[tuple[Block, str]]:
    """Each Python block with what it is said to print."""
    found: list[tuple[Block, str]] = []
    for number, block in enumerate(page.blocks):
        if block.language != "python":
            continue
        after = page.blocks[number + 1] if number + 1 < len(page.blocks) else None
        said = after.text if after is not None and after.language == "output" else ""
        found.append((block, said))
    return found


def program(page: Page) -> str:
    """The page's blocks as one module; line numbers are those of the page."""
    lines = [""] * page.path.read_text(encoding="utf-8").count("\n")
    for block, _ in expected(page):
        body = block.text.splitlines()
        lines[block.line : block.line + len(body)] = body
        lines[block.line + len(body)] = f"print({MARK!r}, flush=True)"
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_run_and_print_what_is_said(page: Page, tmp_path: Path) -> None:
    script = tmp_path / "page.py"
    script.write_text(program(page), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", "page.py"],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT / "src"),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, f"{page.name}:\n{done.stdout}\n{done.stderr}"
    printed = done.stdout.split(MARK + "\n")[:-1]
    for (block, said), got in zip(expected(page), printed, strict=True):
        assert got == said, f"{page.name}, line {block.line}"


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_blocks_say_what_they_are(page: Page) -> None:
    for number, block in enumerate(page.blocks):
        assert block.language in LANGUAGES, f"{page.name}, line {block.line}"
        if block.language == "output":
            before = page.blocks[number - 1]
            assert number, f"{page.name}, line {block.line}"
            assert before.language == "python", f"{page.name}, line {block.line}"


def test_the_first_workflow_of_the_readme_has_fifteen_lines_at_most() -> None:
    first = next(b for b in pages()[0].blocks if b.language == "python")
    assert len([line for line in first.text.splitlines() if line.strip()]) <= 15


def test_the_readme_has_exactly_two_set_up_commands() -> None:
    text = (
        pages()[0].prose + "\n" + "".join(b.text for b in pages()[0].blocks if b.language == "sh")
    )
    assert set(re.findall(r"^make (\w+)", text, re.MULTILINE)) == {"demo", "test"}
