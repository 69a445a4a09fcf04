"""How wide a text will be, and texts made safe for each format.

Widths are those of Helvetica and Arial, which the drawings ask for first; other fonts are a little
wider, so what is measured here is rounded up. This module refuses to know where a text goes.
"""

from __future__ import annotations

import re
import unicodedata
from html import escape

_WIDTHS = {
    191: "'",
    222: "ijl",
    260: "|",
    278: " !,./:;I[\\]ft",
    333: "()-`r",
    334: "{}",
    355: '"',
    389: "*",
    469: "^",
    500: "Jcksvxyz",
    556: "#$0123456789?L_abdeghnopqu",
    584: "+<=>~",
    611: "FTZ",
    667: "&ABEKPSVXY",
    722: "CDHNRUw",
    778: "GOQ",
    833: "Mm",
    889: "%",
    944: "W",
    1015: "@",
}
_WIDTH = {letter: width / 1000 for width, letters in _WIDTHS.items() for letter in letters}

ROOM = 1.08
"""What other fonts may be wider."""


def width(text: str, size: float, *, bold: bool = False) -> float:
    """The width of a line in pixels, at a font size of `size` pixels.

    >>> width("WWW", 10) > width("iii", 10)
    True
    """
    total = 0.0
    for letter in text:
        known = _WIDTH.get(letter)
        if known is None:
            if unicodedata.combining(letter):
                continue
            known = 1.0 if unicodedata.east_asian_width(letter) in "WF" else 0.66
        total += known
    return total * size * ROOM * (1.07 if bold else 1.0)


def cut(text: str, most: int, mark: str = "\u2026") -> str:
    """The text in at most `most` characters; `mark` stands where it was cut.

    >>> cut("abcdef", 4, "*")
    'abc*'
    """
    return text if len(text) <= most else text[: max(0, most - len(mark))] + mark


_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


def line(text: str) -> str:
    """The text as one line, without characters that XML and people cannot read."""
    return " ".join(_UNPRINTABLE.sub("\ufffd", text).split())


def xml(text: str) -> str:
    """Text for XML and HTML, in content and in quoted attributes; lines are kept."""
    return escape(_UNPRINTABLE.sub("\ufffd", text), quote=True)


_MERMAID = {"#": "#35;", "&": "#amp;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "`": "#96;"}


def mermaid(text: str) -> str:
    """Text for a quoted Mermaid label."""
    return "".join(_MERMAID.get(letter, letter) for letter in line(text))


def dot(text: str) -> str:
    """Text as a quoted DOT string."""
    return '"' + line(text).replace("\\", "\\\\").replace('"', '\\"') + '"'
