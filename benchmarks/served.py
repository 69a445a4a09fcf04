"""What the servers of `service.py` serve: workflows and a task for `stepwell serve`, and the floor.

python -m stepwell serve --app served --tasks served   # stepwell
python served.py bare PORT                             # the floor: one bare Starlette route
python served.py tool PORT                             # what the load tool can ask at most
"""

from __future__ import annotations

import asyncio
import sys

from pydantic import BaseModel

from stepwell import StartEvent, StopEvent, Workflow, step
from stepwell.machine import complete, wait, workflow
from stepwell.machine import step as state
from stepwell.tasks import task


class Hello(Workflow):
    """One step."""

    @step
    async def greet(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result=f"Hello {ev.name}")


hello = Hello(workflow_name="hello")


@workflow("waiting")
class Waiting:
    """Waits for a signal, and has one step to do then."""

    class Context(BaseModel):
        number: int = 0

    context: Context

    @state(start=True)
    async def ask(self) -> object:
        return wait.for_signal("heard", then=self.end)

    @state()
    async def end(self) -> object:
        return complete()


@task("echo")
async def echo(word: str) -> str:
    """The one task of the document."""
    return word


def serve_bare(port: int) -> None:
    """One route of Starlette that answers a constant, on the server that all sides have."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def bare(_request: Request) -> JSONResponse:
        return JSONResponse({"hello": "world"})

    app = Starlette(routes=[Route("/bare", bare)])
    uvicorn.run(app, port=port, loop="asyncio", log_level="warning", access_log=False)


class Constant(asyncio.Protocol):
    """Answers whatever comes with the same bytes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        assert isinstance(self.transport, asyncio.Transport)
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")


async def serve_constant(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Constant, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    kind, port = sys.argv[1], int(sys.argv[2])
    if kind == "bare":
        serve_bare(port)
    else:
        asyncio.run(serve_constant(port))
