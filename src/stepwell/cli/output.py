"""How things look: consoles, tables, times, JSON.

Standard output carries answers and nothing else; standard error carries everything said on the way.
A terminal is written to in its width; a pipe or a file gets whole lines, however long, so that
other programs can read them. Nothing here depends on colour: every state is a word too.
"""

from __future__ import annotations

import json
import os
import sys
import textwrap
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import IO

from pydantic_core import to_json
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from stepwell.authoring.document_run import NAME
from stepwell.cli.options import settings
from stepwell.runtime.history import plain
from stepwell.runtime.views import RunInfo
from stepwell.values import Json

_UNLIMITED = 100_000

STYLES = {
    "queued": "cyan",
    "running": "blue",
    "waiting": "magenta",
    "parked": "bold yellow",
    "completed": "green",
    "done": "green",
    "ok": "green",
    "failed": "bold red",
    "timed_out": "red",
    "cancelled": "yellow",
    "retrying": "yellow",
    "stopped": "yellow",
    "warning": "yellow",
    "problem": "bold red",
}
"""Colours of words of state."""


def stdout() -> Console:
    """Where answers go."""
    return _console(sys.stdout)


def stderr() -> Console:
    """Where everything else goes."""
    return _console(sys.stderr)


def _console(file: IO[str]) -> Console:
    terminal = file.isatty()
    width = None
    if not terminal:
        columns = os.environ.get("COLUMNS", "")
        width = int(columns) if columns.isdigit() and int(columns) > 0 else _UNLIMITED
    return Console(
        file=file,
        width=width,
        no_color=True if settings().no_color else None,
        highlight=False,
        markup=False,
        emoji=False,
        legacy_windows=False,
    )


def document(value: object, file: IO[str] | None = None) -> None:
    """Write one JSON document to standard output (or another file)."""
    out = sys.stdout if file is None else file
    out.write(pretty(value) + "\n")
    out.flush()


def json_line(value: object, file: IO[str] | None = None) -> None:
    """Write one line of JSON to standard output (or another file), at once."""
    out = sys.stdout if file is None else file
    out.write(to_json(plain(value), fallback=str, inf_nan_mode="strings").decode() + "\n")
    out.flush()


def brief(value: object, most: int = 60) -> str:
    """`value` in one line of at most so many characters."""
    flat = plain(value)
    if isinstance(flat, dict) and not flat:
        return ""
    text = flat if isinstance(flat, str) else json.dumps(flat, ensure_ascii=False)
    return cut(" ".join(text.split()), most)


def cut(text: str, most: int) -> str:
    """`text` in at most so many terminal cells."""
    if cell_len(text) <= most:
        return text
    return set_cell_size(text, max(0, most - 1)).rstrip() + "…"


# --- times ---------------------------------------------------------------------------------------


def local(at: float | None) -> str:
    """A moment in local time, with its offset from UTC."""
    if at is None:
        return "-"
    there = datetime.fromtimestamp(at).astimezone()
    offset = there.strftime("%z")
    return f"{there:%Y-%m-%d %H:%M:%S} {offset[:3]}:{offset[3:5]}"


def clock(at: float) -> str:
    """The local time of day, to the millisecond."""
    there = datetime.fromtimestamp(at)
    return f"{there:%H:%M:%S}.{there.microsecond // 1000:03d}"


def ago(at: float, now: float | None = None) -> str:
    """How long ago (or ahead) a moment is, roughly."""
    seconds = (time.time() if now is None else now) - at
    if seconds < -1:
        return f"in {rough(-seconds)}"
    return "now" if seconds < 1 else f"{rough(seconds)} ago"


def rough(seconds: float) -> str:
    """A length of time in one unit."""
    for size, unit in ((86400 * 2, "d"), (3600 * 2, "h"), (60 * 2, "min")):
        if seconds >= size:
            return f"{seconds / (size / 2):.0f} {unit}"
    return f"{seconds:.0f} s"


def span(seconds: float | None) -> str:
    """A length of time, as exactly as one wants to read it."""
    if seconds is None:
        return "-"
    if seconds < 0.9995:
        return f"{max(0.0, seconds) * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, unit, part, small in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {unit}" + (f" {rest} {small}" if rest else "")
    return f"{whole} s"


# --- tables --------------------------------------------------------------------------------------


