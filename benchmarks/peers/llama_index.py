"""LlamaIndex Workflows, in memory: `event_workflows.py`, the very code stepwell is measured on."""

from workflows import Context, Workflow, events, step

from peers.common import serve
from peers.event_workflows import EventStyle, event_scenarios

NOT_DURABLE = "nothing is kept by itself; the caller writes snapshots or journal records"

if __name__ == "__main__":
    serve(
        "llama-index-workflows",
        event_scenarios(EventStyle(workflow=Workflow, step=step, context=Context, events=events)),
        dict.fromkeys(("durable_chain", "durable_many", "durable_growth"), NOT_DURABLE),
    )
