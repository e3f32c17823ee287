"""Saving survives what disks do: loss of power, no room, errors, kills, other processes."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from stat import S_ISDIR
from textwrap import dedent

import pytest
import torch
from torch import Tensor

from pockengine.checkpoint import read_checkpoint, write_checkpoint
from pockengine.disk import SYSTEM, SystemDisk, replace_file
from pockengine.errors import CheckpointError
from tests.conftest import MORE
from tests.power_loss import ForgetfulDisk, Moment

_PATH = Path("/runs/user.ckpt")
_TURNS = 40 * MORE


def _tensors(value: float) -> dict[str, Tensor]:
    """Some 6 KB in five tensors."""
    sizes = (700, 300, 256, 130, 1)
    return {f"layer{i}.weight": torch.full((size,), value) for i, size in enumerate(sizes)}


def _save(disk: ForgetfulDisk, value: float) -> None:
    write_checkpoint(_PATH, _tensors(value), {"value": str(value)}, disk)


def _file(value: float) -> bytes:
    disk = ForgetfulDisk()
    _save(disk, value)
    return disk.now.current()[_PATH]


def _value(content: bytes, folder: Path) -> float:
    """What a checkpoint holds, once it is found whole.

    Raises:
        CheckpointError: it is not.
    """
    file = folder / "survivor"
    file.write_bytes(content)
    tensors, metadata = read_checkpoint(file)
    value = float(metadata["value"])
    assert all(torch.equal(t, _tensors(value)[name]) for name, t in tensors.items())
    return value


def _survivors(
    moment: Moment, folder: Path, found: dict[bytes | None, float | None]
) -> list[float | None]:
    """What is at the path after each outcome: a value, or None for no file."""
    chance = random.Random(len(moment.changes))  # noqa: S311 - not for secrets
    values = []
    for outcome in moment.outcomes(chance, _TURNS):
        content = outcome.get(_PATH)
        if content not in found:
            found[content] = None if content is None else _value(content, folder)
        values.append(found[content])
    return values


@pytest.mark.parametrize("old", [1.0, None])
def test_power_loss(tmp_path: Path, old: float | None) -> None:
    """At every operation and whatever survives: the old or the new, whole; at the end, the new."""
    disk = ForgetfulDisk()
    if old is not None:
        disk.put(_PATH, _file(old))
    disk.put(_PATH.with_name(f".{_PATH.name}.0.new"), b"left by a writer that was killed")
    _save(disk, 2.0)
    found: dict[bytes | None, float | None] = {}
    values = [_survivors(moment, tmp_path, found) for moment in disk.moments]
    assert sum(map(len, values)) >= 1000
    assert {value for each in values for value in each} == {old, 2.0}
    assert set(values[0]) == {old}
    assert set(values[-1]) == {2.0}
    assert disk.now.current().keys() == {_PATH}


def test_power_loss_and_then_another_save(tmp_path: Path) -> None:
    """Whatever a loss of power left, the next save works and clears it away."""
    disk = ForgetfulDisk()
    disk.put(_PATH, _file(1.0))
    _save(disk, 2.0)
    chance = random.Random(0)  # noqa: S311 - not for secrets
    for moment in disk.moments:
        for outcome in moment.outcomes(chance, 2):
            after = ForgetfulDisk()
            for path, content in outcome.items():
                after.put(path, content)
            _save(after, 3.0)
            assert after.now.current().keys() == {_PATH}
            assert _value(after.now.current()[_PATH], tmp_path) == 3.0


class _NoFileSync(ForgetfulDisk):
    def fsync(self, handle: int) -> None:
        """Claims to have done it."""


class _NoFolderSync(ForgetfulDisk):
    def fsync_folder(self, folder: Path) -> None:
        """Claims to have done it."""


def _in_place(disk: ForgetfulDisk) -> None:
    handle = disk.create(_PATH)
    disk.write(handle, memoryview(_file(2.0)))
    disk.fsync(handle)
    disk.fsync_folder(_PATH.parent)


def test_the_test_sees_a_missing_sync(tmp_path: Path) -> None:
    """Without a sync of the file there are torn ones; without the folder's, the old one at last."""

    def all_values(
        disk: ForgetfulDisk, save: Callable[[ForgetfulDisk], None]
    ) -> list[float | None]:
        disk.put(_PATH, _file(1.0))
        save(disk)
        found: dict[bytes | None, float | None] = {}
        return [_survivors(moment, tmp_path, found) for moment in disk.moments][-1]

    with pytest.raises(CheckpointError, match=r"truncated|corrupt"):
        all_values(_NoFileSync(), lambda disk: _save(disk, 2.0))
    assert set(all_values(_NoFolderSync(), lambda disk: _save(disk, 2.0))) == {1.0, 2.0}
    assert set(all_values(ForgetfulDisk(), lambda disk: _save(disk, 2.0))) == {2.0}
    disk = ForgetfulDisk()
    disk.put(_PATH, _file(1.0))
    _in_place(disk)
    with pytest.raises(CheckpointError, match=r"truncated|corrupt"):
        [_survivors(moment, tmp_path, {}) for moment in disk.moments]


