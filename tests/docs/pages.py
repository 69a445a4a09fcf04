"""The pages of the documentation as data: code blocks, links, headings. No Markdown library."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

_FENCE = re.compile(r"^(```+)(\w*)\s*$")
_HEADING = re.compile(r"^(#{1,6}) +(.+?)\s*$")
_LINK = re.compile(r"(?<!!)\[[^\]\n]+\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the line it starts at."""

    language: str
    text: str
    line: int


@dataclass(frozen=True)
class Page:
    """One Markdown file."""

    path: Path
    blocks: tuple[Block, ...]
    prose: str
    headings: tuple[tuple[int, str, str], ...]
    """Level, title, and the text from there to the next heading of this level or above."""

    @property
    def name(self) -> str:
        """The path from the root of the repository."""
        return self.path.relative_to(ROOT).as_posix()

    def anchors(self) -> set[str]:
        """The fragments that links may name, as GitHub makes them."""
        return {slug(title) for _, title, _ in self.headings}

    def section(self, title: str) -> str | None:
        """The text under a heading."""
        return next((text for _, name, text in self.headings if name == title), None)


def slug(title: str) -> str:
    """The fragment of a heading."""
    plain = re.sub(r"[^\w\- ]", "", title.lower())
    return plain.replace(" ", "-")


def pages() -> list[Page]:
    """All pages for users."""
    paths = [ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CHANGELOG.md")]
    return [read(path) for path in (*paths, *sorted((ROOT / "docs").rglob("*.md")))]


def read(path: Path) -> Page:
    """One page."""
    blocks: list[Block] = []
    prose: list[str] = []
    fence = ""
    language = ""
    start = 0
    inside: list[str] = []
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        mark = _FENCE.match(line)
        if fence and mark and mark[1] == fence and not mark[2]:
            blocks.append(Block(language, "\n".join(inside) + "\n", start))
            fence = ""
        elif fence:
            inside.append(line)
        elif mark:
            fence, language, start, inside = mark[1], mark[2], number, []
        else:
            prose.append(line)
    assert not fence, f"{path}: the block at line {start} has no end"
    return Page(path, tuple(blocks), "\n".join(prose), _headings(prose))


def _headings(prose: list[str]) -> tuple[tuple[int, str, str], ...]:
    found = [
        (index, len(mark[1]), mark[2].replace("`", ""))
        for index, line in enumerate(prose)
        if (mark := _HEADING.match(line))
    ]
    sections: list[tuple[int, str, str]] = []
    for at, (index, level, title) in enumerate(found):
        end = next((i for i, other, _ in found[at + 1 :] if other <= level), len(prose))
        sections.append((level, title, "\n".join(prose[index:end])))
    return tuple(sections)


def links(page: Page) -> list[str]:
    """The targets of the page's links."""
    return _LINK.findall(page.prose)
