"""State machines: retries for a workflow and for one step, and errors that are handled.

python examples/machine_retries.py
"""

from datetime import timedelta

from pydantic import BaseModel

from stepwell.machine import Retry, complete, engine, get_context, goto, on_fail, step, workflow
from stepwell.testing import SynchronousExecutor

CALLS: list[str] = []


class Api:
    """A service that fails so many times before it answers."""

    def __init__(self, failures: int) -> None:
        self.failures = failures

    def call(self, endpoint: str) -> dict[str, str]:
        CALLS.append(endpoint)
        if self.failures:
            self.failures -= 1
            raise ConnectionError("API call failed: 503")
        return {"endpoint": endpoint}


api = Api(0)


@workflow(
    "api_integration",
    default_retry=Retry(
        max_attempts=5,
        base_delay=timedelta(seconds=2),
        max_delay=timedelta(minutes=5),
        backoff_factor=2.0,
    ),
)
class ApiIntegration:
    """Every step is tried five times at most."""

    class Context(BaseModel):
        endpoint: str
        api_response: dict[str, str] = {}
        given_up: str = ""

    @step(start=True)
    def log_in(self):
        api.call("login")
        return goto(self.call_external_api)

    @step()
    def call_external_api(self):
        ctx = get_context()
        ctx.api_response = api.call(ctx.endpoint)
        return goto(self.process_response)

    @step()
    def process_response(self):
        return complete()

    @on_fail
    def give_up(self, error: Exception):
        get_context().given_up = str(error)


stubborn = Api(9)


@workflow("stubborn_call", default_retry=Retry(max_attempts=2))
class StubbornCall:
    """What a step says for itself counts, not what the workflow says."""

    class Context(BaseModel):
        endpoint: str
        api_response: dict[str, str] = {}

    @step(start=True, retry=Retry(max_attempts=10, base_delay=timedelta(seconds=1)))
    def call_external_api(self):
        ctx = get_context()
        ctx.api_response = stubborn.call(ctx.endpoint)
        return goto(self.process_response)

    @step()
    def process_response(self):
        return complete()


@workflow("risky")
class Risky:
    """An error that is expected leads to another step; others are left to the retries."""

    class Context(BaseModel):
        number: str
        result: int = 0
        error_details: str = ""

    @step(start=True)
    def risky_operation(self):
        ctx = get_context()
        try:
            ctx.result = int(ctx.number)
        except ValueError as error:
            ctx.error_details = str(error)
            return goto(self.error_recovery_step)
        return goto(self.success_step)

    @step()
    def success_step(self):
        return complete(recovered=False)

    @step()
    def error_recovery_step(self):
        return complete(recovered=True)


def main() -> dict[str, object]:
    """Run them inline, in virtual time; how each ended."""
    executor = SynchronousExecutor()
    engine.set_executor(executor)
    ends: dict[str, object] = {}
    for failures in (0, 4, 5):
        api.failures = failures
        run = engine.start(ApiIntegration, endpoint="orders")
        began = executor.now()
        executor.advance(timedelta(hours=1))
        took = (run.refresh().completed_at or began) - began
        ends[f"{failures} failures"] = (run.status, run.error, run.data["given_up"], took)
    api.failures = 0
    began = executor.now()
    run = engine.start(StubbornCall, endpoint="orders")
    executor.advance(timedelta(hours=1))
    took = (run.refresh().completed_at or began) - began
    ends["9 failures of one step"] = (run.status, took)
    for number in ("5", "five"):
        run = engine.start(Risky, number=number).refresh()
        ends[number] = (run.result, run.data["result"], run.data["error_details"])
    engine.set_executor(None)
    return ends


if __name__ == "__main__":
    for name, end in main().items():
        print(f"{name}: {end}")
