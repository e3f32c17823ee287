"""Writes a trainer as a folder that builds on another machine: library, data, sources, example."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from string import Template

from pockengine.errors import BuildError, InputError
from pockengine.lower.link import build_archive
from pockengine.lower.tile_parameters import tile_parameters
from pockengine.runtime.descriptor import Entry, Port
from pockengine.runtime.encoding import encode
from pockengine.runtime.footprint import Footprint, footprint
from pockengine.runtime.image import Image
from pockengine.runtime.library import CORE, CSRC
from pockengine.runtime.ports import BoundPort
from pockengine.runtime.replay import kernel_table

_FILES = CSRC / "export"
_READ_ONLY = ("descriptor", "const")
_NOTES = {
    # whether the machine has an operating system
    True: "For several threads, add `runtime/os_posix.c` and `-pthread`, and pass a launcher of\n"
    "`runtime/pockengine_os.h` to `trainer_open`.",
    False: "Add the board's start-up code and linker script, and `-ffreestanding`. `memcpy`,\n"
    "`memset` and their header `string.h` come with any C library for the board.",
}


def export(image: Image, folder: Path) -> Footprint:
    """Write a trainer for its machine; files of an earlier export are replaced.

    Args:
        image: the trainer, of another target than the host.
        folder: is made if it does not exist. Its README says what is in it.

    Returns:
        What the trainer takes of the machine's memory.

    Raises:
        InputError: the trainer is for the host, whose kernels are no object files.
        BuildError: a kernel is missing from the cache, or the folder cannot be written.
    """
    if image.target.llvm is None or image.target.zig_triple is None:
        raise InputError(
            where="export",
            found=f"the trainer was compiled for {image.target.name}",
            needed="a trainer for a machine with a name of its own",
            remedy='Compile with target="linux-x86-64", "linux-arm64" or another one',
        )
    try:
        (folder / "runtime").mkdir(parents=True, exist_ok=True)
        return _write(image, folder)
    except OSError as error:
        raise BuildError(
            where=f"export to {folder}",
            found=str(error.strerror),
            needed="a folder that can be written",
            remedy="Choose another folder, or free space",
        ) from error


def _write(image: Image, folder: Path) -> Footprint:
    for source in _runtime_sources(image):
        shutil.copyfile(source, folder / "runtime" / source.name)
    for name in ("trainer.h", "trainer.c", "main.c"):
        shutil.copyfile(_FILES / name, folder / name)
    with tempfile.TemporaryDirectory(prefix="pockengine-") as objects:
        build_archive(image.write_objects(Path(objects)), folder / "libkernels.a")
    contents = {
        "descriptor": encode(image.descriptor),
        "const": image.const.tobytes(),
        "param": image.param.tobytes(),
        "state": image.state.tobytes(),
    }
    for name, data in contents.items():
        (folder / f"{name}.bin").write_bytes(data)
    (folder / "data.S").write_text(_data(contents, image.descriptor.region_alignment))
    (folder / "trainer_tables.h").write_text(_tables(image, contents))
    taken = footprint(image)
    (folder / "README.md").write_text(_readme(image, taken))
    return taken


def _runtime_sources(image: Image) -> list[Path]:
    headers = [CSRC / name for name in ("pockengine.h", "format.h", "arity.h", "float_mode.h")]
    threads = [CSRC / "os_posix.c", CSRC / "pockengine_os.h"] if _has_system(image) else []
    return [*CORE, *headers, *threads]


def _has_system(image: Image) -> bool:
    return "freestanding" not in str(image.target.zig_triple)


def _data(contents: dict[str, bytes], alignment: int) -> str:
    """Assembler that includes the images; those of parameters and state are writable."""
    parts = [
        f"  .section {'.rodata' if name in _READ_ONLY else '.data'}\n"
        f"  .balign {alignment}\n  .globl trainer_{name}\n"
        f'trainer_{name}:\n  .incbin "{name}.bin"\n'
        for name, data in contents.items()
        if data
    ]
    return "\n".join([*parts, '  .section .note.GNU-stack,"",%progbits\n'])


def _tables(image: Image, contents: dict[str, bytes]) -> str:
    """Header with what is this trainer's own: ports, sizes, images, kernels."""
    descriptor = image.descriptor
    step = next(entry for entry in descriptor.entries if entry.name == "step")
    sizes = {
        "DESCRIPTOR_BYTES": len(contents["descriptor"]),
        "PARAM_BYTES": len(contents["param"]),
        "STATE_BYTES": len(contents["state"]),
        "ARENA_BYTES": max(descriptor.region_bytes[3], 1),
        "REGION_ALIGN": descriptor.region_alignment,
        "KERNELS": len(descriptor.kernels),
        "STEP_INPUTS": len(step.inputs),
        "LARGEST_INPUT_BYTES": max(BoundPort(port).nbytes for port in step.inputs),
    }
    defines = [f"#define TRAINER_{name} {size}" for name, size in sizes.items()]
    images = [_declared(name, len(data)) for name, data in contents.items()]
    return "\n".join(
        [
            "/* The entry points' inputs and outputs, dense and in this order:",
            *(_told(entry) for entry in descriptor.entries),
            " */",
            "#ifndef TRAINER_TABLES_H\n#define TRAINER_TABLES_H\n",
            *defines,
            "",
            *images,
            "\n#ifdef TRAINER_KERNEL_TABLE",
            kernel_table(descriptor),
            "#endif\n#endif\n",
        ]
    )


def _told(entry: Entry) -> str:
    lines = [
        f" *   {word} {index}: {port.name}, {_count(port)}"
        for word, ports in (("input", entry.inputs), ("output", entry.outputs))
        for index, port in enumerate(ports)
    ]
    return "\n".join([f" * {entry.name}", *lines])


def _count(port: Port) -> str:
    return f"{port.size} x {port.dtype.value}"


def _declared(name: str, nbytes: int) -> str:
    if nbytes == 0:
        return f"#define trainer_{name} NULL"
    qualifier = "const " if name in _READ_ONLY else ""
    return f"extern {qualifier}unsigned char trainer_{name}[{nbytes}];"


def _readme(image: Image, taken: Footprint) -> str:
    target = image.target
    processor = "" if target.zig_cpu is None else f" -mcpu={target.zig_cpu}"
    sources = "main.c trainer.c data.S runtime/core.c runtime/step.c libkernels.a"
    template = Template((_FILES / "README.md").read_text())
    return template.substitute(
        name=target.name,
        description=target.description,
        command=f"zig cc -target {target.zig_triple}{processor} -O2 -Iruntime {sources}",
        notes=_NOTES[_has_system(image)],
        sizes="".join(f"| {name} | {size} |\n" for name, size in taken.rows()),
        stack=2 * tile_parameters(target.llvm or {}).scratch_bytes,
    )
