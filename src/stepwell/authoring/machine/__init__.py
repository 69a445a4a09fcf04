"""Durable state machines: classes of small steps that say where to go next.

    returns.py     what a step returns: goto, sleep, wait, complete, fail, run_subflow
    define.py      the decorators, and what they check of a class
    scan.py        where a step may go, read from its code
    context.py     the run's Context: how it is kept, and what is merged into it
    plan.py        runs that begin later: event workflows with offsets, schedules
    compile.py     a class as a program: one definition, one handler for each step

They compile to the same `Definition` as every other style. The state of a run is its Context and
lives in the run's state; the messages between steps are empty, but for what woke a wait.
"""
