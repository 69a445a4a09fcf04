"""llama-agents-server, the HTTP server of LlamaIndex Workflows: its run-and-wait route, in memory
and on its SQLite store as it comes (WAL, `synchronous=FULL`; its `single_connection`, for
containers that no other process looks into, was no faster). Unlike other peers it is a server,
which `service.py` starts and asks from outside:

    python -m peers.llama_agents PORT [DATABASE]
"""

from __future__ import annotations

import sys

import uvicorn
from llama_agents.server import SqliteWorkflowStore, WorkflowServer
from workflows import Workflow, step
from workflows.events import StartEvent, StopEvent


class Hello(Workflow):
    @step
    async def greet(self, ev: StartEvent) -> StopEvent:
        return StopEvent(result=f"Hello {ev.name}")


if __name__ == "__main__":
    store = SqliteWorkflowStore(db_path=sys.argv[2]) if len(sys.argv) > 2 else None
    server = WorkflowServer(workflow_store=store)
    server.add_workflow("hello", Hello())
    uvicorn.run(
        server.app,
        port=int(sys.argv[1]),
        loop="asyncio",
        http="h11",
        log_level="warning",
        access_log=False,
    )
