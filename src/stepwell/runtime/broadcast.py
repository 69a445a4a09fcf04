"""One event to every run that waits for it: whom it concerns, and what each of them is sent.

A broadcast looks, and then speaks; in between runs go on. So what is sent names the wait that was
seen, by its id and by when it began: names of waits come again, and an event that was meant for
one must not answer the next. For the same reason it is sent under a dedupe value of that wait, so
of two broadcasts that saw one wait, one is received. Whether the run still waits when it takes the
message in is the kernel's to say; what nobody waits for any more is dropped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from stepwell.authoring.program import Undecoded
from stepwell.kernel.decide import matches
from stepwell.kernel.outcomes import Message
from stepwell.runtime import codec
from stepwell.runtime.looking import PAGE, every, waits
from stepwell.runtime.speaking import named
from stepwell.runtime.views import SHOWN, RunInfo, WaitInfo
from stepwell.stores.base import NewMessage, RunFilter
from stepwell.values import RunStatus

if TYPE_CHECKING:
    from stepwell.runtime.worker import Worker


async def broadcast(
    worker: Worker,
    name: str,
    payload: Mapping[str, Any],
    *,
    workflow: str | None = None,
    correlation: str | None = None,
    check: Callable[[RunInfo], None] | None = None,
) -> int:
    """See `Engine.broadcast`."""
    now = worker.clock.now()
    messages: dict[str, Message] = {}
    outgoing: list[NewMessage] = []
    wanted = RunFilter(workflow=workflow, correlation=correlation, waiting=name)
    async for info in every(worker, wanted):
        message = messages.get(info.workflow)
        if message is None:
            message = messages[info.workflow] = named(worker, info.workflow, name, payload)
        answered = _wanted_by(message, await _all_waits(worker, info))
        if answered and check is not None:
            check(info)
        types = worker.program_or_bare(info.workflow).types
        outgoing += [_answer_to(info.id, w, message, types, now) for w in answered]
    received: set[str] = set()
    for batch in (outgoing[n : n + PAGE] for n in range(0, len(outgoing), PAGE)):
        accepted = await worker.inbox.send(batch)
        received.update(m.run for m, fine in zip(batch, accepted, strict=True) if fine)
    return len(received)


async def _all_waits(worker: Worker, info: RunInfo) -> Sequence[WaitInfo]:
    """All that a run waits for, from its row if that has them all."""
    if info.status is RunStatus.WAITING and len(info.waits) < SHOWN:
        return info.waits
    return await waits(worker, info.id)


def _wanted_by(message: Message, waits: Iterable[WaitInfo]) -> list[WaitInfo]:
    """Those of `waits` that `message` answers: of its tag, and asking for nothing that it has
    not."""
    if message.payload is None and message.data is not None:
        # Of a type that is not known here: the fields are in its text only.
        fields = cast("dict[str, Any]", json.loads(message.data))
        message = Message(message.tag, Undecoded(message.tag, fields))
    return [w for w in waits if w.event == message.tag and matches(message, w.where)]


def _answer_to(run: str, wait: WaitInfo, message: Message, types: Any, at: float) -> NewMessage:
    """`message` for this wait of `run` alone, and once."""
    data = codec.encode_arrival(message, wait.id, types, keep=False, since=wait.since)
    return NewMessage(run, "event", data, at, dedupe=f"wait:{wait.id}:{wait.since!r}")
