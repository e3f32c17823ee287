"""How a product's operands lie in memory, and what that means for the way it is cut up.

Plain arithmetic without TVM, as `products`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from torch.fx import Graph, Node

from pockengine.ir.access import Access, access
from pockengine.ir.graph import type_of
from pockengine.ir.verify import base_of
from pockengine.lower.products import Place, Product, present, products
from pockengine.lower.tile_parameters import Choice, TileParameters
from pockengine.lower.tiles import Geometry, contraction_geometry

_FEW_ROWS = 48  # below which a copy of an operand costs more than it saves
_FEW_LEAST = 16  # rows or columns that may be copied nevertheless,
_FEW_ACROSS = 160  # with so many of both together, and with many steps
_MANY_STEPS = 16  # a row
_NEAR = 8  # scratches: an operand up to this size stays in the second-level cache as it lies
_CROWDED = 2048  # bytes: steps at a multiple of it meet few of a cache's sets


def is_direct(product: Product) -> bool:
    """Whether the right operand lies in memory with its columns next to each other."""
    found = _stored(product.right)
    return found is not None and (found.strides[product.right_axis] == 1 or product.columns == 1)


def reads_in_place(product: Product, tiles: TileParameters) -> bool:
    """Whether the right operand is read in place: contiguous columns, and small or read rarely."""
    if not is_direct(product) or is_blocked(product, tiles):
        return False
    if tiles.choice is not None:
        return not tiles.choice.packed
    found = _stored(product.right)
    assert found is not None
    step_bytes = found.strides[product.step_axis] * 4
    spread = step_bytes * prod(product.reduction)
    few = _FEW_ROWS if step_bytes % _CROWDED else _FEW_ROWS // 3
    return spread <= _near(step_bytes, tiles) or product.rows < few


def _near(step_bytes: int, tiles: TileParameters) -> int:
    """Bytes that an operand may spread over and yet is read as it lies."""
    return tiles.scratch_bytes * (_NEAR if step_bytes % _CROWDED else 1)


def is_blocked(product: Product, tiles: TileParameters) -> bool:
    """Whether both operands are visited piece by piece of the reduction.

    Where the left operand's rows are next to each other and its steps far apart, as in a weight
    gradient, and where the steps are very many; where elements are taken by lane, all that can be
    copied for it.
    """
    if tiles.choice is not None:
        return tiles.choice.blocked
    steps = prod(product.reduction)
    if min(product.rows, product.columns, steps) < _FEW_ROWS:
        return _is_long(product, steps, tiles)
    by_lane = tiles.by_lane and steps_adjacent(product)
    return rows_adjacent(product) or by_lane or steps >= _MANY_STEPS * product.rows


def _is_long(product: Product, steps: int, tiles: TileParameters) -> bool:
    """Whether few rows or columns are summed over so many steps that short pieces of both pay.

    They stay in the nearest cache from their copy to their products.
    """
    return (
        rows_adjacent(product)
        and not product.row_period
        and min(product.rows, product.columns) >= _FEW_LEAST
        and product.rows + product.columns >= _FEW_ACROSS
        and steps > 4 * tiles.chunk_steps
    )


def packs_left(product: Product, tiles: TileParameters) -> bool:
    """Whether the left operand's rows are copied too.

    Not where a row's place takes time to compute, nor where the product reads them several times,
    as the taps of a convolution do.
    """
    if not is_blocked(product, tiles):
        return False
    if tiles.by_lane and steps_adjacent(product):
        return True
    return rows_adjacent(product) and not product.row_period


def rows_adjacent(product: Product) -> bool:
    """Whether the left operand's rows are neighbours: what follows an element is the next row's."""
    return product.rows > 1 and _row_distance(product) == 1


def steps_adjacent(product: Product) -> bool:
    """Whether the left operand's steps of the innermost loop are neighbours."""
    first = tuple(0 for _ in product.reduction)
    start, following = (product.left_step((*first[1:], step)) for step in (0, 1))
    return bool(following - start == 1)


