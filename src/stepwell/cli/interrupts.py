"""Ctrl-C and SIGTERM: the first asks, the second does not."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any


class Interrupts:
    """While entered, the first signal sets `asked`; what the second does is up to `second`.

    Works with any event loop, since the handler only tells the loop. Must be entered in the main
    thread.
    """

    def __init__(self, *signals: signal.Signals, second: Callable[[int], None]) -> None:
        self.asked = asyncio.Event()
        self.signal: int | None = None
        self._signals = signals
        self._second = second
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        loop = asyncio.get_running_loop()

        def handle(number: int, _frame: FrameType | None) -> None:
            if self.signal is not None:
                self._second(number)
                return
            self.signal = number
            loop.call_soon_threadsafe(self.asked.set)

        for number in self._signals:
            self._before[number] = signal.signal(number, handle)
        return self

    def __exit__(self, *_error: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
