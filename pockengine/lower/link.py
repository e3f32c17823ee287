"""The one place that calls the C compiler: ``zig cc``, for this host and for other machines.

The compiler comes with the package ``ziglang``, so nobody installs a toolchain (decision 15 of the
design). What is built for this host is kept in the user's cache folder under a key of all that went
into it; two processes that build at once both end with a whole file.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from pockengine.errors import BuildError

_SHARED_FLAGS = ("-shared", "-fPIC", "-O2", "-std=c99", "-mcpu=baseline")
_COMMON_FLAGS = ("-fno-sanitize=undefined", "-ffp-contract=off")


def cache_dir() -> Path:
    """The folder everything built is kept in, which need not exist yet.

    It is ``$XDG_CACHE_HOME/pockengine``, or ``~/.cache/pockengine`` where that is not set.
    """
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "pockengine"


def unwritable(root: Path, error: OSError) -> BuildError:
    """The error of a cache folder that cannot be written."""
    return BuildError(
        where=f"kernel cache {root}",
        found=f"cannot write ({error.strerror})",
        needed="a folder with room for some megabytes",
        remedy="free space there, or set XDG_CACHE_HOME",
    )


def build_shared(sources: Sequence[Path], *, name: str, flags: Sequence[str] = ()) -> Path:
    """A shared library for this host, built unless the same was built before.

    Args:
        sources: C files; the headers in their folders count as part of them.
        name: the folder in the cache and the file name of the library.
        flags: further compiler flags.

    Returns:
        The library, ``<cache>/<name>/<key>/lib<name>.so``.

    Raises:
        BuildError: the compiler refused, its messages are in ``found``; or the cache folder cannot
            be written.
    """
    all_flags = (*_SHARED_FLAGS, *_COMMON_FLAGS, *flags)
    library = cache_dir() / name / _key(sources, all_flags) / f"lib{name}.so"
    if not library.exists():
        try:
            library.parent.mkdir(parents=True, exist_ok=True)
            _compile([*all_flags, *map(str, sources)], library)
        except OSError as error:
            raise unwritable(cache_dir(), error) from error
    return library


def build_executable(
    sources: Sequence[Path],
    objects: Sequence[Path],
    *,
    triple: str,
    output: Path,
    flags: Sequence[str] = (),
    linker_script: Path | None = None,
) -> Path:
    """A program for another machine, from C files and ready objects.

    Args:
        sources: C (or assembler) files.
        objects: object files of the same target.
        triple: the target as zig names it, such as ``aarch64-linux-musl``.
        output: where the program is written; replaced whole or not at all.
        flags: further flags, such as ``-mcpu=cortex_m7`` or ``-static``.
        linker_script: the memory layout of a machine without an operating system.

    Returns:
        ``output``.

    Raises:
        BuildError: the compiler or linker refused; their messages are in ``found``.
    """
    script = ("-T", str(linker_script)) if linker_script else ()
    inputs = [str(path) for path in (*sources, *objects)]
    _compile(["-target", triple, "-O2", *_COMMON_FLAGS, *flags, *script, *inputs], output)
    return output


def build_object_file(
    source: Path, *, triple: str, output: Path, flags: Sequence[str] = ()
) -> Path:
    """One C file compiled for another machine, unlinked and for small size.

    Args:
        source: the C file.
        triple: the target as zig names it.
        output: where the object file is written; replaced whole or not at all.
        flags: further flags, such as ``-mcpu=cortex_m7``.

    Returns:
        ``output``.

    Raises:
        BuildError: the compiler refused; its messages are in ``found``.
    """
    _compile(["-target", triple, "-Os", "-c", *_COMMON_FLAGS, *flags, str(source)], output)
    return output


def build_archive(objects: Sequence[Path], output: Path) -> Path:
    """A static library, the same bytes for the same objects.

    Args:
        objects: object files of one target.
        output: the library; replaced whole or not at all.

    Returns:
        ``output``.

    Raises:
        BuildError: the archiver refused.
    """
    _run(lambda built: ["ar", "rcsD", built, *map(str, objects)], output)
    return output


def _key(sources: Sequence[Path], flags: Sequence[str]) -> str:
    """Sixteen hex digits of everything that decides the bytes of the library."""
    headers = {header for source in sources for header in source.parent.glob("*.h")}
    compiler = importlib.metadata.version("ziglang")
    digest = hashlib.sha256(repr((tuple(flags), compiler, _machine())).encode())
    for path in (*sources, *sorted(headers)):
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)} ".encode() + content)
    return digest.hexdigest()[:16]


def _machine() -> tuple[str, ...]:
    """What the library links against: system, processor family, C library."""
    return (platform.system(), platform.machine(), *platform.libc_ver())


def _compile(arguments: Sequence[str], output: Path) -> None:
    """Run ``zig cc``; what it makes becomes ``output``."""
    _run(lambda built: ["cc", *arguments, "-o", built], output)


def _run(command_for: Callable[[str], list[str]], output: Path) -> None:
    """Run a tool of zig into a temporary folder beside ``output``, then rename into place."""
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".build-") as folder:
        built = Path(folder) / output.name
        command = [sys.executable, "-m", "ziglang", *command_for(str(built))]
        done = subprocess.run(
            command, env=_environment(), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise BuildError(
                where=f"building {output.name}",
                found=f"zig {command[3]} stopped with {done.returncode}: {done.stderr.strip()}",
                needed="what compiles and links for the target",
                remedy=f"The command was: {' '.join(command[1:])}",
            )
        built.replace(output)


def _environment() -> dict[str, str]:
    """The compiler's own cache lies in ours: nothing appears beside the sources."""
    folder = str(cache_dir() / "zig")
    return {**os.environ, "ZIG_GLOBAL_CACHE_DIR": folder, "ZIG_LOCAL_CACHE_DIR": folder}
