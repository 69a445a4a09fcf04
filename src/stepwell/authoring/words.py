"""What people are shown in place of the names and tags that only the machinery knows.

Those are all in parentheses, which no method and no signal can be; so what a journal holds can be
told apart without the code of the workflow, and everything else is shown as it is.
"""

from __future__ import annotations

from stepwell.kernel.decide import CHILD

END = "(complete)"
"""The hidden step behind a wait of the last step."""

ON_FAIL = "(on fail)"
"""The hidden step that runs `@on_fail`."""

PLAN = "(plan)"
"""The hidden step that waits for the time at which the run is to begin."""

FIRE = "(fire)"
"""The hidden step that plans the next run of a schedule and begins this one."""

START = "(start)"
"""The tag of the message that a run begins with."""

GO = "(go)"
"""The tag of the messages between steps: empty, or with the name of the step that waited."""

MOVED = "(moved)"
"""The tag of the word that a planned run's time, or its event, has changed."""

RESULT = "(result)"
"""The tag of the message that a run completes with."""

EVENT = "event:"
"""What stands before an event's name in the tag of the message that tells of it."""

_STEPS = {END: "end", ON_FAIL: "@on_fail", PLAN: "planned", FIRE: "begin"}
_TAGS = {
    START: "",
    GO: "",
    RESULT: "",
    MOVED: "word that its time has changed",
    CHILD: "the end of its child run",
}

FAIL = "(fail)"
"""In what a step says it emits: that it may fail the run. No step is called that."""

SAID_FAIL = "stepwell.errors.WorkflowFailed"
"""The type of the error of a run that a step failed with `fail(reason)`."""


def is_hidden(step: str) -> bool:
    """Whether a step is one that the class, or the pipeline, does not define.

    >>> is_hidden("(plan)"), is_hidden("(join of both)"), is_hidden("ship")
    (True, True, False)
    """
    return step in _STEPS or step.startswith(("(start)", "(failed)", "(join of "))


def step_said(step: str) -> str:
    """The name of a step, for people.

    >>> step_said("(on fail)"), step_said("ship")
    ('@on_fail', 'ship')
    >>> step_said("both (mail)"), step_said("(steps of both)"), step_said("(join of both)")
    ('mail', 'both', 'both')
    """
    for begins in ("(join of ", "(steps of "):
        if step.startswith(begins):
            return step[len(begins) : -1]
    group, part, inner = step.partition(" (")
    if part and group and inner.endswith(")"):
        return inner[:-1]
    return _STEPS.get(step, step)


def tag_said(tag: str) -> str:
    """The tag of a message, for people; "" when there is nothing to know of it.

    >>> tag_said("(go)"), tag_said("event:paid"), tag_said("approved")
    ('', "event 'paid'", 'approved')
    """
    return f"event {tag.removeprefix(EVENT)!r}" if tag.startswith(EVENT) else _TAGS.get(tag, tag)


def wanted(tag: str) -> str:
    """What ends a wait of a run: a signal, or an event.

    >>> wanted("approved"), wanted("event:paid")
    ("signal 'approved'", "event 'paid'")
    """
    return tag_said(tag) if tag.startswith((EVENT, "(")) else f"signal {tag!r}"