def test_every_operation_may_fail(tmp_path: Path) -> None:
    """An error of the disk is a CheckpointError; the old file is there, but for the last sync."""
    whole = ForgetfulDisk()
    whole.put(_PATH, _file(1.0))
    _save(whole, 2.0)
    for broken in range(whole.operations):
        disk = ForgetfulDisk(broken=broken)
        disk.put(_PATH, _file(1.0))
        with pytest.raises(CheckpointError, match=r"Input/output error.* there before is whole"):
            _save(disk, 2.0)
        last = broken == whole.operations - 1
        assert disk.now.current().keys() == {_PATH}
        assert _value(disk.now.current()[_PATH], tmp_path) == (2.0 if last else 1.0)


@pytest.mark.parametrize("room", [0, 100, 4000, 6000])
def test_full_disk(tmp_path: Path, room: int) -> None:
    """What does not fit leaves the old file, and nothing beside it."""
    disk = ForgetfulDisk(room=len(_file(1.0)) + room)
    disk.put(_PATH, _file(1.0))
    with pytest.raises(CheckpointError, match="No space left on device"):
        _save(disk, 2.0)
    assert disk.now.current().keys() == {_PATH}
    assert _value(disk.now.current()[_PATH], tmp_path) == 1.0


def test_locked(tmp_path: Path) -> None:
    """A second writer waits, then says who is at it; a reader does not care; no lock stays."""
    path = tmp_path / "a.ckpt"
    write_checkpoint(path, _tensors(1.0), {"value": "1.0"})
    with SYSTEM.lock(path) as held:
        assert held
        with pytest.raises(CheckpointError, match=r"another process is writing it.* whole"):
            write_checkpoint(path, _tensors(2.0), {"value": "2.0"}, SystemDisk(patience_s=0.05))
        assert read_checkpoint(path)[1]["value"] == "1.0"
    write_checkpoint(path, _tensors(2.0), {"value": "2.0"}, SystemDisk(patience_s=0))
    assert list(tmp_path.iterdir()) == [path]


def test_a_lock_left_behind(tmp_path: Path) -> None:
    """The file of a killed process's lock is no lock; what it was writing is cleared away."""
    path = tmp_path / "a[1].ckpt"
    (tmp_path / f".{path.name}.lock").touch()
    (tmp_path / f".{path.name}.12ab34cd.new").write_bytes(b"half")
    others = {f".{path.name}{more}.12ab34cd.new" for more in ("x", ".best", ".12ab34cd")}
    for other in others:
        (tmp_path / other).write_bytes(b"another file's, perhaps being written")
    write_checkpoint(path, _tensors(1.0), {}, SystemDisk(patience_s=0))
    assert {p.name for p in tmp_path.iterdir()} == {path.name, *others}


def test_a_disk_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are replaced whole all the same, and others' new files are left alone."""
    fcntl = pytest.importorskip("fcntl")

    def none(*_: int) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", none)
    path, other = tmp_path / "a.ckpt", tmp_path / ".a.ckpt.12ab34cd.new"
    other.write_bytes(b"perhaps someone else's")
    write_checkpoint(path, _tensors(1.0), {})
    assert set(tmp_path.iterdir()) == {path, other}


def test_syncs_of_other_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Mac is asked to empty the drive's cache, else to sync; a folder may be unable to."""
    fcntl = pytest.importorskip("fcntl")
    asked: list[int] = []

    def refuse(_: int, what: int) -> None:
        asked.append(what)
        raise OSError(45, "Operation not supported")

    def sync(handle: int) -> None:
        asked.append(0)
        if S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(22, "Invalid argument")

    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", refuse)
    monkeypatch.setattr(os, "fsync", sync)
    write_checkpoint(tmp_path / "a.ckpt", _tensors(1.0), {})
    assert asked == [51, 0, 0]
    monkeypatch.setattr(fcntl, "fcntl", lambda _, what: asked.append(what))
    write_checkpoint(tmp_path / "a.ckpt", _tensors(1.0), {})
    assert asked[3:] == [51, 0]


