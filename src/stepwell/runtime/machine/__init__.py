"""State machines from plain code: the engine in a background thread, and runs as objects.

    engine.py     WorkflowEngine: start, signal, cancel, emit, queries; each with an async twin
    starting.py   a run is started, and shown as it was created
    emitting.py   events: what they start, plan, move and wake
    executors.py  where it runs: a loop in a thread of its own, or what a test provides
    runs.py       WorkflowRun: a run as an object; how it is read from the store
    queries.py    engine.runs: filter, get, count

Nothing here advances a run: that is the engine's and its worker's, as for every other style.
"""
