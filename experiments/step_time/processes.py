"""Peers in processes of their own, which take turns: all but one are stopped by a signal."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
_MODULES = "experiments.step_time.peers"
_TIMEOUT_S = 1800.0
_QUIET = {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "2"}


class PeerError(Exception):
    """A peer that cannot prepare or do a step; the message is its last words."""


class PeerProcess:
    """A peer, ready and stopped: it uses no processor time but while it is asked.

    Args:
        name: of its module.
        python: the interpreter of its environment.
        case: the workload.
        data: the workload's file.
        cores: those that it may run on, one for each thread.

    Raises:
        PeerError: it did not get ready.
    """

    def __init__(
        self, name: str, python: str, case: str, data: Path, cores: frozenset[int]
    ) -> None:
        self._words = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - closed with the process
        self._heard = b""
        threads = str(len(cores))
        self._answers, channel = os.pipe()
        options = ["--threads", threads, "--channel", str(channel)]
        command = [python, "-m", f"{_MODULES}.{name}", case, str(data), *options]
        with _pinned(cores):
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **_environment(threads)},
                stdin=subprocess.PIPE,
                stdout=self._words,
                stderr=self._words,
                pass_fds=(channel,),
                start_new_session=True,
            )
        os.close(channel)
        try:
            self.told = self._answer()
        except PeerError:
            self.end()
            raise
        self._stop()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def resident_bytes(self) -> int:
        """Physical memory that it has now, as Linux tells it."""
        lines = Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmRSS"))

    def ask(self, request: Mapping[str, object]) -> dict[str, Any]:
        """Let it run until it has answered.

        Raises:
            PeerError: it ended, or took too long.
        """
        assert self._process.stdin is not None
        self._signal(signal.SIGCONT)
        try:
            self._process.stdin.write((json.dumps(request) + "\n").encode())
            self._process.stdin.flush()
            return self._answer()
        except BrokenPipeError as error:
            raise PeerError(self._last_words()) from error
        finally:
            self._stop()

    def end(self) -> None:
        """End it, and all that it started."""
        self._signal(signal.SIGKILL)
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._words.close()
        os.close(self._answers)

    def _answer(self) -> dict[str, Any]:
        """Its next line."""
        deadline = time.monotonic() + _TIMEOUT_S
        with selectors.DefaultSelector() as selector:
            selector.register(self._answers, selectors.EVENT_READ)
            while b"\n" not in self._heard:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise PeerError(f"no answer in {_TIMEOUT_S:.0f} s")
                part = os.read(self._answers, 1 << 16)
                if not part:
                    raise PeerError(self._last_words())
                self._heard += part
        line, _, self._heard = self._heard.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    def _last_words(self) -> str:
        """The last line that it printed, or how it ended."""
        self._process.wait()
        self._words.seek(0)
        lines = [line.strip() for line in self._words.read().splitlines() if line.strip()]
        code = self._process.returncode
        return lines[-1][:200] if lines and code > 0 else f"ended with {code}"

    def _stop(self) -> None:
        """Stop it, and wait until it has: nothing of it runs in another's turn."""
        self._signal(signal.SIGSTOP)
        if self._process.returncode is None:
            one = (os.P_PID, self._process.pid)
            os.waitid(*one, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            os.waitid(*one, os.WSTOPPED | os.WNOHANG)  # told once

    def _signal(self, number: signal.Signals) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, number)


def _environment(count: str) -> dict[str, str]:
    """What libraries read ahead of their work."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    alone = {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"} if count == "1" else {}
    return {**dict.fromkeys(names, count), **alone, **_QUIET}


@contextmanager
def _pinned(cores: frozenset[int]) -> Iterator[None]:
    """Processes that are started meanwhile have these cores."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
