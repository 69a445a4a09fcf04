"""The demonstration: `make demo`, or `python -m stepwell.demo`.

    research.py   the workflow: an ordinary one, and all that is shown
    outside.py    the world outside of it: a log of side effects that no crash can undo
    worker.py     the process that is killed
    audit.py      what was done how often, by that log and by the journal, and whether that is right
    screen.py     the terminal
    __main__.py   the play, in order

It exits with 0 only if everything it said was checked and found to be so.
"""
