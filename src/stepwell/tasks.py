"""The tasks of documents: `Task` to derive from, `@task` for functions, `TaskRegistry`.

from stepwell.tasks import task

@task("double")
async def double(n: int) -> int:
    return 2 * n
"""

from stepwell.authoring.tasks import (
    BUILT_IN,
    Task,
    TaskFailed,
    TaskRegistry,
    TaskStatus,
    task,
    tasks,
)
from stepwell.errors import UnknownTask

__all__ = [
    "BUILT_IN",
    "Task",
    "TaskFailed",
    "TaskRegistry",
    "TaskStatus",
    "UnknownTask",
    "task",
    "tasks",
]
