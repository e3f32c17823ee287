"""What works on this machine and what is missing, with a remedy for each."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from pockengine.errors import PockEngineError
from pockengine.lower.features import host_target
from pockengine.lower.link import cache_dir
from pockengine.report.storage import stored
from pockengine.runtime.library import library
from pockengine.runtime.threads import default_threads, two_core_rate
from pockengine.targets import TARGETS
from pockengine.tasks import sources
from pockengine.tasks.payload import Payload, payload_dir

PYTHON = (3, 11)
PINNED = {"torch": "2.13", "apache-tvm": "0.27"}
PACKAGES = "click matplotlib numpy pillow safetensors scipy tabulate ziglang".split()
_CLIENTS = {"pypi": "pip", "pypi-sdist": "pip", "debian": "apt-get", "npm": "npm"}
_ROOM_BYTES = 1 << 30
_TOLERANCE = 1e-4
_SECONDS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What was looked at.

    Args:
        name: in words.
        ok: whether it works.
        needed: whether compiling and training on this machine needs it.
        found: what is there.
        remedy: what to do where it does not work.
    """

    name: str
    ok: bool
    needed: bool
    found: str
    remedy: str = ""

    @property
    def status(self) -> str:
        """``ok``, ``missing``, or ``optional`` for what is missing and not needed."""
        if self.ok:
            return "ok"
        return "missing" if self.needed else "optional"


def examine(*, self_test: bool = True) -> list[Check]:
    """Everything that this machine is examined for; what fails is a check that is not ok.

    Args:
        self_test: whether a small trainer is compiled and compared with PyTorch.
    """
    parts = [_system, _packages, _processor, _cache, _compiler, _threads]
    parts += [_step] if self_test else []
    parts += [_emulators, _sanitizers, _registries]
    return [check for part in parts for check in _guarded(part)]


def healthy(checks: list[Check]) -> bool:
    """Whether all that is needed works."""
    return all(check.ok for check in checks if check.needed)


def doctor_table(checks: list[Check]) -> str:
    """The checks, one a line, then what to do about those that failed."""
    rows = [(check.status, check.name, check.found) for check in checks]
    failed = [check for check in checks if not check.ok]
    remedies = [f"{check.status} - {check.name}: {check.remedy}" for check in failed]
    verdict = "All that is needed works." if healthy(checks) else "Something needed is missing."
    table = tabulate(rows, headers=("", "what", "found"), maxcolwidths=[None, None, 70])
    return "\n".join([table, "", *remedies, *([""] if remedies else []), verdict])


def _guarded(part: Callable[[], Iterator[Check]]) -> list[Check]:
    """What a part found; an error in it is a check of its own."""
    checks: list[Check] = []
    try:
        checks.extend(part())
    except PockEngineError as error:
        checks.append(_failed(part, f"{error.where}: {error.found}", error.remedy))
    except Exception as error:  # noqa: BLE001 - whatever is broken, the rest is examined
        found = f"{type(error).__name__}: {error}"
        checks.append(_failed(part, found, "Reinstall: pip install --force-reinstall pockengine"))
    return checks


def _failed(part: Callable[[], Iterator[Check]], found: str, remedy: str) -> Check:
    return Check(
        name=part.__name__.strip("_"),
        ok=False,
        needed=True,
        found=" ".join(found.split()),
        remedy=remedy,
    )


def _system() -> Iterator[Check]:
    yield Check(
        name="operating system",
        ok=platform.system() == "Linux",
        needed=False,
        found=f"{platform.system()} {platform.release()}",
        remedy="Only Linux is measured and tested; macOS and Windows are unrun",
    )
    yield Check(
        name="Python",
        ok=sys.version_info >= PYTHON,
        needed=True,
        found=platform.python_version(),
        remedy=f"Install Python {PYTHON[0]}.{PYTHON[1]} or newer",
    )


def _packages() -> Iterator[Check]:
    for name, version in PINNED.items():
        found = _version(name)
        yield Check(
            name=name,
            ok=found is not None and found.startswith(f"{version}."),
            needed=True,
            found=found or "not installed",
            remedy=f"pip install '{name}=={version}.*'",
        )
    missing = [name for name in PACKAGES if _version(name) is None]
    yield Check(
        name="other packages",
        ok=not missing,
        needed=True,
        found=f"without {', '.join(missing)}" if missing else f"all {len(PACKAGES)}",
        remedy=f"pip install {' '.join(missing)}",
    )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> Iterator[Check]:
    target = host_target()
    features = [feature[1:] for feature in target["mattr"] if feature.startswith("+")]
    yield Check(
        name="processor",
        ok=True,
        needed=True,
        found=f"{target['mtriple'].split('-')[0]}, as {target['mcpu']}: {' '.join(features)}",
    )


