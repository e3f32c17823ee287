"""Whatever holds training data as a source of batches, the same ones in every run."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from pockengine.checks import is_whole
from pockengine.errors import InputError
from pockengine.fit.layout import Layout
from pockengine.fit.randomness import Randomness
from pockengine.frontend.structure import first_extents, is_fixed

Pair: TypeAlias = tuple[Any, Any]
Batches: TypeAlias = Generator[Pair, None, None]


class Source(Protocol):
    """Batches, epoch by epoch."""

    @property
    def length(self) -> int | None:
        """How many batches an epoch has, if that is known."""
        ...

    @property
    def order(self) -> dict[str, Any]:
        """What the order of an epoch depends on, as JSON."""
        ...

    def epoch(self, epoch: int, skip: int) -> Batches:
        """Inputs and targets of an epoch's batches, but for the first ``skip``."""
        ...


def source(
    data: Any, layout: Layout, *, name: str, batch_size: int | None, shuffle: bool, seed: int
) -> Source:
    """A source of batches.

    Args:
        data: a ``DataLoader`` or any iterable of batches; or what batches are cut out of: a tuple
            ``(inputs, targets)`` of whole arrays, a dict of columns, a PyTorch or a Hugging Face
            data set.
        layout: of a batch.
        name: what it is, for messages.
        batch_size: of what is cut; None for that of the example batch.
        shuffle: what is cut anew in each epoch.
        seed: of that order and of what data sets draw.

    Raises:
        InputError: it is none of these, is empty, or its arrays differ in length; or a batch size
            was given for what has one.
    """
    if isinstance(data, Mapping) and hasattr(data, "column_names"):  # of Hugging Face: its splits
        first = f'Pass data["{next(iter(data), "train")}"]'
        raise _no_data(name, data, "one split of it", first)
    order = _Order(name=name, size=batch_size, shuffle=shuffle, seed=seed)
    if _is_hugging_face(data):
        columns = data.__getitem__
        return _Cut(lambda at, _: columns(at.tolist()), len(data), layout, order)
    if isinstance(data, IterableDataset):
        raise _no_data(name, data, "batches", "Wrap it: DataLoader(data, batch_size=...)")
    if isinstance(data, Dataset):
        samples: Any = data
        return _Cut(lambda at, where: _collated(samples, at, where), len(samples), layout, order)
    if isinstance(data, (tuple, Mapping)):
        arrays, count = _arrays(layout.split(data, name), name)
        return _Cut(_taker(arrays), count, layout, order, plain=True)
    if gives_batches(data):
        if batch_size is not None:
            raise _has_size(name, data, batch_size)
        return _Given(data, layout, name, seed)
    raise _no_data(name, data, "a DataLoader, batches, arrays or a data set", "See Trainer.fit")


def gives_batches(data: Any) -> bool:
    """Whether data are batches already, rather than something that they are cut out of."""
    if isinstance(data, DataLoader):
        return True
    cut = isinstance(data, (tuple, Mapping, Dataset, str, bytes)) or _is_hugging_face(data)
    return isinstance(data, Iterable) and not cut


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """How batches are cut.

    Args:
        name: of the data, for messages.
        size: of a batch; None for that of the example batch.
        shuffle: whether the order changes with the epoch.
        seed: of the order, and of what each batch draws.
    """

    name: str
    size: int | None
    shuffle: bool
    seed: int


