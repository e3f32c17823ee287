"""What a trainer takes of its machine's memory, flash and RAM apart."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from pockengine.lower.link import build_object_file
from pockengine.runtime.elf import code_bytes
from pockengine.runtime.encoding import encode
from pockengine.runtime.image import Image
from pockengine.runtime.library import CORE, CSRC
from pockengine.targets import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Bytes of a trainer on its machine. Parameters' and state's first values lie in flash as well.

    Args:
        core_bytes: code of the runtime.
        kernel_bytes: code and constants of the kernels.
        descriptor_bytes: the tables.
        const_bytes: frozen values.
        param_bytes: updated values.
        state_bytes: the optimizer's state.
        arena_bytes: transient values.
    """

    core_bytes: int
    kernel_bytes: int
    descriptor_bytes: int
    const_bytes: int
    param_bytes: int
    state_bytes: int
    arena_bytes: int

    @property
    def flash_bytes(self) -> int:
        """Everything but the arena."""
        return sum(size for _, size in self.rows()) - self.arena_bytes

    @property
    def ram_bytes(self) -> int:
        """What is written: parameters, state and arena."""
        return self.param_bytes + self.state_bytes + self.arena_bytes

    def rows(self) -> list[tuple[str, int]]:
        """Each part by its name in words."""
        return [
            ("runtime core", self.core_bytes),
            ("kernels", self.kernel_bytes),
            ("descriptor", self.descriptor_bytes),
            ("const", self.const_bytes),
            ("param", self.param_bytes),
            ("state", self.state_bytes),
            ("arena", self.arena_bytes),
        ]


def footprint(image: Image) -> Footprint:
    """Measure a trainer of another target than the host.

    Raises:
        BuildError: the core does not compile, or a kernel is missing from the cache.
    """
    const, param, state, arena = image.descriptor.region_bytes
    return Footprint(
        core_bytes=_core_bytes(image.target),
        kernel_bytes=sum(map(code_bytes, image.kernel_objects())),
        descriptor_bytes=len(encode(image.descriptor)),
        const_bytes=const,
        param_bytes=param,
        state_bytes=state,
        arena_bytes=arena,
    )


def _core_bytes(target: Target) -> int:
    flags = ["-ffreestanding", "-fno-unwind-tables", "-ffunction-sections", f"-I{CSRC / 'bare'}"]
    if target.zig_cpu is not None:
        flags.append(f"-mcpu={target.zig_cpu}")
    with tempfile.TemporaryDirectory(prefix="pockengine-") as folder:
        objects = [
            build_object_file(
                source,
                triple=str(target.zig_triple),
                output=Path(folder) / f"{source.stem}.o",
                flags=flags,
            )
            for source in CORE
        ]
        return sum(code_bytes(each.read_bytes()) for each in objects)
