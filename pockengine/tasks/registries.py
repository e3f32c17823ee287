"""Download one package file from a registry, through the registry's own client as configured here.

Nothing of a package is run: a source distribution's own build is replaced by an empty one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

_TIME_LIMIT_S = 900

# A PEP 517 back end that answers pip's question for metadata itself, so that `pip download` of a
# source distribution neither runs its setup.py nor fetches anything to build it with.
_EMPTY_BACKEND = """
import os, pathlib
class __legacy__:
    @staticmethod
    def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
        name, version = os.environ["PAYLOAD_NAME"], os.environ["PAYLOAD_VERSION"]
        folder = f"{name}-{version}.dist-info"
        text = f"Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n"
        path = pathlib.Path(metadata_directory, folder)
        path.mkdir()
        (path / "METADATA").write_text(text)
        return folder
"""


class RegistryError(Exception):
    """A client is missing or failed; the text is one line fit for a user."""


def download(registry: str, package: str, version: str, folder: Path) -> Path:
    """Download a package, without its dependencies, into an empty folder.

    Args:
        registry: a key of ``REGISTRIES``.
        package: the package's name there.
        version: the exact version, or "" for the one that the registry offers.
        folder: an empty folder.

    Returns:
        The package's file inside ``folder``.

    Raises:
        RegistryError: the client is missing, failed, or took over 15 minutes.
    """
    REGISTRIES[registry](package, version, folder)
    found = [path for path in folder.iterdir() if path.is_file()]
    if len(found) != 1:
        message = f"the client left {len(found)} files for {package}"
        raise RegistryError(message)
    return found[0]


def _pypi_wheel(package: str, version: str, folder: Path) -> None:
    wanted = f"{package}=={version}" if version else package
    _pip(["--only-binary", ":all:", "--dest", str(folder), wanted], folder)


def _pypi_sdist(package: str, version: str, folder: Path) -> None:
    backend = folder / "backend" / "setuptools"
    backend.mkdir(parents=True)
    (backend / "__init__.py").touch()
    (backend / "build_meta.py").write_text(_EMPTY_BACKEND)
    environment = {
        "PYTHONPATH": str(backend.parent),
        "PAYLOAD_NAME": package,
        "PAYLOAD_VERSION": version,
    }
    options = ["--no-binary", ":all:", "--no-build-isolation", "--use-pep517"]
    _pip([*options, "--dest", str(folder), f"{package}=={version}"], folder, environment)


def _pip(
    arguments: Sequence[str], folder: Path, environment: Mapping[str, str] = MappingProxyType({})
) -> None:
    options = ["--no-deps", "--quiet", "--disable-pip-version-check", "--no-input"]
    pip = [sys.executable, "-m", "pip", "download", *options, "--retries", "1", "--timeout", "20"]
    _call([*pip, *arguments], folder, environment)


def _debian(package: str, version: str, folder: Path) -> None:
    wanted = f"{package}={version}" if version else package
    try:
        _call(["apt-get", "download", wanted], folder)
    except RegistryError:  # no package lists on this machine, or old ones: use fresh private ones
        options: list[str] = []
        for name, key in (("lists", "State::lists"), ("cache", "Cache")):
            (folder / "apt" / name / "partial").mkdir(parents=True)
            options += ["-o", f"Dir::{key}={folder / 'apt' / name}"]
        _call(["apt-get", *options, "update"], folder)
        _call(["apt-get", *options, "download", wanted], folder)


def _npm(package: str, version: str, folder: Path) -> None:
    wanted = f"{package}@{version}" if version else package
    _call(["npm", "pack", "--ignore-scripts", "--silent", wanted], folder)


REGISTRIES: Mapping[str, Callable[[str, str, Path], None]] = MappingProxyType(
    {"pypi": _pypi_wheel, "pypi-sdist": _pypi_sdist, "debian": _debian, "npm": _npm}
)
"""Registry (and form of package) -> how to download ``(package, version)`` into a folder."""


def _call(
    command: Sequence[str], folder: Path, environment: Mapping[str, str] = MappingProxyType({})
) -> None:
    try:
        result = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIME_LIMIT_S,
            check=False,
        )
    except FileNotFoundError as error:
        message = f"{command[0]} is not installed"
        raise RegistryError(message) from error
    except subprocess.TimeoutExpired as error:
        message = f"{command[0]} took over {_TIME_LIMIT_S} s"
        raise RegistryError(message) from error
    if result.returncode != 0:
        lines = (result.stderr or result.stdout).strip().splitlines() or ["no message"]
        message = f"{Path(command[0]).name} failed ({lines[-1].strip()})"
        raise RegistryError(message)