class _Cut:
    """Batches cut out of what can be indexed. The order is a function of seed and epoch alone.

    Args:
        take: the samples at some indices; its second argument is for messages.
        count: of samples.
        layout: of a batch.
        order: how they are cut.
        plain: ``take`` draws nothing and gives inputs and targets.
    """

    def __init__(
        self,
        take: Callable[[NDArray[np.int64], str], Any],
        count: int,
        layout: Layout,
        order: _Order,
        *,
        plain: bool = False,
    ) -> None:
        self._take, self._count, self._layout, self._plain = take, count, layout, plain
        self._name, self._shuffle, self._seed = order.name, order.shuffle, order.seed
        self._size = _checked_size(order.size, layout)
        if count == 0:
            raise InputError(
                where=self._name,
                found="no samples",
                needed="at least one",
                remedy="Look at where the data come from",
            )

    @property
    def length(self) -> int:
        return -(-self._count // self._size)

    @property
    def order(self) -> dict[str, Any]:
        return {
            "samples": self._count,
            "batch_size": self._size,
            "shuffle": self._shuffle,
            "seed": self._seed,
        }

    def epoch(self, epoch: int, skip: int) -> Batches:
        order = np.arange(self._count)
        if self._shuffle:
            order = np.random.default_rng((self._seed, epoch)).permutation(self._count)
        for index in range(skip, self.length):
            at = order[index * self._size : (index + 1) * self._size]
            yield self._batch(at, epoch, index)

    def _batch(self, at: NDArray[np.int64], epoch: int, index: int) -> Pair:
        where = _place(self._name, index, epoch)
        if self._plain:
            found: Pair = self._take(at, where)
            return found
        # of its own generators: what it draws does not depend on the batches ahead
        batch = Randomness(self._seed, epoch, index).draw(lambda: self._take(at, where))
        return self._layout.split(batch, where)


class _Given:
    """Batches as an iterable gives them, once for each epoch.

    To begin in the middle of an epoch, the batches ahead are drawn and dropped. What it draws from
    PyTorch's, NumPy's and Python's global generators, and from generators of a ``DataLoader`` and
    its samplers, is a function of seed and epoch alone; not so what persistent workers draw, whose
    generators PyTorch starts only once.
    """

    def __init__(self, data: Iterable[Any], layout: Layout, name: str, seed: int) -> None:
        self._data, self._layout, self._name, self._seed = data, layout, name, seed

    @property
    def length(self) -> int | None:
        try:
            return len(self._data)  # type: ignore[arg-type]
        except TypeError:
            return None

    @property
    def order(self) -> dict[str, Any]:
        return {"batches": self.length, "seed": self._seed}

    def epoch(self, epoch: int, skip: int) -> Batches:
        if isinstance(self._data, DataLoader):
            _seed_loader(self._data, self._seed, epoch)
        if isinstance(self._data, list):
            drawn: Iterator[Any] = iter(self._data)
        else:
            drawn = self._drawn(Randomness(self._seed, epoch))
        for index, batch in enumerate(islice(drawn, skip, None), skip):
            yield self._layout.split(batch, _place(self._name, index, epoch))

    def _drawn(self, randomness: Randomness) -> Iterator[Any]:
        batches = randomness.draw(lambda: iter(self._data))
        end = object()
        while (batch := randomness.draw(lambda: next(batches, end))) is not end:
            yield batch


def _seed_loader(loader: DataLoader[Any], seed: int, epoch: int) -> None:
    """Start a loader's own generators; a distributed sampler is told the epoch."""
    samplers = (
        loader.sampler,
        loader.batch_sampler,
        getattr(loader.batch_sampler, "sampler", None),
    )
    for part in (loader, *samplers):
        generator = getattr(part, "generator", None)
        if isinstance(generator, torch.Generator):
            state = np.random.SeedSequence((seed, epoch)).generate_state(1)
            generator.manual_seed(int(state[0]))
        if callable(told := getattr(part, "set_epoch", None)):
            told(epoch)


def _collated(data: Any, at: NDArray[np.int64], where: str) -> Any:
    indices = at.tolist()
    many = getattr(data, "__getitems__", None)
    items = [data[index] for index in indices] if many is None else many(indices)
    try:
        return default_collate(items)
    except (RuntimeError, TypeError) as error:
        raise InputError(
            where=where,
            found=f"its samples make no batch ({str(error).splitlines()[0]})",
            needed="arrays or numbers of one shape in all of them",
            remedy="Convert, pad or resize them in the data set",
        ) from error


def _arrays(pair: Pair, name: str) -> tuple[Any, int]:
    """A tree of arrays, and how many samples they hold.

    Raises:
        InputError: they differ in that.
    """
    tree = pytree.tree_map(_array, pair, is_leaf=_is_array)
    leaves = [leaf for leaf in pytree.tree_leaves(tree) if not is_fixed(leaf)]
    counts = first_extents(leaves)
    if len(counts) == 1:
        return tree, counts.pop()
    raise InputError(
        where=name,
        found=f"arrays of the shapes {', '.join(str(tuple(leaf.shape)) for leaf in leaves)}",
        needed="one row for each sample in all of them",
        remedy="Pass (inputs, targets); what is no array of samples goes into a list of batches",
    )


def _is_array(leaf: Any) -> bool:
    """What is one array: arrays, what becomes one, and lists of numbers."""
    if hasattr(leaf, "__array__"):
        return True
    while isinstance(leaf, list) and leaf:
        leaf = leaf[0]
    return isinstance(leaf, (int, float))


def _array(leaf: Any) -> Any:
    return leaf if isinstance(leaf, (Tensor, np.ndarray)) or is_fixed(leaf) else np.asarray(leaf)


def _taker(tree: Any) -> Callable[[NDArray[np.int64], str], Any]:
    """Rows of all arrays of a tree."""
    leaves, spec = pytree.tree_flatten(tree)

    def take(at: NDArray[np.int64], _: str) -> Any:
        run = slice(int(at[0]), int(at[-1]) + 1)
        whole = run.stop - run.start == len(at) and bool((np.diff(at) == 1).all())
        rows = run if whole else at
        index = rows if whole else torch.from_numpy(at)
        taken = [
            leaf if is_fixed(leaf) else leaf[index if isinstance(leaf, Tensor) else rows]
            for leaf in leaves
        ]
        return pytree.tree_unflatten(taken, spec)

    return take


def _is_hugging_face(data: Any) -> bool:
    """``datasets.Dataset``, or what has its interface: columns, and rows by a list of indices."""
    return all(hasattr(data, name) for name in ("column_names", "__getitem__", "__len__"))


def _checked_size(batch_size: int | None, layout: Layout) -> int:
    if batch_size is None and layout.sizes[0]:
        return layout.sizes[0]
    sizes = sorted({size for size in layout.sizes if size})
    if is_whole(batch_size) and batch_size > 0:
        less = layout.compiled.partial and batch_size < max(sizes, default=0)
        if batch_size in sizes or less:
            return batch_size
    fewer = " or fewer" if layout.compiled.partial else ""
    raise InputError(
        where="batch_size",
        found=f"it is {batch_size}",
        needed=f"a size that was compiled for: {', '.join(map(str, sizes)) or 'none known'}{fewer}",
        remedy="Leave it out, or compile for it: the example batch, or compile(shapes=[...])",
    )


def _place(name: str, index: int, epoch: int) -> str:
    return f"{name}, batch {index} (counted from 0) of epoch {epoch}"


def _has_size(name: str, data: Any, batch_size: int) -> InputError:
    return InputError(
        where="batch_size",
        found=f"{batch_size} for {name}, a {type(data).__name__} of batches",
        needed="a size only for arrays and data sets, which are cut into batches",
        remedy="Leave it out",
    )


def _no_data(name: str, data: Any, needed: str, remedy: str) -> InputError:
    return InputError(where=name, found=f"a {type(data).__name__}", needed=needed, remedy=remedy)