def test_links_and_modes(tmp_path: Path) -> None:
    """A link stays one, and what it points to is replaced; others may read what is written."""
    (tmp_path / "deep").mkdir()
    path, link = tmp_path / "deep" / "a.ckpt", tmp_path / "latest"
    path.write_bytes(b"old")
    link.symlink_to(path)
    mask = os.umask(0o022)
    try:
        replace_file(link.resolve(), [memoryview(b"new")])
        write_checkpoint(link, _tensors(1.0), {})
    finally:
        os.umask(mask)
    assert link.is_symlink()
    assert read_checkpoint(path)
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("name", ["no/such/folder", "folder"])
def test_no_place(tmp_path: Path, name: str) -> None:
    """A missing folder, or a folder in the file's place, is told by name."""
    (tmp_path / "folder").mkdir()
    with pytest.raises(CheckpointError, match=r"cannot be written \((No such|Is a directory)"):
        write_checkpoint(tmp_path / name, _tensors(1.0), {})
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="this system has other permissions")
def test_read_only_folder() -> None:
    """No permission is one clear error; the old file can still be read."""
    with tempfile.TemporaryDirectory() as name:
        folder, path = Path(name), Path(name, "a.ckpt")
        write_checkpoint(path, _tensors(1.0), {})
        user = os.geteuid()
        folder.chmod(0o555)
        if user == 0:
            os.seteuid(65534)  # root may write anywhere
        try:
            with pytest.raises(CheckpointError, match="Permission denied"):
                write_checkpoint(path, _tensors(2.0), {})
            assert read_checkpoint(path)
        finally:
            os.seteuid(user)
            folder.chmod(0o755)
        assert list(folder.iterdir()) == [path]


_SCRIPT = """
    import os, random, resource, signal, sys, time
    from pathlib import Path
    import torch
    from pockengine.checkpoint import read_checkpoint, write_checkpoint

    path = Path(sys.argv[1])
    torch.set_num_threads(1)  # OpenMP's threads do not survive a fork

    def save(value):
        tensors = {"a": torch.full((50_000,), float(value)), "b": torch.full((7,), float(value))}
        write_checkpoint(path, tensors, {"value": str(value)})

    def value():
        tensors, metadata = read_checkpoint(path)
        found = int(metadata["value"])
        assert all((t == found).all() for t in tensors.values())
        return found

    def names():
        return sorted(p.name for p in path.parent.iterdir())
"""


_KILL = """
    chance, last = random.Random(0), 0
    save(0)
    for _ in range(20):
        child = os.fork()
        if child == 0:
            while True:
                last += 1
                save(last)
        while value() <= last:
            pass  # it saves
        time.sleep(chance.random() / 100)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert value() > last
        last = value()
    save(last + 1)
    print(last, *names())
"""
_TWO = """
    children = []
    for first in (100, 200):
        child = os.fork()
        if child == 0:
            for step in range(30):
                save(first + step)
            os._exit(0)
        children.append(child)
    for _ in range(100):
        value()
    codes = [os.waitpid(child, 0)[1] for child in children]
    print(*codes, value(), *names())
"""
_LIMIT = """
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    save(1)
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What a process that forks, kills and limits itself printed, line by line."""
    if not hasattr(os, "fork"):
        pytest.skip("this system cannot fork")
    path = tmp_path_factory.mktemp("runs") / "a.ckpt"
    script = "".join(map(dedent, (_SCRIPT, _KILL, _TWO, _LIMIT)))
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(path)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert path.exists(), ran.stderr
    return [*ran.stdout.splitlines(), ran.stderr.splitlines()[-1], str(read_checkpoint(path)[1])]


def test_kill(told: list[str]) -> None:
    """Killed while it saves in a loop, 20 times: each time a whole file, never an older one."""
    last, *names = told[0].split()
    assert int(last) >= 20
    assert names == ["a.ckpt"]


def test_two_processes(told: list[str]) -> None:
    """Both save 30 times to one path: every save succeeds, every reading is whole."""
    assert told[1].split() in (["0", "0", last, "a.ckpt"] for last in ("129", "229"))


def test_no_room_for_a_file(told: list[str]) -> None:
    """The system's own limit on a file's size: an error, and the old file."""
    assert "CheckpointError" in told[2]
    assert "File too large" in told[2]
    assert told[1].split()[2] in told[3]
