"""State machines: a loan application as states, and a document that a person reviews.

python examples/machine_patterns.py
"""

import warnings
from datetime import timedelta

from pydantic import BaseModel

from stepwell.machine import complete, engine, get_context, goto, step, wait, workflow
from stepwell.testing import SynchronousExecutor


class LoanStates:
    """The states of a loan application."""

    class Context(BaseModel):
        application_id: int
        state: str = "submitted"
        credit_score: int = 0
        decision: str = ""

    @step(start=True)
    def submitted_state(self):
        get_context().state = "under_review"
        return goto(self.check_credit)

    @step()
    def check_credit(self):
        ctx = get_context()
        if ctx.credit_score > 700:
            ctx.state = "approved"
            return goto(self.approved_state)
        if ctx.credit_score > 600:
            ctx.state = "manual_review"
            return goto(self.manual_review_state)
        ctx.state = "denied"
        return goto(self.denied_state)

    @step()
    def approved_state(self):
        return complete(decision="approved")

    @step()
    def manual_review_state(self):
        # Nothing says where it goes, so it goes to the step that is defined next: denied_state,
        # which other steps go to as well. The decorator warns of that.
        return wait.for_signal("manual_review_complete")

    @step()
    def denied_state(self):
        return complete(decision="denied")


with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    LoanApplication = workflow("loan_application")(LoanStates)


@workflow("loan_application", version="2")
class ReviewedLoan(LoanStates):
    """The same with `then=`: what the reviewer says decides."""

    @step()
    def manual_review_state(self):
        return wait.for_signal("manual_review_complete", then=self.reviewed_state)

    @step()
    def reviewed_state(self):
        if get_context().state == "approved":
            return goto(self.approved_state)
        return goto(self.denied_state)


MAILS: list[tuple[str, int]] = []


@workflow("document_approval")
class DocumentApproval:
    """A person reviews; after three days without an answer their manager does."""

    class Context(BaseModel):
        document_id: int
        reviewer_assigned: str = ""
        reviewer_notes: str = ""
        approved: bool = False

    @step(start=True)
    def assign_reviewer(self):
        ctx = get_context()
        ctx.reviewer_assigned = "Ada"
        MAILS.append((ctx.reviewer_assigned, ctx.document_id))
        return wait.for_signal(
            "review_completed",
            timeout=timedelta(days=3),
            on_timeout="escalate_review",
            then=self.process_review,
        )

    @step()
    def process_review(self):
        if get_context().approved:
            return goto(self.approve_document)
        return goto(self.request_revision)

    @step()
    def escalate_review(self):
        return wait.for_signal("manager_review_completed", then=self.process_review)

    @step()
    def approve_document(self):
        return complete(published=True)

    @step()
    def request_revision(self):
        return complete(published=False)


def submit_review(document: str, approved: bool, notes: str) -> int:
    """What the system of the reviewers calls: it knows the document, not the run."""
    payload = {"approved": approved, "reviewer_notes": notes}
    return engine.signal("review_completed", payload, correlation=document)


def main() -> dict[str, object]:
    """Run them inline, in virtual time; how each ended."""
    executor = SynchronousExecutor()
    engine.set_executor(executor)
    ends: dict[str, object] = {"warning": str(told[0].message)}
    for score in (750, 650, 500):
        run = engine.start(LoanApplication, application_id=1, credit_score=score)
        waited = engine.signal("manual_review_complete")
        ends[f"score {score}"] = (run.refresh().result, run.data["state"], waited)
    run = engine.start("loan_application", application_id=2, credit_score=650)
    engine.signal("manual_review_complete", {"state": "approved"})
    ends["with then"] = (run.version, run.refresh().result)

    one, two, late = (
        engine.start(DocumentApproval, document_id=n, correlation=f"document {n}")
        for n in (1, 2, 3)
    )
    submit_review("document 1", approved=True, notes="fine")
    submit_review("document 2", approved=False, notes="too long")
    executor.advance(timedelta(days=4))
    ends["escalated"] = (late.refresh().current_step, late.waiting_signal)
    engine.signal("manager_review_completed", {"approved": True})
    ends["documents"] = [run.refresh().result for run in (one, two, late)]
    ends["notes"] = [run.data["reviewer_notes"] for run in (one, two, late)]
    engine.set_executor(None)
    return ends


if __name__ == "__main__":
    for name, end in main().items():
        print(f"{name}: {end}")
