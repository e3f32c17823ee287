"""Embeds a trainer and its data in a C program that replays steps on another machine.

The program is `csrc/replay.c`, the core and what this writes. The bytes lie beside the written C
file and enter it by ``#embed``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pockengine.errors import BuildError, PlanError
from pockengine.lower.link import build_executable
from pockengine.runtime.descriptor import Descriptor, Entry
from pockengine.runtime.encoding import encode
from pockengine.runtime.library import CORE, CSRC
from pockengine.runtime.ports import BoundPort
from pockengine.targets import Target

_ALIGNMENT = 16  # of each input within the embedded batches, in bytes
_SOURCES = (CSRC / "replay.c", CSRC / "bare" / "memory.c", *CORE)
_FLAGS = (
    *("-ffreestanding", "-fno-builtin", "-fno-unwind-tables"),
    *("-ffunction-sections", "-Wl,--gc-sections", "-Wno-c23-extensions"),
    *(f"-I{CSRC}", f"-I{CSRC / 'bare'}"),
)
_REGIONS = ("const_region", "param", "state", "arena")  # their names in C


def write_replay(
    path: Path,
    descriptor: Descriptor,
    *,
    const: NDArray[np.uint8],
    param: NDArray[np.uint8],
    state: NDArray[np.uint8],
    inputs_per_step: Sequence[Sequence[NDArray[Any]]],
) -> Path:
    """Write the C file of a trainer and the batches it is to step through.

    Args:
        path: the C file; its data lie beside it as ``<stem>_*.bin``.
        descriptor: the trainer, with an entry point ``step`` whose first output is the loss; its
            kernels are found by name when the program is linked.
        const: the region's bytes.
        param: the region's first bytes.
        state: the region's first bytes.
        inputs_per_step: for each step the inputs of ``step``.

    Returns:
        ``path``.

    Raises:
        InputError: a batch does not fit.
        PlanError: there is no entry point ``step`` with a loss.
    """
    entry = _step_entry(descriptor)
    offsets, batches = _lay_out(entry, inputs_per_step)
    images = dict(zip(_REGIONS, (const, param, state), strict=False))
    parts = [
        '#include "replay.h"\n',
        _embed(path, "descriptor", encode(descriptor), descriptor.region_alignment, "const "),
        _embed(path, "batches", batches, _ALIGNMENT, "const "),
        *(_region(path, descriptor, index, images) for index in range(len(_REGIONS))),
        kernel_table(descriptor),
        _input_table(offsets),
        _output_table(entry),
        _summary(len(descriptor.kernels), len(entry.inputs), len(inputs_per_step)),
    ]
    path.write_text("\n".join(parts))
    return path


def build_linux_replay(
    path: Path, objects: Sequence[Path], *, triple: str, output: Path, flags: Sequence[str] = ()
) -> Path:
    """Link what `write_replay` wrote into a static Linux program, which needs no C library.

    It prints ``loss 0x<bits of the float32>`` for each step.

    Args:
        path: the written C file.
        objects: the kernels' object files.
        triple: the target as zig names it, such as ``aarch64-linux-musl``.
        output: the program.
        flags: further flags, such as ``-mcpu=cortex_a72``.

    Raises:
        BuildError: the program does not compile or link.
    """
    sources = (path, *_SOURCES, CSRC / "linux" / "start.c")
    all_flags = (*_FLAGS, "-nostdlib", "-static", *flags)
    return build_executable(sources, objects, triple=triple, output=output, flags=all_flags)


def build_cortex_m_replay(
    path: Path, objects: Sequence[Path], *, output: Path, cpu: str = "cortex_m7+fp_armv8d16sp"
) -> Path:
    """Link what `write_replay` wrote for a Cortex-M with a floating-point unit, without a system.

    It starts on QEMU's machine mps2-an500 within 1 MB of flash and 256 KB of RAM, and prints
    ``loss 0x<bits of the float32>`` for each step by semihosting.

    Args:
        path: the written C file.
        objects: the kernels' object files, of the hard-float ABI.
        output: the ELF file.
        cpu: the processor and its floating-point unit as zig names them.

    Raises:
        BuildError: the program does not compile or link, or does not fit the memory.
    """
    board = CSRC / "cortex_m"
    return build_executable(
        (path, *_SOURCES, board / "start.c"),
        objects,
        triple="thumb-freestanding-eabihf",
        output=output,
        flags=(*_FLAGS, f"-mcpu={cpu}"),
        linker_script=board / "mps2_an500.ld",
    )


def build_replay(path: Path, objects: Sequence[Path], target: Target, output: Path) -> Path:
    """Link what `write_replay` wrote for a target: a Linux program, or one for a Cortex-M board.

    Args:
        path: the written C file.
        objects: the kernels' object files.
        target: the machine.
        output: the program.

    Raises:
        BuildError: nothing links for the target, or the program does not compile, link or fit.
    """
    if target.zig_triple is None:
        raise BuildError(
            where=f"replay for {target.name}",
            found="the target names no system to link for",
            needed="a target with a triple",
            remedy="Use the trainer as it is, or name another target.",
        )
    if "linux" in target.zig_triple:
        flags = () if target.zig_cpu is None else (f"-mcpu={target.zig_cpu}",)
        return build_linux_replay(
            path, objects, triple=target.zig_triple, output=output, flags=flags
        )
    return build_cortex_m_replay(path, objects, output=output, cpu=str(target.zig_cpu))


def _step_entry(descriptor: Descriptor) -> Entry:
    for entry in descriptor.entries:
        if entry.name == "step" and entry.outputs:
            return entry
    raise PlanError(
        where="replay",
        found=f"entry points are {', '.join(entry.name for entry in descriptor.entries)}",
        needed="one named step with the loss as its first output",
        remedy="Compile a trainer, not a predictor.",
    )


def _lay_out(
    entry: Entry, inputs_per_step: Sequence[Sequence[NDArray[Any]]]
) -> tuple[list[int], bytes]:
    """All inputs one after the other, and where each begins."""
    ports = [BoundPort(port) for port in entry.inputs]
    offsets = []
    data = bytearray()
    for inputs in inputs_per_step:
        for port, value in zip(ports, inputs, strict=True):
            offsets.append(len(data))
            data += port.accept(value).tobytes()
            data += bytes(-len(data) % _ALIGNMENT)
    return offsets, bytes(data)


def _embed(path: Path, name: str, data: bytes, alignment: int, qualifier: str = "") -> str:
    """An array of bytes that the compiler reads from a file of its own."""
    file = path.with_name(f"{path.stem}_{name}.bin")
    file.write_bytes(data)
    return (
        f"static {qualifier}unsigned char {name}[{len(data)}] "
        f'__attribute__((aligned({alignment}))) = {{\n#embed "{file.name}"\n}};\n'
    )


def _region(
    path: Path, descriptor: Descriptor, index: int, images: Mapping[str, NDArray[np.uint8]]
) -> str:
    """A region: const read-only, param and state with their first values, a bare arena."""
    name, size = _REGIONS[index], descriptor.region_bytes[index]
    alignment = descriptor.region_alignment
    if size == 0:
        return f"#define {name} NULL\n"
    if name == "arena":
        return f"static unsigned char arena[{size}] __attribute__((aligned({alignment})));\n"
    data = images[name].tobytes()[:size]
    return _embed(path, name, data, alignment, "const " if index == 0 else "")


def kernel_table(descriptor: Descriptor) -> str:
    """True prototypes, as WebAssembly needs them."""
    arity = {call.kernel: len(call.operands) for call in descriptor.calls}
    lines = [
        f"int32_t {name}({'void*, ' * arity.get(index, 0)}int64_t, int64_t);"
        for index, name in enumerate(descriptor.kernels)
    ]
    table = ", ".join(f"(pe_kernel){name}" for name in descriptor.kernels)
    return "\n".join([*lines, f"static const pe_kernel kernels[] = {{{table}}};\n"])


def _input_table(offsets: Sequence[int]) -> str:
    return (
        f"static const void* const inputs[] = {{{', '.join(f'batches + {o}' for o in offsets)}}};\n"
    )


def _output_table(entry: Entry) -> str:
    """Only the loss is asked for."""
    nulls = ", NULL" * (len(entry.outputs) - 1)
    return (
        f"static float loss[{entry.outputs[0].size}];\n"
        f"static void* const outputs[] = {{loss{nulls}}};\n"
    )


def _summary(kernels: int, inputs: int, steps: int) -> str:
    return (
        "static void* const regions[PE_REGIONS] = {(void*)const_region, param, state, arena};\n"
        "const pe_replay_data pe_replay = {descriptor, sizeof descriptor, "
        f"kernels, {kernels}, regions, inputs, {inputs}, {steps}, outputs}};\n"
    )
