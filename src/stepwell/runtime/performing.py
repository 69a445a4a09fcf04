"""Performing: what is done for an entry that was decided, once it is safe.

Performing never decides anything. It starts the bodies that the entries say have begun, wakes those
that got their answers, stops those that are owed no more, and shows readers what was published.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from stepwell.kernel.journal import (
    AttemptExpired,
    ChildStarted,
    Published,
    RunEnded,
    RunParked,
    RunResumed,
    ScopeEntered,
    WaitDropped,
    WaitEnded,
    WaitOpened,
    WorkAdded,
    WorkBegun,
)
from stepwell.kernel.run import RUNNING, WAITING
from stepwell.runtime.bodies import launch, stop

if TYPE_CHECKING:
    from stepwell.runtime.turn import ActiveRun


def _begun(active: ActiveRun, entry: WorkBegun) -> None:
    attempt = active.attempts.get(entry.id)
    if attempt is None:
        work = active.run.work.get(entry.id)
        if work is not None and work.phase == RUNNING:
            launch(active, work)
    else:
        if active.watchers and attempt.task is not None:  # or else it is told when it starts
            for watcher in active.watchers:
                watcher.begun(active, attempt)
        attempt.deliver()


def _wait_opened(active: ActiveRun, entry: WaitOpened) -> None:
    if entry.question is not None:
        active.publish(entry.question.payload)


def _wait_ended(active: ActiveRun, entry: WaitEnded) -> None:
    # An answer that is the last one its work waits for is handed out when a worker slot is
    # taken; an earlier one at once, since its body may go on with it.
    work = active.run.work.get(entry.work)
    if work is None or work.phase != WAITING or not work.partial:
        return
    attempt = active.attempts.get(work.id)
    if attempt is None:
        launch(active, work)
    else:
        attempt.deliver()


def _published(active: ActiveRun, entry: Published) -> None:
    for message in entry.messages:
        active.publish(message.payload)


def _child_started(active: ActiveRun, entry: ChildStarted) -> None:
    active.spawn(active, entry)


def _expired(active: ActiveRun, entry: AttemptExpired) -> None:
    attempt = active.attempts.get(entry.id)
    if attempt is not None:
        attempt.expired = True
        if attempt.task is not None:
            attempt.task.cancel()


def _stop_what_is_not_owed(active: ActiveRun, entry: ScopeEntered | RunEnded | RunParked) -> None:
    over = not isinstance(entry, ScopeEntered)
    for attempt in tuple(active.attempts.values()):
        if over or attempt.id not in active.run.work:
            stop(active, attempt)
    if not isinstance(entry, RunParked):
        _cancel_children(active, entry)


def _cancel_children(active: ActiveRun, entry: ScopeEntered | RunEnded | WaitDropped) -> None:
    for child in tuple(active.children or ()):  # an ended child leaves the list
        if child.run.id in entry.cancel:
            child.cancel("its parent does not wait for it any more")


PERFORM: dict[type, Callable[[ActiveRun, Any], None]] = {
    WorkBegun: _begun,
    WaitOpened: _wait_opened,
    WaitDropped: _cancel_children,
    WaitEnded: _wait_ended,
    Published: _published,
    ChildStarted: _child_started,
    AttemptExpired: _expired,
    ScopeEntered: _stop_what_is_not_owed,
    RunEnded: _stop_what_is_not_owed,
    RunResumed: lambda run, _: run.resume(),
    RunParked: _stop_what_is_not_owed,
}
"""What is done for an entry, by its type."""

TOLD = frozenset((WorkAdded, *PERFORM))
"""The entries that are performed at all; work that is added, by the turn itself."""
