"""Ctrl-C and SIGTERM: the first asks, the second does not."""

from __future__ import annotations

import asyncio
import signal
from types import FrameType
from typing import Any

from stepwell.cli.engines import end_now
from stepwell.cli.options import Exit


class Interrupts:
    """While entered, the first signal sets `asked`, and the second ends the process now. What was
    committed is safe; the rest is taken over.

    Works with any event loop, since the handler only tells the loop. Must be entered in the main
    thread.
    """

    def __init__(self, *signals: signal.Signals) -> None:
        self.asked = asyncio.Event()
        self.signal: int | None = None
        self._signals = signals
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        loop = asyncio.get_running_loop()

        def handle(number: int, _frame: FrameType | None) -> None:
            if self.signal is not None:
                end_now(Exit.INTERRUPTED)
            self.signal = number
            loop.call_soon_threadsafe(self.asked.set)

        for number in self._signals:
            self._before[number] = signal.signal(number, handle)
        return self

    def __exit__(self, *_error: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
