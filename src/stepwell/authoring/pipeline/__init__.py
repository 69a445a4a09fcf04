"""Pipelines: ordered steps with normal, error and exit scopes.

    steps.py      what a pipeline is made of: steps, parallel groups, branches
    build.py      `PipelineBase`: adding steps, one after the other
    context.py    what a step gets as `ctx`, and what becomes of its changes
    compile.py    a pipeline as a program
    serializer.py how its values are written down
    handlers.py   what each kind of step does
    groups.py     steps side by side
    failures.py   where failures lead

They compile to the same `Definition` as every other style; the data is the run's state.
"""
