"""A virtual environment for each peer that needs one, with pinned packages; made once."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).parent
REQUIREMENTS = HERE / "peers" / "requirements"
ENVIRONMENTS = HERE / ".environments"
_TIMEOUT_S = 1800


class NotInstalledError(Exception):
    """An environment that cannot be made; the message says why."""


def python_of(name: str, folder: Path = ENVIRONMENTS) -> str:
    """The interpreter of an environment, which is made where it is not there as pinned.

    Args:
        name: of a file of requirements; where there is none, the environment is this one.
        folder: where environments are kept.

    Raises:
        NotInstalledError: its packages cannot be installed.
    """
    wanted = REQUIREMENTS / f"{name}.txt"
    if not wanted.exists():
        return sys.executable
    home = folder / name
    python = home / "bin" / "python"
    mark = home / "installed"
    digest = hashlib.sha256(wanted.read_bytes()).hexdigest()
    if mark.exists() and mark.read_text() == digest:
        return str(python)
    folder.mkdir(parents=True, exist_ok=True)
    venv.create(home, clear=True, with_pip=True)
    _install(python, wanted)
    mark.write_text(digest)
    return str(python)


def _install(python: Path, wanted: Path) -> None:
    """Install what is pinned, and nothing that it merely may use."""
    command = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "-r", str(wanted)]
    quiet = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(
        command, env=quiet, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "ERROR" in line]
        raise NotInstalledError((lines or ["pip failed"])[-1].removeprefix("ERROR: ")[:200])
