"""A durable pipeline waits for a person, and is killed meanwhile: it goes on where it was.

python examples/pipelines_durable.py
"""

import asyncio

from stepwell import Engine
from stepwell.pipeline import Pipeline

drafted = asyncio.Event()


async def draft(ctx):
    print("drafting, once")
    return "a contract"


async def approve(ctx):
    drafted.set()
    return await ctx.wait_for_signal("approved")


async def publish(draft, approve):
    return f"{draft}, approved by {approve['by']}"


def make():
    return Pipeline(name="contract").add_step(draft).add_step(approve).add_step(publish)


async def main():
    async with Engine("sqlite:///contracts.db", [make()]) as engine:
        await engine.start("contract", run_id="c1")
        await drafted.wait()
    # The program ends here, or the machine dies. Tomorrow another process opens the file:
    pipeline = make()
    async with Engine("sqlite:///contracts.db", [pipeline]) as engine:
        await engine.signal("c1", "approved", {"by": "Ada"})
        print((await engine.result("c1"))["publish"])


asyncio.run(main())
