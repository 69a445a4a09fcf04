"""Speaking to a run: signals and answers, as messages that its inbox keeps.

What is said is checked against the workflow's code where it is loaded, and kept as it is where it
is not, for the worker that knows it. Who speaks learns whether it was kept, not what becomes of it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stepwell.authoring.events.model import Event
from stepwell.errors import InvalidArgument, NoPendingQuestion
from stepwell.kernel.outcomes import Message
from stepwell.runtime import codec
from stepwell.runtime.arguments import an_answer, an_event, word, words
from stepwell.runtime.loading import fold_bare, load, readable
from stepwell.runtime.looking import row_of
from stepwell.runtime.messages import message_for
from stepwell.runtime.views import WaitInfo, answered_by, in_short, waits_of
from stepwell.stores.base import NewMessage

if TYPE_CHECKING:
    from stepwell.runtime.worker import Worker


async def signal(
    worker: Worker,
    run_id: str,
    event: Event | str,
    payload: Mapping[str, Any] | None = None,
    *,
    step: str | None = None,
    question: str | None = None,
    dedupe: str | None = None,
) -> bool:
    """See `Engine.signal`. What the question is called is nothing to this: the run may have called
    it anything."""
    words(dedupe=dedupe)
    workflow = (await row_of(worker, run_id)).workflow
    types = worker.program_or_bare(workflow).types
    if isinstance(event, str):
        word(event, "the event's name")
        message = named(worker, workflow, event, payload or {})
        message.to = step
    else:
        an_event(event)
        found = worker.programs.get(workflow)
        if found is None:
            message = Message(types.add(type(event)), event, step)
        else:
            message = message_for(found[0].definition, types, event, step)
        message.data = types.dumps(event, where=message.tag)
    data = codec.encode_arrival(message, question, types)
    sent = NewMessage(run_id, "event", data, worker.clock.now(), dedupe)
    (accepted,) = await worker.inbox.send([sent])
    return accepted


class Answers:
    """Gives answers to questions, one after the other: of two answers to one question that are
    given at once, the second finds the first."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._one = asyncio.Lock()

    async def give(
        self, run_id: str, answer: Event | Mapping[str, Any] | str, question: str | None
    ) -> None:
        """See `Engine.answer`."""
        an_answer(answer)
        worker = self._worker
        async with self._one:
            wait = await _question(worker, run_id, question)
            event: Event | str = str(wait.event)
            fields: Mapping[str, Any] = {}
            if isinstance(answer, Event):
                tag = _tag(worker, (await row_of(worker, run_id)).workflow, answer)
                if tag != wait.event:
                    raise InvalidArgument(
                        f"question {wait.id!r} of run {run_id} takes a {wait.event}, not a {tag}"
                    )
                event = answer
            else:
                fields = {"response": answer} if isinstance(answer, str) else answer
            await signal(worker, run_id, event, fields, question=wait.id)


async def _question(worker: Worker, run_id: str, question: str | None) -> WaitInfo:
    """The question that is asked, and that nothing kept answers already."""
    loaded = await load(worker.store, run_id)
    run = await fold_bare(worker.store, loaded)
    with readable(run_id):
        asked = [w for w in waits_of(run) if w.event is not None]
    if question is not None:
        asked = [w for w in asked if w.id == question]
    answered = {answered_by(message) for message in loaded.messages}
    waiting = [w for w in asked if w.id not in answered]
    if len(waiting) == 1:
        return waiting[0]
    error = NoPendingQuestion(run_id, question)
    if asked and not waiting:
        error.hint = "An answer to it is kept already, and waits to be taken in."
    raise error


def _tag(worker: Worker, workflow: str, event: Event) -> str:
    kind = type(event)
    found = worker.programs.get(workflow)
    return kind.__name__ if found is None else found[0].types.add(kind)


def named(worker: Worker, workflow: str, tag: str, payload: Mapping[str, Any]) -> Message:
    """An event by the name of its type: checked when the type is known here, else kept as it is
    for the worker that knows it."""
    types = worker.program_or_bare(workflow).types
    kind = types.classes.get(tag)
    if kind is None or kind is object:
        return Message(tag, None, data=json.dumps(payload))
    try:
        event = kind(**payload)
    except (ValueError, TypeError) as error:
        raise InvalidArgument(f"the payload does not make a {tag}: {in_short(error)}") from error
    return Message(tag, event, data=types.dumps(event, where=tag))
