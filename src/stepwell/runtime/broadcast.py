"""One event to every run that waits for it: whom it concerns, and what each of them is sent.

A broadcast looks, and then speaks; in between runs go on. So what is sent names the wait that was
seen, by its id and by when it began: names of waits come again, and an event that was meant for
one must not answer the next. For the same reason it is sent under a dedupe value of that wait, so
of two broadcasts that saw one wait, one is received. Whether the run still waits when it takes the
message in is the kernel's to say; what nobody waits for any more is dropped.

This module refuses to know where runs come from and who may broadcast.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, cast

from stepwell.authoring.program import Undecoded
from stepwell.kernel.decide import matches
from stepwell.kernel.outcomes import Message
from stepwell.runtime import codec
from stepwell.runtime.views import WaitInfo
from stepwell.stores.base import NewMessage

PAGE = 500
"""How many runs are looked at, and how many messages are sent, at once."""


def wanted_by(message: Message, waits: Iterable[WaitInfo]) -> list[WaitInfo]:
    """Those of `waits` that `message` answers: of its tag, and asking for nothing that it has
    not."""
    if message.payload is None and message.data is not None:
        # Of a type that is not known here: the fields are in its text only.
        fields = cast("dict[str, Any]", json.loads(message.data))
        message = Message(message.tag, Undecoded(message.tag, fields))
    return [w for w in waits if w.event == message.tag and matches(message, w.where)]


def answer_to(run: str, wait: WaitInfo, message: Message, types: Any, at: float) -> NewMessage:
    """`message` for this wait of `run` alone, and once."""
    data = codec.encode_arrival(message, wait.id, types, keep=False, since=wait.since)
    return NewMessage(run, "event", data, at, dedupe=f"wait:{wait.id}:{wait.since!r}")
