"""PrimFunc -> machine code with a plain C interface, for any LLVM target.

A kernel is ``int32_t name(op0*, op1*, ..., int64_t begin, int64_t end)`` (docs/design.md, decision
5). TVM's packed-function prologue, its workspace calls and its launcher are left out, so an object
file needs nothing but, at most, ``memset`` and ``memcpy``.

TVM is imported by the functions, not by the module: a warm cache never pays for it.
"""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pockengine.errors import BuildError
from pockengine.lower.blob import relocate, undefined_symbols

if TYPE_CHECKING:
    from tvm import tirx

TargetSpec = Mapping[str, Any]
"""A TVM target as a dict: kind, mtriple, mcpu, mattr (list), mfloat-abi."""

_SUPPORT = ("memset", "memcpy")
_WIDTH_KNOWN = ("x86_64", "aarch64", "arm64")
_MOST = 2**31 - 1
_NARROW_ARCHITECTURES = ("arm", "thumb", "wasm32", "riscv32")


def compile_function(
    func: tirx.PrimFunc, target: TargetSpec, name: str, extent: int = _MOST
) -> bytes:
    """Object file that defines the one function ``name``.

    Args:
        func: parameters are buffers (each becomes one raw pointer) or scalars. Loops may be serial,
            unrolled or vectorized; blocks and parallel loops are not lowered here.
        target: TVM target dict; its ``kind`` is ``llvm``.
        name: symbol of the function, in place of whatever ``func`` is called.
        extent: no int64 parameter (the range) is ever larger; lets 32-bit processors compute in 32
            bits.

    Returns:
        The object file in the target's own format (ELF, Mach-O, COFF, wasm). It may refer to
        ``memset`` and ``memcpy``, which LLVM makes out of plain loops; the runtime has both.

    Raises:
        BuildError: TVM or LLVM rejects the function or the target.
    """
    import tvm  # noqa: PLC0415 - see the module's docstring

    try:
        resolved = tvm.target.Target({**_default_width(target), **target})
        module = _lower(_plain_interface(func, name), resolved, name, extent)
        library = tvm.get_global_func("target.build.llvm")(module, resolved)
        return _object_bytes(library)
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise BuildError(
            where=f"kernel {name}",
            found=str(error).strip().splitlines()[-1],
            needed=f"code generation for {json.dumps(dict(target), sort_keys=True)}",
            remedy="report the kernel, or choose another target",
        ) from error


def compile_blob(func: tirx.PrimFunc, target: TargetSpec, name: str) -> bytes:
    """Position-independent machine code of one kernel, entry first, with nothing left to link.

    Args:
        func: see `compile_function`.
        target: an ELF target, x86-64 or aarch64.
        name: symbol used in messages only.

    Raises:
        BuildError: as `compile_function`, or the code refers to something outside itself.
    """
    compiled = compile_function(func, target, name)
    needed = [symbol for symbol in _SUPPORT if symbol in undefined_symbols(compiled)]
    canonical = json.dumps(dict(target), sort_keys=True)
    return relocate(compiled, name, [_support_object(symbol, canonical) for symbol in needed])


def _default_width(target: TargetSpec) -> dict[str, int]:
    """TVM warns on architectures whose vector width it does not know; kernels bring their own."""
    known = str(target.get("mtriple", "")).startswith(_WIDTH_KNOWN)
    return {} if known else {"vector-width": 128}


def _plain_interface(func: tirx.PrimFunc, name: str) -> tirx.PrimFunc:
    """Buffer parameters become raw pointers; the function returns int32 0."""
    from tvm import tirx  # noqa: PLC0415
    from tvm.ir import PointerType, PrimType  # noqa: PLC0415

    parameters, declarations = [], []
    for parameter in func.params:
        if isinstance(parameter.ty, tirx.BufferType):
            pointer = tirx.Var(f"{parameter.name}_data", PointerType(PrimType(parameter.dtype)))
            declarations.append(tirx.DeclBuffer(parameter, data=pointer))
            parameters.append(pointer)
        else:
            parameters.append(parameter)
    body = tirx.SeqStmt([*declarations, func.body, tirx.Return(tirx.IntImm("int32", 0))])
    plain = tirx.PrimFunc(parameters, body, ret_type=PrimType("int32"))
    return plain.with_attr("global_symbol", name)


def _lower(func: tirx.PrimFunc, target: Any, name: str, extent: int) -> Any:
    """Just the passes a loop nest without blocks needs: under 2 ms a kernel."""
    import tvm  # noqa: PLC0415

    passes = tvm.tirx.transform
    narrow = str(target.attrs.get("mtriple", "")).startswith(_NARROW_ARCHITECTURES)
    sequence = [
        passes.BindTarget(target.with_host(target)),
        passes.FlattenBuffer(),
        passes.VectorizeLoop(True),
        passes.UnrollLoop(),
        passes.StmtSimplify(),
    ]
    if narrow:
        sequence.append(passes.NarrowDataType(32))
    sequence.append(passes.LowerIntrin())
    module = tvm.IRModule({name: _narrowed(func, extent) if narrow else func})
    for step in sequence:
        module = step(module)
    return module


def _narrowed(func: tirx.PrimFunc, extent: int) -> tirx.PrimFunc:
    """The range within bounds that ``NarrowDataType`` sees: 64-bit division is a library call."""
    from tvm import tirx  # noqa: PLC0415
    from tvm.ir import PrimType  # noqa: PLC0415

    parameters, bounded = [], {}
    for parameter in func.params:
        if parameter.ty != PrimType("int64"):
            parameters.append(parameter)
            continue
        given = tirx.Var(parameter.name, "int64")
        parameters.append(given)
        low, high = tirx.IntImm("int32", 0), tirx.IntImm("int32", extent)
        inside = tirx.max(tirx.min(tirx.Cast("int32", given), high), low)
        bounded[parameter] = tirx.Cast("int64", inside)
    body = func.specialize(bounded).body
    return tirx.PrimFunc(parameters, body, ret_type=func.ret_type, attrs=func.attrs)


def _object_bytes(library: Any) -> bytes:
    with tempfile.TemporaryDirectory(prefix="pockengine-") as folder:
        path = Path(folder) / "kernel.o"
        library.write_to_file(str(path), "o")
        return path.read_bytes()


@functools.cache
def _support_object(symbol: str, target: str) -> bytes:
    """Object with ``memset`` or ``memcpy``.

    LLVM's loop-idiom pass leaves functions of these two names alone, so their loops stay loops.
    """
    from tvm import tirx  # noqa: PLC0415

    byte = "uint8"
    destination = tirx.decl_buffer((1,), byte, name="destination")
    source = tirx.decl_buffer((1,), byte, name="source")
    value, count = tirx.Var("value", "int32"), tirx.Var("count", "int64")
    at = tirx.Var("at", "int64")
    element = tirx.BufferLoad(source, [at]) if symbol == "memcpy" else tirx.Cast(byte, value)
    body = tirx.For(
        at,
        tirx.IntImm("int64", 0),
        count,
        tirx.ForKind.SERIAL,
        tirx.BufferStore(destination, element, [at]),
    )
    second = source if symbol == "memcpy" else value
    return compile_function(
        tirx.PrimFunc([destination, second, count], body), json.loads(target), symbol
    )
