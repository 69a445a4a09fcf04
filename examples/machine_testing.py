"""How to test a state machine: everything happens within the calls, and time is yours.

python examples/machine_testing.py
"""

# ruff: noqa: PT009 - for those who use unittest
import unittest
from datetime import timedelta

from pydantic import BaseModel

from stepwell.machine import complete, engine, get_context, goto, step, wait, workflow
from stepwell.testing import SynchronousExecutor


@workflow("tested_order")
class TestedOrder:
    class Context(BaseModel):
        order_id: int
        shipped: bool = False

    @step(start=True)
    def confirm_payment(self):
        return wait.for_signal(
            "payment_confirmed",
            timeout=timedelta(days=2),
            on_timeout="cancel_order",
            then=self.ship_order,
        )

    @step()
    def ship_order(self):
        get_context().shipped = True
        return goto(self.done)

    @step()
    def done(self):
        return complete()

    @step()
    def cancel_order(self):
        return complete(cancelled=True)


class WorkflowTestCase(unittest.TestCase):
    def setUp(self) -> None:
        self.executor = SynchronousExecutor()
        engine.set_executor(self.executor)
        self.addCleanup(engine.set_executor, None)

    def test_order_workflow(self) -> None:
        run = engine.start("tested_order", order_id=123)
        self.assertEqual(run.status, "running")
        self.assertEqual(run.current_step, "confirm_payment")

        engine.signal("payment_confirmed")

        run.refresh_from_db()
        self.assertEqual(run.status, "completed")
        self.assertTrue(run.data["shipped"])

    def test_unpaid_order(self) -> None:
        run = engine.start("tested_order", order_id=124)
        self.executor.advance(timedelta(days=3))
        self.assertEqual(run.refresh().result, {"cancelled": True})


def main() -> dict[str, object]:
    """Run the tests; how many, and how many of them failed."""
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(WorkflowTestCase)
    result = unittest.TestResult()
    suite.run(result)
    return {"run": result.testsRun, "failed": [text for _, text in result.failures + result.errors]}


if __name__ == "__main__":
    for name, end in main().items():
        print(f"{name}: {end}")
