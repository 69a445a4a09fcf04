"""What the tests of the pools have done in other processes, which import it from here."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path


class Odd(Exception):
    """It can be sent, and can't be received: it wants two arguments and remembers one."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(one)


class Own(Exception):
    pass


class OneWay:
    """It can be sent, and not be received by those who ask for it."""

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return int, ("not a number",)


def echo(x: object) -> object:
    return x


def pid() -> int:
    return os.getpid()


def fail(what: str) -> None:
    raise {"own": Own("mine"), "odd": Odd(1, 2), "key": KeyError("k")}[what]


def fail_with_lock() -> None:
    error = Own("held")
    error.lock = threading.Lock()  # type: ignore[attr-defined]
    raise error


def give(what: str) -> object:
    return {"lock": threading.Lock, "one-way": OneWay}[what]()


def die(how: str) -> None:
    if how == "exit":
        os._exit(7)
    elif how == "leave":
        sys.exit(5)
    os.kill(os.getpid(), signal.Signals[how])
    time.sleep(1000)  # noqa: TID251 - the signal comes first


def hang(path: str, held: object = None) -> None:
    """Say who it is, and go on for longer than any test."""
    part = Path(f"{path}.part")
    part.write_text(str(os.getpid()))
    part.replace(path)
    time.sleep(1000)  # noqa: TID251 - it is killed long before


def spin(path: str) -> None:
    """Like `hang`, busy."""
    Path(path).write_text(str(os.getpid()))
    while True:
        pass


def speak(word: str) -> None:
    print("out", word)
    print("err", word, file=sys.stderr)


def interrupted() -> str:
    """Ctrl-C, as the terminal would send it to this process too."""
    os.kill(os.getpid(), signal.SIGINT)
    return "went on"


def interruptible() -> str:
    """How a program that is started here finds the signal of Ctrl-C."""
    look = (
        "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler, "
        "signal.pthread_sigmask(signal.SIG_BLOCK, []))"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def generate() -> object:
    yield 1


async def coroutine() -> None:
    pass


class Bound:
    def __init__(self, held: object = None) -> None:
        self.held = held

    def method(self) -> object:
        return self.held

    def __call__(self) -> object:
        return self.held
