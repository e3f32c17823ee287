"""``check_ownership``: plans with lost bytes are refused."""

from __future__ import annotations

import pytest

from pockengine.errors import PlanError
from pockengine.ir.text import parse
from pockengine.plan.ownership import Work, check_joined, check_ownership

_GRAPH = parse("""
%x: f32[16] = input('x')
%w: f32[16] = param('w')
%a: f32[16] = exp(%x)
%b: f32[16] = neg(%a)
%c: f32[16] = mul(%a, %b)
%u: f32[16] = update(%w, %c)
return loss=None, outputs=(%c,), gradients={}, updates=(%u,)
""")
_X, _W, _A, _B, _C = list(_GRAPH.nodes)[:5]
_EXP = Work((_X,), (_A,), (), ((_X, _A),))
_NEG = Work((_A,), (_B,), ())
_MUL = Work((_A, _B), (_C,), (), ((_A, _C), (_B, _C)))
_UPDATE = Work((_W, _C), (), (_W,))
_GOOD = {_X: 0, _A: 0, _B: 64, _C: 64}


def _check(works: list[Work], **moved: int) -> None:
    nodes = {node.name: node for node in _GOOD}
    offsets = {**_GOOD, **{nodes[name]: offset for name, offset in moved.items()}}
    check_ownership(works, [_X], [_C], offsets)


def test_good() -> None:
    """Bytes may be taken over in place, and after the last reader."""
    _check([_EXP, _NEG, _MUL, _UPDATE])


def test_taken_too_early() -> None:
    """A value whose bytes another takes before its last reader is refused."""
    with pytest.raises(PlanError, match="b of 64 bytes: it overlaps a, which the same kernel"):
        _check([_EXP, _NEG, _MUL, _UPDATE], b=0)
    late = Work((_B,), (_C,), ())
    with pytest.raises(PlanError, match=r"value a of 64 bytes: its bytes are not its own"):
        _check([_EXP, _NEG, late, _NEG, _UPDATE], c=0)


def test_partial_overlap() -> None:
    """In place means at the same offset."""
    with pytest.raises(PlanError, match=r"value a .*overlaps x"):
        _check([_EXP, _NEG, _MUL, _UPDATE], a=32)


def test_read_before_written() -> None:
    """An order that reads what is not there yet is refused."""
    with pytest.raises(PlanError, match=r"value a .*when it is read"):
        _check([_NEG, _EXP, _MUL, _UPDATE])


def test_yielded_survives() -> None:
    """What is yielded has to be there at the end."""
    with pytest.raises(PlanError, match=r"value c .*when it is read"):
        _check([_EXP, _NEG, _MUL, _UPDATE, Work((), (_B,), ())])


def test_read_after_update() -> None:
    """A parameter is not read after its update."""
    with pytest.raises(PlanError, match="read after its update"):
        _check([_EXP, _NEG, _MUL, _UPDATE, _UPDATE])


def test_joined_in_place() -> None:
    """The parts of a value fill it, one after the other."""
    graph = parse("""
%x: f32[1x16] = input('x')
%a: f32[1x16] = exp(%x)
%b: f32[1x16] = neg(%x)
%c: f32[2x16] = cat((%a, %b), 0)
return loss=None, outputs=(%c,), gradients={}, updates=()
""")
    _, a, b, c = list(graph.nodes)[:4]
    check_joined({c: (a, b)}, {a: 64, b: 128, c: 64})
    with pytest.raises(PlanError, match="value b of 64 bytes: it is not where c, of which it is"):
        check_joined({c: (a, b)}, {a: 64, b: 192, c: 64})
    with pytest.raises(PlanError, match="value c of 128 bytes: its parts are 64 bytes"):
        check_joined({c: (a,)}, {a: 64, c: 64})
