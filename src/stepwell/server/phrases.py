"""How the console says times, and why a run of a list is where it is."""

from __future__ import annotations

from datetime import datetime

from stepwell.authoring.words import MOVED, wanted
from stepwell.runtime.views import RunInfo, WaitInfo
from stepwell.values import RunStatus, utc


def age(seconds: float) -> str:
    """A length of time in one unit.

    >>> age(5.2), age(200), age(400_000)
    ('5 s', '3 min', '5 d')
    """
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{round(seconds / size)} {unit}"
    return f"{max(0, round(seconds))} s"


def said_at(moment: str | None) -> str:
    """A moment of the API, as people read it."""
    return "" if moment is None else in_utc(datetime.fromisoformat(moment).timestamp())


def in_utc(at: float) -> str:
    return f"{utc(at):%Y-%m-%d %H:%M:%S} UTC"


def why_in_short(info: RunInfo, now: float) -> str:
    """Why a run of a list is where it is, as far as its row says."""
    if info.reason:
        return info.reason
    if info.status is RunStatus.QUEUED:
        return "waits for a worker"
    said = [waits_for(wait, now) for wait in info.waits]
    return "; ".join(dict.fromkeys(word for word in said if word))


def waits_for(wait: WaitInfo, now: float) -> str:
    """What a wait is for."""
    if wait.child is not None:
        return f"waits for its part {wait.child}"
    due = "" if wait.due is None else f"{age(wait.due - now)}"
    if wait.event is None:
        return f"sleeps for {due}" if due else ""
    if wait.event == MOVED:
        return ""
    what = wait.event if wait.then is None else wanted(wait.event)
    if wait.question is not None:
        what = "an answer"
    return f"waits for {what}" + (f", at most {due}" if due else "")