def _cache() -> Iterator[Check]:
    folder = cache_dir()
    remedy = "Set XDG_CACHE_HOME to a folder that can be written, with a gigabyte free"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            free = shutil.disk_usage(folder).free
    except OSError as error:
        found = f"{folder} cannot be written ({error.strerror})"
        yield Check(name="cache folder", ok=False, needed=True, found=found, remedy=remedy)
        return
    used = sum(part.nbytes for part in stored())
    found = f"{folder}: {used >> 20} MiB used, {free >> 20} MiB free"
    yield Check(name="cache folder", ok=free > 0, needed=True, found=found, remedy=remedy)
    yield Check(
        name="room on disk",
        ok=free >= _ROOM_BYTES,
        needed=False,
        found=f"{free >> 20} MiB",
        remedy="Free a gigabyte, or lower POCKENGINE_CACHE_BYTES",
    )


def _compiler() -> Iterator[Check]:
    library()
    yield Check(
        name="C compiler",
        ok=True,
        needed=True,
        found=f"zig {_version('ziglang')} builds for this machine and the targets",
    )


def _threads() -> Iterator[Check]:
    cores = os.cpu_count() or 1
    chosen = default_threads()
    rate = f", two do {two_core_rate():.2f} times the work of one" if cores > 1 else ""
    yield Check(
        name="threads", ok=True, needed=True, found=f"{cores} cores{rate}; a step uses {chosen}"
    )


def _step() -> Iterator[Check]:
    """A small trainer against PyTorch."""
    from pockengine.report.self_test import step_error  # noqa: PLC0415 - imports the compiler

    error = step_error()
    yield Check(
        name="self test",
        ok=error <= _TOLERANCE,
        needed=True,
        found=f"compiled, three steps, losses within {error:.0e} of PyTorch's",
        remedy="`pockengine cache --clear kernels`, then again; if it stays, please report it",
    )


def _emulators() -> Iterator[Check]:
    programs: dict[str, list[str]] = {}
    for target in TARGETS.values():
        if target.emulator:
            programs.setdefault(target.emulator[0], []).append(target.name)
    for program, names in programs.items():
        place = shutil.which(program)
        yield Check(
            name=f"emulator {program}",
            ok=place is not None,
            needed=False,
            found=place or "not installed",
            remedy=f"Install QEMU to run trainers for {', '.join(names)} here",
        )


def _sanitizers() -> Iterator[Check]:
    compiler = shutil.which("gcc") or shutil.which("clang")
    works = compiler is not None and _links_sanitizers(compiler)
    yield Check(
        name="sanitizers",
        ok=works,
        needed=False,
        found=compiler or "neither gcc nor clang",
        remedy="Install gcc with libasan and libubsan to run the runtime's own tests",
    )


def _links_sanitizers(compiler: str) -> bool:
    with tempfile.TemporaryDirectory(prefix="pockengine-") as folder:
        source = Path(folder) / "main.c"
        source.write_text("int main(void) { return 0; }\n")
        command = [compiler, "-fsanitize=address,undefined", str(source), "-o", f"{folder}/main"]
        done = subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False)
        return done.returncode == 0


def _registries() -> Iterator[Check]:
    """What the demo's models and data need: a cached payload, or the client that fetches it."""
    offline = bool(os.environ.get("POCKENGINE_OFFLINE"))
    wanted = [payload for payload in vars(sources).values() if isinstance(payload, Payload)]
    missing = [payload for payload in wanted if not _is_cached(payload)]
    yield Check(
        name="models and data",
        ok=not missing or not offline,
        needed=False,
        found=f"{len(wanted) - len(missing)} of {len(wanted)} are here"
        + (", POCKENGINE_OFFLINE is set" if offline else ""),
        remedy="Unset POCKENGINE_OFFLINE to fetch them, or use the tasks shapes and phrases",
    )
    for client in sorted({_CLIENTS[payload.registry] for payload in missing}):
        names = ", ".join(p.name for p in missing if _CLIENTS[p.registry] == client)
        place = sys.executable if client == "pip" else shutil.which(client)
        yield Check(
            name=f"fetching by {client}",
            ok=place is not None,
            needed=False,
            found=place or "not installed",
            remedy=f"Without it these cannot be fetched: {names}",
        )


def _is_cached(payload: Payload) -> bool:
    return (payload_dir() / f"{payload.name}-{payload.sha256[:16]}").exists()
