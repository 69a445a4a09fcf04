"""Mistakes in state machines that a type checker must report."""

from pydantic import BaseModel

from stepwell.machine import (
    Retry,
    WorkflowRun,
    complete,
    engine,
    event_workflow,
    fail,
    goto,
    run_subflow,
    sleep,
    step,
    wait,
    workflow,
)


@workflow(7)  # error: reportArgumentType
class Wrong:
    class Context(BaseModel):
        paid: bool = False

    context: Context

    @step(start="yes")  # error: reportArgumentType
    def one(self):
        self.context.paid = "yes"  # error: reportAttributeAccessIssue
        goto(5)  # error: reportArgumentType
        return complete()

    @step(retry=3)  # error: reportArgumentType
    def two(self):
        return sleep("a day")  # error: reportArgumentType

    @step(timeout="a minute")  # error: reportArgumentType
    def three(self):
        wait.for_signal("go", timout=6)  # error: reportCallIssue
        return complete()

    @step()
    def four(self):
        fail()  # error: reportCallIssue
        return complete()

    @step()
    def five(self):
        return run_subflow(Wrong, on_complete=4)  # error: reportArgumentType

    @step()
    def six(self):
        complete(True)  # error: reportCallIssue
        return fail("no")


@event_workflow("placed", offset_minutes="5")  # error: reportArgumentType
class OnPlaced:
    pass


def main() -> None:
    Retry(max_attempts="3")  # error: reportArgumentType
    run = engine.start(Wrong)
    text: str = run.result  # error: reportAssignmentType
    engine.signal(run)  # error: reportArgumentType
    engine.signal("go", [1])  # error: reportArgumentType
    engine.runs.filter(state="failed")  # error: reportCallIssue
    number: int = WorkflowRun.objects.get(id=run.id)  # error: reportAssignmentType
    engine.emit("placed", at="noon")  # error: reportArgumentType
    engine.set_executor("inline")  # error: reportArgumentType
    print(text, number)
