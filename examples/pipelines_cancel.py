"""A pipeline is cancelled while it runs; its exit steps clean up all the same.

python examples/pipelines_cancel.py
"""

import asyncio

from stepwell.pipeline import Pipeline

started = asyncio.Event()


async def copy_files(ctx):
    ctx["lost"] = "what a step did not finish is not kept"
    started.set()
    await asyncio.sleep(3600)


async def remove_copies(ctx):
    print("copies removed")


pipeline = Pipeline().add_step(copy_files).add_exit_step(remove_copies)


async def main():
    task = asyncio.create_task(pipeline.run())
    await started.wait()
    pipeline.cancel("changed my mind")  # from any task, thread or signal handler
    result = await task
    print(f"{result.status}: {result.error}, {dict(result)}")


asyncio.run(main())
