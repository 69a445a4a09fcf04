"""HTML that can't be broken out of: text becomes markup in one place, which escapes it."""

from __future__ import annotations

import html
from collections.abc import Iterable

STYLE = """
:root{color-scheme:light dark;--line:#8884;--soft:#8881;--dim:#666;--bad:#b3261e;--good:#2e7d32;
--link:#0b57d0}
@media (prefers-color-scheme:dark){:root{--dim:#a0a8b0;--bad:#ff8a80;--good:#81c995;--link:#8ab4f8}}
body{font:15px/1.5 system-ui,sans-serif;max-width:64rem;margin:1.2rem auto 3rem;padding:0 1rem}
h1{font-size:1.4rem;margin:.2rem 0 .6rem;overflow-wrap:anywhere}
h2{font-size:1.1rem;margin:1.6rem 0 .4rem}
p{overflow-wrap:anywhere}
a{color:var(--link)}
nav{display:flex;flex-wrap:wrap;gap:.2rem 1rem}
code,pre{font-family:ui-monospace,monospace;font-size:.9em}
pre{background:var(--soft);padding:.7rem;overflow:auto;border-radius:.3rem;max-height:24rem;
white-space:pre-wrap;overflow-wrap:anywhere}
td pre{margin:0}
.scroll{overflow-x:auto}
table{border-collapse:collapse}
th,td{text-align:left;vertical-align:top;padding:.25rem .9rem .25rem 0;
border-bottom:1px solid var(--line)}
th{font-weight:600;color:var(--dim)}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
td,th,.short{white-space:nowrap}
td.long{white-space:normal;overflow-wrap:anywhere;min-width:9rem;width:100%}
td.name{white-space:normal;overflow-wrap:anywhere;min-width:6rem}
.dim{color:var(--dim)}
.bad{color:var(--bad);font-weight:600}
.good{color:var(--good)}
.loud{background:#b3261e;color:#fff;padding:.7rem 1rem;border-radius:.3rem;font-weight:600}
.drawing{overflow:auto;border:1px solid var(--line);border-radius:.3rem}
.drawing svg{display:block;margin:0 auto}
details{border-top:1px solid var(--line);padding:.5rem 0}summary{cursor:pointer}
.m{display:inline-block;min-width:4.5rem;font-weight:700}
summary .dim{margin-left:1rem}
@media (max-width:44rem){.wide{display:none}td,th{padding-right:.5rem}td.long{min-width:6rem}}
"""


class Html(str):
    """Markup. Anything else that is put into a page is text, and is escaped."""

    __slots__ = ()


def text(value: object) -> Html:
    """Text, or markup, as markup.

    >>> text("<b>"), text(Html("<b>"))
    ('&lt;b&gt;', '<b>')
    """
    return value if isinstance(value, Html) else Html(html.escape(str(value)))


def el(name: str, *inside: object, **attributes: object) -> Html:
    """An element. `class_` is its class; an attribute that is None is left out.

    >>> el("a", "x < y", href='"')
    '<a href="&quot;">x &lt; y</a>'
    """
    given = "".join(
        f' {key.rstrip("_")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{given}>{joined(inside)}</{name}>")


def joined(parts: Iterable[object], between: str = "") -> Html:
    """Parts one after the other."""
    return Html(between.join(text(part) for part in parts))


def table(heads: Iterable[object], rows: Iterable[Iterable[Html]]) -> Html:
    """A table of cells, which scrolls by itself when it is too wide."""
    head = el("tr", *(h if isinstance(h, Html) else el("th", h) for h in heads))
    body = joined(el("tr", *row) for row in rows)
    return el("div", el("table", head, body), class_="scroll")


def page(title: str, *inside: object) -> str:
    """A whole page. It has no script, and asks no other site for anything."""
    head = (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
    )
    return f"{head}{el('title', title)}<style>{STYLE}</style>{joined(inside)}</html>"
