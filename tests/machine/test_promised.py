"""What users of durable state machines were promised, block by block, and how each example ends.

The examples are complete where the promise was a fragment. Each block is named by its heading.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

DONE = "completed"
HOUR = timedelta(hours=1)

BLOCKS: list[tuple[str, str, str, Any]] = [
    # block, example, what of it, how it ends
    ("Basic Workflow Structure", "basics", "onboarding", (DONE, True, [123])),
    (
        "Multi-Step Flow",
        "basics",
        "order",
        (
            DONE,
            {"order_id": 1, "payment_confirmed": True, "items_reserved": True, "shipped": True},
        ),
    ),
    (
        "Multi-Step Flow",
        "basics",
        "order steps",
        ["confirm_payment", "reserve_inventory", "ship_order"],
    ),
    ("Navigation Between Steps", "basics", "small", ["process_order", "fulfill_immediately"]),
    (
        "Navigation Between Steps",
        "basics",
        "large",
        ["process_order", "require_approval", "fulfill_immediately"],
    ),
    (
        "Completion and Failure",
        "basics",
        "good",
        (DONE, "approved", {"final_status": "approved", "completion_date": "2026-03-01"}),
    ),
    ("Completion and Failure", "basics", "bad", ("failed", "required documents are missing")),
    (
        "Sleep/Delays",
        "time",
        "reminders",
        (DONE, [1, 2, 3], {"escalated": True}, timedelta(days=2)),
    ),
    ("Waiting for Signals", "signals", "told", 2),
    (
        "Waiting for Signals",
        "signals",
        "answered",
        ({"status": "answered"}, "Looks good", "yes"),
    ),
    ("Waiting for Signals", "signals", "expired", {"status": "expired"}),
    (
        "Waiting for Events",
        "signals",
        "paid",
        {"paid": 9.5, "event": "payment_received", "entity": 7},
    ),
    ("Waiting for Events", "signals", "unpaid", {"cancelled": True}),
    ("Workflow-Level Retry Policy", "retries", "0 failures", (DONE, None, "", 0 * HOUR)),
    (
        "Workflow-Level Retry Policy",
        "retries",
        "4 failures",
        (DONE, None, "", timedelta(seconds=2 + 4 + 8 + 16)),
    ),
    (
        "Workflow-Level Retry Policy",
        "retries",
        "5 failures",
        (
            "failed",
            "API call failed: 503",
            "API call failed: 503",
            timedelta(seconds=2 + 4 + 8 + 16),
        ),
    ),
    (
        "Step-Level Retry Override",
        "retries",
        "9 failures of one step",
        (DONE, timedelta(seconds=1 + 2 + 4 + 8 + 16 + 32 + 64 + 128 + 256)),
    ),
    ("Graceful Error Handling", "retries", "5", ({"recovered": False}, 5, "")),
    (
        "Graceful Error Handling",
        "retries",
        "five",
        ({"recovered": True}, 0, "invalid literal for int() with base 10: 'five'"),
    ),
    (
        "Basic Event Workflow",
        "events",
        "order 7",
        {"billing": DONE, "invoice": "invoice 7"},
    ),
    ("Basic Event Workflow", "events", "order 8", {"billing": "failed", "invoice": None}),
    ("Basic Event Workflow", "events", "subflows", [None, "there is nothing to pay"]),
    ("Event Workflows with Timing Offsets", "time", "planned", (4 * HOUR, "waiting")),
    ("Event Workflows with Timing Offsets", "time", "moved", 7 * HOUR),
    (
        "Event Workflows with Timing Offsets",
        "time",
        "began",
        {"PreAppointmentReminder": 7 * HOUR, "PostMeetingFollowup": HOUR / 2},
    ),
    ("Context Design", "context", "refused", "order_id"),
    (
        "Context Access and Updates",
        "context",
        "data",
        {
            "order_id": 1,
            "customer_email": "ada@example.org",
            "payment_method": "credit_card",
            "total_amount": "19.90",
            "shipping_address": {"street": "123 Main St", "city": "Salem", "state": "OR"},
            "steps_completed": ["payment_processed", "address_checked"],
            "last_error": "",
            "shipping_tracking_id": "",
        },
    ),
    (
        "Context in Signal Payloads",
        "signals",
        "form",
        {"user_name": "John", "at": "noon"},
    ),
    (
        "State Machine Pattern",
        "patterns",
        "warning",
        "Workflow LoanStates: step manual_review_state waits and then goes on at denied_state, the "
        "step defined next, which check_credit goes to as well; say then=self.denied_state if that "
        "is meant",
    ),
    ("State Machine Pattern", "patterns", "score 750", ({"decision": "approved"}, "approved", 0)),
    (
        "State Machine Pattern",
        "patterns",
        "score 650",
        ({"decision": "denied"}, "manual_review", 1),
    ),
    ("State Machine Pattern", "patterns", "score 500", ({"decision": "denied"}, "denied", 0)),
    ("State Machine Pattern", "patterns", "with then", ("2", {"decision": "approved"})),
    (
        "Human-in-the-Loop Pattern",
        "patterns",
        "escalated",
        ("escalate_review", "manager_review_completed"),
    ),
    (
        "Human-in-the-Loop Pattern",
        "patterns",
        "documents",
        [{"published": True}, {"published": False}, {"published": True}],
    ),
    ("Human-in-the-Loop Pattern", "patterns", "notes", ["fine", "too long", ""]),
    (
        "Workflow Status Checking",
        "monitoring",
        "one",
        ("waiting", "begin", {"kind": "waits", "approved": False}),
    ),
    ("Workflow Status Checking", "monitoring", "failed", [("monitored", "no such customer")]),
    ("Workflow Status Checking", "monitoring", "signals", ["approval_received"]),
    ("Workflow Status Checking", "monitoring", "sleepers", [True]),
    ("Workflow Status Checking", "monitoring", "history", [("begin", "failed")]),
    ("Manual Workflow Control", "monitoring", "cancelled", ("cancelled", "not wanted any more")),
    ("Manual Workflow Control", "monitoring", "told", 1),
    (
        "Manual Workflow Control",
        "monitoring",
        "counts",
        {"completed": 1, "failed": 1, "cancelled": 1},
    ),
    ("Testing Workflows", "testing", "run", 2),
    ("Testing Workflows", "testing", "failed", []),
]


@pytest.fixture(scope="module")
def ends() -> Iterator[Any]:
    """What the `main()` of an example returns; each is run once."""
    known: dict[str, dict[str, Any]] = {}
    names: list[str] = []

    def of(example: str) -> dict[str, Any]:
        if example not in known:
            name = f"machine_{example}"
            spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[name] = module
            names.append(name)
            spec.loader.exec_module(module)
            known[example] = module.main()
        return known[example]

    yield of
    for name in names:
        del sys.modules[name]


@pytest.mark.parametrize(
    "block, example, what, end", BLOCKS, ids=[f"{block}: {what}" for block, _, what, _ in BLOCKS]
)
def test_it_ends_as_promised(ends: Any, block: str, example: str, what: str, end: Any) -> None:
    assert ends(example)[what] == end, block


def test_types_of_the_context_come_back(ends: Any) -> None:
    assert ends("context")["context"].total_amount == Decimal("19.90")


def test_nothing_that_an_example_shows_is_left_unasked(ends: Any) -> None:
    asked: dict[str, set[str]] = {}
    for _, example, what, _ in BLOCKS:
        asked.setdefault(example, set()).add(what)
    shown = {example: set(ends(example)) for example in asked}
    asked["context"].add("context")  # asked above
    assert shown == asked
