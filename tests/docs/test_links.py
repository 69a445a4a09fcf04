"""Links lead somewhere, commands exist, and what proves a promise is there."""

from __future__ import annotations

import re

import pytest
from tests.docs.pages import ROOT, Page, links, pages, read

from stepwell.cli.main import cli

BY_PATH = {page.path: page for page in pages()}


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_internal_links_lead_somewhere(page: Page) -> None:
    for target in links(page):
        if re.match(r"^[a-z]+:", target):
            continue
        path, _, fragment = target.partition("#")
        found = (page.path.parent / path).resolve() if path else page.path
        assert found.exists(), f"{page.name} links to {target}"
        assert ROOT in (found, *found.parents), f"{page.name} links out of the repository: {target}"
        if fragment and found.suffix == ".md":
            there = BY_PATH.get(found) or read(found)
            assert fragment in there.anchors(), f"{page.name} links to {target}"


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached = {ROOT / "README.md"}
    todo = list(reached)
    while todo:
        page = BY_PATH[todo.pop()]
        for target in links(page):
            path = (page.path.parent / target.partition("#")[0]).resolve()
            if path in BY_PATH and path not in reached:
                reached.add(path)
                todo.append(path)
    assert sorted(p.name for p in BY_PATH.values() if p.path not in reached) == []


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_commands_that_pages_name_exist(page: Page) -> None:
    shell = "\n".join(b.text for b in page.blocks if b.language == "sh")
    shell += "\n" + "\n".join(re.findall(r"`([^`\n]+)`", page.prose))
    known = cli.list_commands(None)  # type: ignore[arg-type] # the group does not look at it
    for command in re.findall(r"^(?:\.venv/bin/)?stepwell ([a-z]+)", shell, re.MULTILINE):
        assert command in known, f"{page.name}: stepwell {command}"
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for target in re.findall(r"^make ([a-z]+)", shell, re.MULTILINE):
        assert target in targets, f"{page.name}: make {target}"


def test_the_promises_of_the_readme_are_eleven_and_each_names_a_test_that_is_there() -> None:
    section = read(ROOT / "README.md").section("What it promises")
    assert section is not None
    rows = re.findall(r"^\| (P\d+) \|.*\|(.*)\|$", section, re.MULTILINE)
    assert [name for name, _ in rows] == [f"P{n}" for n in range(1, 12)]
    for name, proof in rows:
        named = re.findall(r"`(tests/[\w/.*]+)`", proof)
        assert named, f"{name} names no test"
        for path in named:
            found = [file for file in ROOT.glob(path) if file.is_file()]
            assert found, f"{name}: {path} is not there"
            assert all("def test_" in file.read_text(encoding="utf-8") for file in found), path


def test_the_readme_has_a_place_for_measured_speed() -> None:
    assert "<!-- speed -->" in (ROOT / "README.md").read_text(encoding="utf-8")
