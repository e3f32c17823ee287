"""Schemes: which parameters a fine-tuning run updates, and how much of each.

A ``Scheme`` is a table of names. A ``Rule`` is a scheme that waits for a model: ``resolve`` makes
it one.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from pockengine.adapters import adapt, adapter_names, adapter_scales
from pockengine.checks import is_number, is_whole, kind_of
from pockengine.errors import SchemeError, unwritable
from pockengine.model_tree import (
    bias_names,
    channel_axes,
    head_names,
    names_from_block,
    parameter_names,
)

_FORMAT = "pockengine.scheme"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Channels:
    """The leading part of a weight that a scheme updates: ``count`` indices of ``axis``.

    The axis is the weight's input channels: 1 of a convolution or linear, 0 of a depthwise or
    transposed convolution.
    """

    axis: int
    count: int


@dataclass(frozen=True, slots=True)
class Rule(ABC):
    """A scheme that is not yet tied to a model."""

    kind: ClassVar[str]

    @abstractmethod
    def table(self, model: nn.Module) -> dict[str, float]:
        """Fraction by parameter name; empty where the rule selects nothing."""

    def prepared(self, model: nn.Module) -> nn.Module:
        """The model that is trained: this one, or one that shares its tensors and has more."""
        return model

    def resolve(self, model: nn.Module) -> Scheme:
        """The scheme of this rule for a model.

        Raises:
            SchemeError: the rule selects nothing, or asks for more blocks than the model has.
        """
        return Scheme(self.table(model)).resolve(model)

    def to_json(self) -> str:
        """The rule as a versioned JSON document."""
        options = {field.name: getattr(self, field.name) for field in fields(self)}
        return _document({"rule": {"kind": self.kind, **options}})

    def save(self, path: str | Path) -> None:
        """Write ``to_json`` to a file; SchemeError if it cannot be written."""
        _write(path, self.to_json())


@dataclass(frozen=True, slots=True)
class Full(Rule):
    """Everything is updated."""

    kind: ClassVar[str] = "full"

    def table(self, model: nn.Module) -> dict[str, float]:
        """All floating-point parameters."""
        return dict.fromkeys(parameter_names(model), 1.0)


@dataclass(frozen=True, slots=True)
class BiasOnly(Rule):
    """Biases and normalization shifts are updated, and the head as a whole.

    Args:
        last: only those of the last so many modules that own one, in order of registration and not
            counting the head; None for all.
        head: whether the model's last linear layer is updated fully, since a new task's head has to
            learn from nothing. False gives the papers' bias-only.
    """

    kind: ClassVar[str] = "bias_only"
    last: int | None = None
    head: bool = True

    def __post_init__(self) -> None:
        if self.last is not None:
            _positive("Scheme.bias_only(last)", self.last)
        _check_flag("Scheme.bias_only(head)", self.head)

    def table(self, model: nn.Module) -> dict[str, float]:
        """The chosen biases, then the head."""
        head = head_names(model) if self.head else ()
        groups = [g for g in bias_names(model) if not set(g) <= set(head)]
        if self.last is not None and self.last > len(groups):
            raise _too_many("bias_only", self.last, len(groups), "modules with a bias")
        chosen = groups if self.last is None else groups[-self.last :]
        return dict.fromkeys([*(name for group in chosen for name in group), *head], 1.0)


@dataclass(frozen=True, slots=True)
class LastBlocks(Rule):
    """The last ``count`` repeated blocks are updated, and everything registered after them."""

    kind: ClassVar[str] = "last_blocks"
    count: int

    def __post_init__(self) -> None:
        _positive("Scheme.last_blocks(count)", self.count)

    def table(self, model: nn.Module) -> dict[str, float]:
        """All parameters from the first chosen block on."""
        names, found = names_from_block(model, self.count)
        if self.count > found:
            raise _too_many("last_blocks", self.count, found, "blocks")
        return dict.fromkeys(names, 1.0)


@dataclass(frozen=True, slots=True)
class Lora(Rule):
    """Low-rank adapters of some layers are updated, and nothing else but, if asked, the head.

    Args:
        rank: of the adapters.
        targets: layers: names, ends of names or shell patterns.
        alpha: the adapters' part is scaled by ``alpha / rank``; None for a scale of 1.
        head: whether the model's last linear layer is updated fully as well.
        seed: of the adapters' first values.
    """

    kind: ClassVar[str] = "lora"
    rank: int
    targets: Sequence[str]
    alpha: float | None = None
    head: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        _positive("Scheme.lora(rank)", self.rank, "Give a small rank, such as 8")
        listed = (self.targets,) if isinstance(self.targets, str) else self.targets
        if not isinstance(listed, Sequence) or not all(isinstance(each, str) for each in listed):
            raise _bad_lora("targets", listed, "names of layers", 'targets=["q_proj", "v_proj"]')
        if self.alpha is not None and not is_number(self.alpha):
            raise _bad_lora("alpha", self.alpha, "None or a number", "alpha=16")
        if not is_whole(self.seed) or not 0 <= self.seed < 2**63:
            needed = "a whole number of at least 0, below 2**63"
            raise _bad_lora("seed", self.seed, needed, "seed=0")
        if not isinstance(self.head, bool):
            raise _bad_lora("head", self.head, "True or False", "head=False")
        object.__setattr__(self, "targets", tuple(listed))

    def prepared(self, model: nn.Module) -> nn.Module:
        """The model with adapters; itself where it has them."""
        if adapter_scales(model):
            return model
        alpha = self.rank if self.alpha is None else self.alpha
        return adapt(model, rank=self.rank, targets=self.targets, alpha=alpha, seed=self.seed)

    def table(self, model: nn.Module) -> dict[str, float]:
        """The adapters of the prepared model, then the head but for the weight that one adapts."""
        adapted = {name.rpartition(".")[0] for name in adapter_names(model)}
        head = [n for n in head_names(model) if self.head and n.rpartition(".")[0] not in adapted]
        return dict.fromkeys([*adapter_names(model), *head], 1.0)


_RULES: dict[str, type[Rule]] = {rule.kind: rule for rule in (Full, BiasOnly, LastBlocks, Lora)}


class Scheme(Mapping[str, float]):
    """Fraction of each parameter that is updated, by PyTorch's name; what is not named is frozen.

    A fraction r < 1 of a convolution's or linear's weight updates its first ``max(1, round(r C))``
    input channels (of a depthwise convolution: channels).

    Args:
        fractions: 0 < fraction <= 1 by parameter name.

    Raises:
        SchemeError: a fraction is not a number in (0, 1].
    """

    __slots__ = ("_fractions",)

    def __init__(self, fractions: Mapping[str, float]) -> None:
        if not isinstance(fractions, Mapping):
            raise SchemeError(
                where="Scheme(fractions)",
                found=kind_of(fractions),
                needed="a dict of fractions by parameter name",
                remedy="Give one: Scheme(dict.fromkeys(names, 1.0))",
            )
        for name, fraction in fractions.items():
            _check_fraction(name, fraction)
        self._fractions = {name: float(fraction) for name, fraction in fractions.items()}

    @staticmethod
    def full() -> Full:
        """Update everything."""
        return Full()

    @staticmethod
    def bias_only(last: int | None = None, *, head: bool = True) -> BiasOnly:
        """Update biases and normalization shifts (of the last so many modules), and the head."""
        return BiasOnly(last, head)

    @staticmethod
    def last_blocks(count: int) -> LastBlocks:
        """Update the last ``count`` repeated blocks and everything after them."""
        return LastBlocks(count)

    @staticmethod
    def lora(
        rank: int,
        targets: Sequence[str],
        *,
        alpha: float | None = None,
        head: bool = False,
        seed: int = 0,
    ) -> Lora:
        """Add low-rank adapters to the layers of these names, and update those (and the head)."""
        return Lora(rank, targets, alpha, head, seed)

    @classmethod
    def from_requires_grad(cls, model: nn.Module) -> Scheme:
        """Update what the model itself wants to train: the default of ``compile``."""
        named = model.named_parameters()
        wanted = {n: 1.0 for n, p in named if p.requires_grad and p.is_floating_point()}
        return cls(wanted)

    def resolve(self, model: nn.Module) -> Scheme:
        """This scheme under the model's canonical names (the first name of a tied parameter).

        Raises:
            SchemeError: an unknown name, a buffer, an integer parameter, two fractions for one tied
                parameter, a fraction < 1 of something without input channels, or no name at all.
        """
        if not self:
            raise _trains_nothing()
        first = {id(p): name for name, p in model.named_parameters()}
        axes = channel_axes(model)
        named = dict(model.named_parameters(remove_duplicate=False))
        found: dict[str, float] = {}
        for name, fraction in self.items():
            parameter = _parameter(model, named, name)
            canonical = first[id(parameter)]
            if found.setdefault(canonical, fraction) != fraction:
                raise _two_fractions(name, canonical, fraction, found[canonical])
            if fraction < 1 and id(parameter) not in axes:
                raise _no_channels(name, parameter, fraction)
        return Scheme(found)

    def prepared(self, model: nn.Module) -> nn.Module:
        """The model itself, as a scheme only names what it has."""
        return model

    def channels(self, model: nn.Module) -> dict[str, Channels]:
        """The updated channels of each parameter that is updated in part, by canonical name.

        Raises:
            SchemeError: as ``resolve``.
        """
        axes = channel_axes(model)
        owned = dict(model.named_parameters())
        parts = {name: r for name, r in self.resolve(model).items() if r < 1}
        found = {
            name: _channels(owned[name], axes[id(owned[name])], r) for name, r in parts.items()
        }
        return {name: part for name, part in found.items() if part is not None}

    def to_json(self) -> str:
        """The scheme as a versioned JSON document."""
        return _document({"fractions": self._fractions})

    def save(self, path: str | Path) -> None:
        """Write ``to_json`` to a file; SchemeError if it cannot be written."""
        _write(path, self.to_json())

    @classmethod
    def from_json(cls, source: str) -> Scheme | Rule:
        """The scheme or rule that a ``to_json`` document holds.

        Raises:
            SchemeError: not such a document, or of another version.
        """
        document = _parsed(source)
        if "fractions" in document:
            return cls(document["fractions"])
        options = dict(document["rule"])
        kind = options.pop("kind", None)
        try:
            return _RULES[kind](**options)
        except (KeyError, TypeError) as error:
            raise _malformed(f"rule {document['rule']!r}") from error

    @classmethod
    def load(cls, path: str | Path) -> Scheme | Rule:
        """Read a file that ``save`` wrote; SchemeError as ``from_json``, or if it is not there."""
        try:
            source = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise _malformed(f"it cannot be read ({error.strerror})", str(path)) from error
        except UnicodeDecodeError as error:
            raise _malformed("no text", str(path)) from error
        return cls.from_json(source)

    def __getitem__(self, name: str) -> float:
        return self._fractions[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fractions)

    def __len__(self) -> int:
        return len(self._fractions)

    def __hash__(self) -> int:
        return hash(frozenset(self._fractions.items()))

    def __repr__(self) -> str:
        return f"Scheme({self._fractions!r})"


def _channels(parameter: Tensor, grid: tuple[int, int], fraction: float) -> Channels | None:
    """The updated channels; None where that is all of them."""
    axis, multiplier = grid
    extent = parameter.shape[axis]
    count = max(1, round(fraction * (extent // multiplier))) * multiplier
    return Channels(axis, count) if count < extent else None


def _parameter(model: nn.Module, named: Mapping[str, nn.Parameter], name: str) -> nn.Parameter:
    """The floating-point parameter of a name."""
    where = f"scheme entry {name!r}"
    if name not in named:
        buffers = {n for n, _ in model.named_buffers(remove_duplicate=False)}
        owned = [each for each in named if each.startswith(f"{name}.")]
        near = get_close_matches(name, named, n=3, cutoff=0.6)
        found = "a buffer" if name in buffers else "a layer" if owned else "no such parameter"
        remedy = "See model.named_parameters()"
        if owned:
            remedy = f"Name its parameters: {', '.join(owned[:3])}" + ", ..." * (len(owned) > 3)
        elif near:
            remedy = f"Did you mean {', '.join(near)}?"
        raise SchemeError(
            where=where, found=found, needed="the name of a parameter of the model", remedy=remedy
        )
    if not named[name].is_floating_point():
        raise SchemeError(
            where=where,
            found=f"a parameter of dtype {named[name].dtype}",
            needed="a floating-point parameter",
            remedy="Leave it out of the scheme: integers have no gradient",
        )
    return named[name]


def _check_fraction(name: str, fraction: object) -> None:
    if not isinstance(name, str):
        raise SchemeError(
            where=f"scheme entry {name!r}",
            found=f"a name of type {type(name).__name__}",
            needed="the name of a parameter",
            remedy="See model.named_parameters()",
        )
    if not is_number(fraction) or not 0 < fraction <= 1:
        raise SchemeError(
            where=f"scheme entry {name!r}",
            found=f"fraction {fraction!r}",
            needed="a number greater than 0 and at most 1",
            remedy="Leave a parameter out of the scheme to freeze it",
        )


def _bad_lora(option: str, found: object, needed: str, example: str) -> SchemeError:
    return SchemeError(
        where=f"Scheme.lora({option})",
        found=repr(found),
        needed=needed,
        remedy=f"Give {example}, for example",
    )


_HOW_MANY = "Say how many, counted from the end of the model"


def _positive(where: str, count: object, remedy: str = _HOW_MANY) -> None:
    if not is_whole(count) or count < 1:
        raise SchemeError(
            where=where,
            found=repr(count),
            needed="a whole number of at least 1",
            remedy=remedy,
        )


def _check_flag(where: str, flag: object) -> None:
    if not isinstance(flag, bool):
        raise _bad(where, flag, "True or False")


def _bad(where: str, found: object, needed: str) -> SchemeError:
    return SchemeError(
        where=where, found=repr(found), needed=needed, remedy="Leave it out for the default"
    )


def _too_many(rule: str, wanted: int, found: int, what: str) -> SchemeError:
    return SchemeError(
        where=f"Scheme.{rule}({wanted})",
        found=f"a model of {found} {what}",
        needed=f"at most {found}",
        remedy="Ask for fewer, or use Scheme.full()",
    )


def _trains_nothing() -> SchemeError:
    return SchemeError(
        where="scheme",
        found="no parameter to update",
        needed="at least one",
        remedy="Name a parameter, set requires_grad on one, or use Scheme.bias_only()",
    )


def _two_fractions(name: str, canonical: str, fraction: float, other: float) -> SchemeError:
    return SchemeError(
        where=f"scheme entry {name!r}",
        found=f"fraction {fraction}, but {other} for {canonical!r}, which is tied to it",
        needed="one fraction for a tied parameter",
        remedy="Give it under one of its names",
    )


def _no_channels(name: str, parameter: Tensor, fraction: float) -> SchemeError:
    return SchemeError(
        where=f"scheme entry {name!r}",
        found=f"fraction {fraction} of a parameter of shape {tuple(parameter.shape)}",
        needed="1, as only weights of convolutions and linear layers have input channels",
        remedy="Use 1 or leave it out",
    )


def checked_scheme(scheme: object) -> Scheme | Rule:
    """A scheme or rule as it is.

    Raises:
        SchemeError: it is something else.
    """
    if isinstance(scheme, (Scheme, Rule)):
        return scheme
    named = getattr(scheme, "__name__", None) or (scheme if isinstance(scheme, str) else "")
    remedy = "Give pe.Scheme.full(), for example, or leave it out for what requires_grad says"
    if isinstance(scheme, Mapping):
        remedy = "Give pe.Scheme({...})"
    elif named in _RULES:
        remedy = f"Give pe.Scheme.{named}({'...' if named in ('last_blocks', 'lora') else ''})"
    raise SchemeError(
        where="compile(scheme=...)",
        found=repr(scheme) if isinstance(scheme, str) else f"{kind_of(scheme)} {named}".rstrip(),
        needed="a pe.Scheme, or a rule that makes one",
        remedy=remedy,
    )


def _write(path: str | Path, text: str) -> None:
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise unwritable(SchemeError, path, error) from error


def _malformed(found: str, where: str = "scheme JSON") -> SchemeError:
    return SchemeError(
        where=where,
        found=found,
        needed=f"a {_FORMAT} document of version {_VERSION}",
        remedy="Write one with Scheme(...).save(path)",
    )


def _document(content: Mapping[str, Any]) -> str:
    return json.dumps({"format": _FORMAT, "version": _VERSION, **content}, indent=2) + "\n"


def _parsed(source: str) -> dict[str, Any]:
    """The document of a JSON text, its frame checked."""
    try:
        document = json.loads(source)
    except (ValueError, RecursionError) as error:  # a number of too many digits, too many brackets
        raise _malformed(f"no JSON ({error})") from error
    if not isinstance(document, dict) or document.get("format") != _FORMAT:
        raise _malformed("something else")
    if document.get("version") != _VERSION:
        raise _malformed(f"version {document.get('version')!r}")
    content = document.get("fractions", document.get("rule"))
    if not isinstance(content, dict):
        raise _malformed("neither fractions nor a rule")
    return document
