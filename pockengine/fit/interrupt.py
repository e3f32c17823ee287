"""Ctrl-C waits for the step under way."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from pockengine.fit.history import History


class Interrupted(KeyboardInterrupt):
    """Ctrl-C stopped ``fit`` between two steps.

    Args:
        message: where, and what was saved.
        history: of the run so far.
    """

    def __init__(self, message: str, history: History) -> None:
        super().__init__(message)
        self.history = history


class Request:
    """Whether Ctrl-C was pressed."""

    def __init__(self) -> None:
        self.made = False

    def __call__(self, _signal: int, _frame: FrameType | None) -> None:
        """The handler: the first time it is noted, the second time it is at once."""
        if self.made:
            raise KeyboardInterrupt
        self.made = True


@contextmanager
def interruptible() -> Iterator[Request]:
    """Inside, SIGINT is noted; afterwards its handler is the one before.

    Only the main thread may set handlers, and an ignored SIGINT (``nohup``) stays ignored: nothing
    is changed there.
    """
    request = Request()
    before = None
    if threading.current_thread() is threading.main_thread():
        before = signal.getsignal(signal.SIGINT)
    if not callable(before):
        yield request
        return
    signal.signal(signal.SIGINT, request)
    try:
        yield request
    finally:
        signal.signal(signal.SIGINT, before)
