"""The terminal: text, progress and tables in 80 columns; colours when rich is there to make them.

Where rich is missing, or the output is no terminal, the same words come out plain.
"""

from __future__ import annotations

import asyncio
import select
import sys
from collections.abc import Sequence
from textwrap import wrap
from typing import Literal

try:
    from rich.console import Console
except ImportError:  # the demonstration needs no extras
    Console = None

Tone = Literal["plain", "title", "good", "bad", "faint", "ask"]

WIDTH = 78
_STYLES: dict[Tone, str] = {
    "plain": "",
    "title": "bold cyan",
    "good": "green",
    "bad": "bold red",
    "faint": "dim",
    "ask": "bold yellow",
}


class Screen:
    """Says things, line by line."""

    def __init__(self) -> None:
        terminal = Console is not None and sys.stdout.isatty()
        self._console = Console(highlight=False, markup=False) if terminal and Console else None

    def say(self, text: str = "", tone: Tone = "plain", *, indent: int = 0) -> None:
        """Print a paragraph."""
        space = " " * indent
        for line in wrap(text, WIDTH - indent) or [""]:
            self.line(space + line, tone)

    def line(self, text: str, tone: Tone = "plain") -> None:
        """Print a line as it is."""
        if self._console is None:
            print(text, flush=True)
        else:
            self._console.print(text, style=_STYLES[tone], soft_wrap=True)

    def heading(self, text: str) -> None:
        """Print the heading of a part."""
        self.line("")
        self.line(f"== {text} {'=' * max(0, WIDTH - 4 - len(text))}", "title")

    def progress(self, done: int, total: int, text: str) -> None:
        """Print how far the work is."""
        bar = "#" * done + "." * (total - done)
        self.line(f"   [{bar}] {done}/{total}  {text}")

    def table(self, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table; the first column is text, the others are centred."""
        sizes = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]

        def laid_out(row: Sequence[str]) -> str:
            first, *others = row
            cells = [cell.center(size) for cell, size in zip(others, sizes[1:], strict=True)]
            return "   " + "  ".join([first.ljust(sizes[0]), *cells]).rstrip()

        self.line(laid_out(head), "title")
        self.line("   " + "  ".join("-" * size for size in sizes), "faint")
        for row in rows:
            self.line(laid_out(row), "ask" if "2" in row else "plain")

    async def ask(self, text: str, default: str, seconds: float) -> str:
        """Ask the person at the terminal; after `seconds`, or without a person, the default."""
        if not (sys.stdin.isatty() and sys.stdout.isatty()) or sys.platform == "win32":
            self.line(f"   ?  {text}", "ask")
            self.line(f"   >  {default}   (nobody is at a terminal, so this answers itself)")
            return default
        self.line(f"   ?  {text} [Enter, or {seconds:.0f} s: {default}]", "ask")
        print("   >  ", end="", flush=True)
        ready, _, _ = await asyncio.to_thread(select.select, [sys.stdin], [], [], seconds)
        answer = sys.stdin.readline().strip() if ready else ""
        if not ready:
            print()
        if not answer:
            self.line(f"   >  {default}")
        return answer or default