def rows_dense(product: Product) -> bool:
    """Whether the left operand's rows lie in one piece each, one behind the other."""
    *outer, steps = product.reduction
    return (
        product.rows > 1
        and prod(outer) == 1
        and _row_distance(product) == steps
        and product.left_step((*(0 for _ in outer), 1)) == 1
    )


def _row_distance(product: Product) -> int:
    """Elements between the first two rows of the left operand."""
    first, second = (product.left_row(_whole, 0, row) for row in (0, 1))
    return int(second - first)


def _whole(flat: int, extents: Sequence[int]) -> Place:
    """A flat number as one index an axis, in plain integers."""
    places = []
    for extent in reversed(extents):
        places.append(flat % extent)
        flat //= extent
    return tuple(reversed(places))


def runs_along_steps(product: Product) -> bool:
    """Whether the right operand's reduction steps, not its columns, are next to each other."""
    strides = _any_access(product.right).strides
    return strides[product.right_axis] != 1 and strides[product.step_axis] == 1


def _any_access(node: Node) -> Access:
    """The access of a value, or of the first full-sized stored value that it is computed from."""
    found = _stored(node)
    if found is not None:
        return found
    computed = access(node)
    assert computed is not None
    inner = base_of(node)
    for operand in inner.all_input_nodes:
        if type_of(operand).shape == type_of(inner).shape:
            return _retyped(node, inner, operand)
    return computed


def _retyped(node: Node, inner: Node, operand: Node) -> Access:
    """The strides of ``node`` if its base lay as the operand does."""
    import torch  # noqa: PLC0415 - only the stride algebra is needed

    found = access(operand)
    assert found is not None
    tensor = torch.empty(1, device="meta").as_strided(type_of(inner).shape, found.strides)
    chain = []
    while node is not inner:
        chain.append(node)
        source = node.args[0]
        assert isinstance(source, Node)
        node = source
    for view in reversed(chain):
        tensor = view.target(tensor, *view.args[1:], **view.kwargs)  # type: ignore[operator]
    return Access(operand, 0, tuple(tensor.stride()))


def _stored(node: Node) -> Access | None:
    """The access of a value that the kernel reads from memory; None if it computes it."""
    return access(node) if base_of(node).op == "placeholder" else None


def geometry(terms: Sequence[Product], tiles: TileParameters) -> Geometry:
    """How a sum of products is cut up on a processor."""
    first = terms[0]
    return contraction_geometry(
        tiles,
        batch=first.batch,
        rows=first.rows,
        columns=first.columns,
        reduction=max(1, *(prod(term.reduction) for term in terms)),
        packed=not all(reads_in_place(term, tiles) for term in terms),
        blocked=len(terms) == 1 and is_blocked(first, tiles),
        row_period=first.row_period,
        in_pieces=len(terms) > 1,
        along_steps=steps_adjacent(first),
        whole_columns=first.adds_columns,
    )


def tuned(
    terms: Sequence[Product],
    tiles: TileParameters,
    choices: Mapping[str, Choice],
) -> TileParameters:
    """The parameters for one sum of products: with its choice, if there is one."""
    choice = choices.get(signature(terms)) if choices else None
    return tiles if choice is None else tiles.chosen(choice)


def signature(terms: Sequence[Product]) -> str:
    """What decides how a sum of products is best cut, as text: extents and ways through memory."""
    first = terms[0]
    sums = " + ".join("x".join(map(str, term.reduction)) for term in terms)
    left = "dense" if rows_dense(first) else "adjacent" if rows_adjacent(first) else "strided"
    right = [_right_way(term) for term in terms]
    period = f", period {first.row_period}" if first.row_period else ""
    added = ", columns added up" if first.adds_columns else ""
    return (
        f"{first.batch}x{first.rows}x{first.columns}, sum {sums}, left {left}, "
        f"right {' + '.join(right)}{period}{added}"
    )


def by_signature(graph: Graph) -> dict[str, Sequence[Product]]:
    """The sums of products of a contraction kernel that add something up."""
    found = [present(summed) for summed in products(graph)]
    return {signature(terms): terms for terms in found if not terms[0].empty}


def _right_way(product: Product) -> str:
    if is_direct(product):
        return "columns"
    return "steps" if runs_along_steps(product) else "strided"