def table(
    console: Console,
    header: Sequence[str],
    rows: Sequence[Sequence[str | Text]],
    *,
    give: Sequence[int] = (),
    below: int | None = None,
    indent: int = 0,
) -> None:
    """Columns side by side, as wide as their contents; words of state get their colour.

    Where there is no room for all of them, on a narrow terminal, the column `below` has lines of
    its own, under each row; if that is not enough the columns `give` are cut, in that order, down
    to eight cells each. Names with dots in them lose their beginning then, all else its end.
    """
    cells = [[c if isinstance(c, Text) else _styled(c) for c in row] for row in rows]
    widths = [
        max(cell_len(header[n]), *(cell_len(row[n].plain) for row in cells)) if cells else 0
        for n in range(len(header))
    ]
    over = indent + sum(widths) + 2 * (len(widths) - 1) - console.width
    under: list[Text] = []
    if over > 0 and below is not None:
        over -= widths[below] + 2
        header = [*header[:below], *header[below + 1 :]]
        under = [row.pop(below) for row in cells]
        widths.pop(below)
        give = [n - (n > below) for n in give if n != below]
    for column in give:
        if over > 0:
            less = min(over, max(0, widths[column] - 8))
            widths[column] -= less
            over -= less
    if any(header):
        _print(console, [Text(h.upper(), style="dim") for h in header], widths, indent)
    for n, row in enumerate(cells):
        _print(console, row, widths, indent)
        if under and under[n].plain:
            _print(console, [under[n]], [console.width - indent - 2], indent + 2)


def _print(console: Console, row: Sequence[Text], widths: Sequence[int], indent: int) -> None:
    line = Text(" " * indent)
    for cell, width in zip(row, widths, strict=True):
        shown = cell
        if cell_len(cell.plain) > width:
            shown = Text(_shortened(cell.plain, width), style=cell.style)
        line.append_text(shown)
        line.append(" " * (width - cell_len(shown.plain) + 2))
    line.rstrip()
    console.print(line, soft_wrap=True)


def _shortened(text: str, most: int) -> str:
    """A cell in less room. The end of a workflow's name says more than the packages before it."""
    if "." not in text or not all(part.isidentifier() for part in text.split(".")):
        return cut(text, most)
    while cell_len(text) >= most:
        text = text[1:]
    return f"…{text}"


def _styled(text: str) -> Text:
    word = text.partition(" ")[0]
    return Text(" ".join(text.split()), style=STYLES.get(word, ""))


def facts(console: Console, rows: Iterable[tuple[str, str | Text]]) -> None:
    """Names and values, one under the other; long values go on under their beginning."""
    shown = [(name, value) for name, value in rows if value]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        fact(console, name, value, width)


def command(text: str) -> Text:
    """What is to be copied, a command or JSON: never wrapped by us, so that it stays what it is."""
    return Text(text, no_wrap=True)


def paragraph(console: Console, head: Text, text: str) -> None:
    """A text beside a head, going on under its beginning."""
    width = cell_len(head.plain) + 2 if head else 0
    for number, line in enumerate(_wrapped(text, console.width - width)):
        start = Text.assemble(head, "  ") if head and number == 0 else Text(" " * width)
        console.print(Text.assemble(start, line), soft_wrap=True)


def fact(console: Console, name: str, value: str | Text, width: int) -> None:
    """One name and its value."""
    text = value if isinstance(value, Text) else Text(value)
    lines = text.plain.splitlines()
    if not text.no_wrap:
        lines = [part for line in lines for part in _wrapped(line, console.width - width - 2)]
    for number, line in enumerate(lines):
        head = name.ljust(width) if number == 0 else " " * width
        style = "bold red" if name == "error" else "dim"
        console.print(Text.assemble((head, style), "  ", (line, text.style)), soft_wrap=True)


def _wrapped(text: str, width: int) -> list[str]:
    lines = textwrap.wrap(text, max(20, width), break_on_hyphens=False, break_long_words=False)
    return lines or [""]


def name_of(run: RunInfo) -> str:
    """What a run is a run of: its document, or else its workflow."""
    return run.correlation if run.workflow == NAME and run.correlation else run.workflow


def error_text(error: Mapping[str, Json] | None, *, place: bool = False) -> str:
    """An error as it stands with a run, in one line; `place`: with where it came from."""
    if not error:
        return ""
    kind = str(error.get("type") or "").removeprefix("builtins.").removeprefix("stepwell.errors.")
    message = str(error.get("message") or "")
    where = f" ({error['where']})" if place and error.get("where") else ""
    return f"{kind}: {message}{where}" if message else f"{kind}{where}"


def pretty(value: object) -> str:
    """`value` as indented JSON."""
    return to_json(plain(value), indent=2, fallback=str, inf_nan_mode="strings").decode()
