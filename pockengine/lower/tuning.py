"""A tuning file: how contractions are cut on one kind of processor, found by measurement.

JSON with a version, the processor's registers, and a choice for each signature of a contraction
(``lower.products.signature``). ``pockengine tune`` writes it (``report.tune``), ``compile`` reads
it and never measures. Sums are added up in the same order whatever is chosen: results are the same
bits. Nothing here imports TVM.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

from pockengine.disk import replace_file
from pockengine.errors import InputError
from pockengine.ir.text import parse
from pockengine.lower.kernel import form_of
from pockengine.lower.operands import by_signature
from pockengine.lower.tile_parameters import Choice, TileParameters, tile_parameters

FORMAT = "pockengine tuning"
VERSION = 1
ROW_BLOCKS = 4
"""A choice's row block is at most so many of the processor's own."""

SCRATCHES = 8
"""A choice's scratch is at least such a part of the processor's own."""

_UNFIT = (AttributeError, KeyError, TypeError, ValueError)  # what a wrong document leads to
_REMEDY = "Write one with `pockengine tune MODEL --out FILE`, or compile without it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Processor:
    """What a tuning is good for.

    Args:
        architecture: such as ``x86_64``.
        vector_lanes: float32 lanes of a vector register.
        vector_registers: how many of them there are.
    """

    architecture: str
    vector_lanes: int
    vector_registers: int

    @classmethod
    def of(cls, target: Mapping[str, Any]) -> Self:
        """The processor of a resolved TVM target."""
        tiles = tile_parameters(target)
        return cls(
            architecture=str(target.get("mtriple", "")).partition("-")[0],
            vector_lanes=tiles.vector_lanes,
            vector_registers=tiles.vector_registers,
        )

    def __str__(self) -> str:
        return (
            f"{self.architecture} with {self.vector_registers} vector registers of "
            f"{self.vector_lanes} lanes"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """Choices for a processor.

    Args:
        processor: what they are good for.
        choices: by signature.
        tried: by signature, what was measured, so that it is not measured again.
    """

    processor: Processor
    choices: Mapping[str, Choice] = field(default_factory=dict)
    tried: Mapping[str, tuple[Choice, ...]] = field(default_factory=dict)

    def choices_of(self, text: str) -> dict[str, Choice]:
        """The choices that shape a kernel, by signature; the kernel as IR text."""
        if not self.choices:
            return {}
        return {name: self.choices[name] for name in signatures(text) if name in self.choices}

    def having(self, choices: Mapping[str, Choice]) -> Tuning:
        """This with further choices."""
        return replace(self, choices={**self.choices, **choices})

    def save(self, path: str | Path) -> None:
        """Write a file; the one before stays whole until this one is.

        Raises:
            InputError: it cannot be written.
        """
        document = {
            "format": FORMAT,
            "version": VERSION,
            "processor": asdict(self.processor),
            "choices": {name: asdict(choice) for name, choice in self.choices.items()},
            "tried": {name: [asdict(each) for each in made] for name, made in self.tried.items()},
        }
        data = (json.dumps(document, indent=1) + "\n").encode()
        try:
            replace_file(Path(path), [memoryview(data)])
        except OSError as error:
            raise InputError(
                where=_where(path),
                found=f"it cannot be written ({error.strerror})",
                needed="a place that can be",
                remedy="Name another file",
            ) from error

    @classmethod
    def load(cls, path: str | Path, target: Mapping[str, Any]) -> Self:
        """Read a file that ``save`` wrote.

        Args:
            path: the file.
            target: resolved TVM target that kernels are built for.

        Raises:
            InputError: it is no tuning file, of another version or for another processor.
        """
        document = _document(path)
        processor = _processor(path, document, target)
        tiles = tile_parameters(target)
        try:
            choices = {name: _choice(found, tiles) for name, found in document["choices"].items()}
            tried = {
                name: tuple(_choice(each, tiles) for each in found)
                for name, found in document["tried"].items()
            }
        except _UNFIT as error:
            raise _unfit(path, _told(error)) from error
        return cls(processor=processor, choices=choices, tried=tried)


def told(choices: Mapping[str, Choice]) -> str:
    """Choices as part of a kernel's key; nothing of none."""
    if not choices:
        return ""
    return "tuned " + json.dumps({name: asdict(each) for name, each in sorted(choices.items())})


def signatures(text: str) -> list[str]:
    """The signatures of a kernel's contractions; the kernel as IR text."""
    if "= matmul(" not in text and "= conv2d" not in text:
        return []
    graph = parse(text)
    if form_of(graph) != "contract":
        return []
    return list(by_signature(graph))


def _document(path: str | Path) -> dict[str, Any]:
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise _unfit(path, f"it cannot be read ({error.strerror})") from error
    except TypeError as error:
        raise _unfit(path, "it is no path") from error
    except ValueError as error:
        raise _unfit(path, "it is no JSON") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise _unfit(path, f"it does not say that its format is {FORMAT!r}")
    if document.get("version") != VERSION:
        raise _unfit(path, f"version {document.get('version')!r}")
    return document


def _processor(
    path: str | Path, document: Mapping[str, Any], target: Mapping[str, Any]
) -> Processor:
    """The processor of a document, which is the target's."""
    try:
        found = Processor(**document["processor"])
    except _UNFIT as error:
        raise _unfit(path, _told(error)) from error
    own = Processor.of(target)
    if found != own:
        raise InputError(
            where=_where(path),
            found=f"it was measured on {found}",
            needed=f"one for {own}",
            remedy=_REMEDY,
        )
    return found


def _told(error: Exception) -> str:
    return f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)


def _choice(found: Mapping[str, Any], tiles: TileParameters) -> Choice:
    choice = Choice(**found)
    most = {
        "row_tile": tiles.vector_registers,
        "vectors": tiles.vector_registers,
        "packed": True,
        "blocked": True,
        "row_block": ROW_BLOCKS * tiles.row_block,
        "scratch_bytes": tiles.scratch_bytes,
    }
    least = {"packed": 0, "blocked": 0, "scratch_bytes": tiles.scratch_bytes // SCRATCHES}
    for each in fields(choice):
        value, kind = getattr(choice, each.name), type(most[each.name])
        if type(value) is not kind or not least.get(each.name, 1) <= value <= most[each.name]:
            raise ValueError(f"{each.name} is {value!r}")
    return choice


def _unfit(path: str | Path, found: str) -> InputError:
    return InputError(
        where=_where(path),
        found=found,
        needed=f"a tuning file of version {VERSION}",
        remedy=_REMEDY,
    )


def _where(path: object) -> str:
    return f"tuning {path if isinstance(path, str | Path) else repr(path)}"
