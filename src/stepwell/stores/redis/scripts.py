"""The Lua scripts of this store by name, read once, with what stands before each.

`common.lua` stands before every script, `once.lua` also before those that write. A script is known
to the server by the SHA-1 of its text. A name that is not there fails at import.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files

_WRITING = ("commit", "create", "send", "register", "unregister", "claim", "claim_one", "delete")
_OTHER = ("announce", "load", "next_due", "list", "verify")


@dataclass(frozen=True, slots=True)
class Script:
    """A script as it is sent: its text, and the name the server gives it."""

    text: str
    sha: str


def _load() -> dict[str, Script]:
    folder = files("stepwell.stores.redis") / "scripts"
    text = {
        name: (folder / f"{name}.lua").read_text(encoding="utf-8")
        for name in ("common", "once", *_WRITING, *_OTHER)
    }
    found: dict[str, Script] = {}
    for name in (*_WRITING, *_OTHER):
        before = ("common", "once") if name in _WRITING else ("common",)
        whole = "\n".join(text[part] for part in (*before, name))
        # The protocol's own choice; nothing secret depends on it.
        sha = hashlib.sha1(whole.encode(), usedforsecurity=False).hexdigest()
        found[name] = Script(whole, sha)
    return found


SCRIPTS = _load()
