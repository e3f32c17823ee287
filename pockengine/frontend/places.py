"""Where in the user's code an op or an error comes from: module path and source line."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import nn
from torch.fx import Node
from torch.fx.traceback import annotate
from torch.nn.modules.module import (
    register_module_forward_hook,
    register_module_forward_pre_hook,
)
from torch.overrides import TorchFunctionMode

_KEY = "pockengine_place"
_OURS = str(Path(__file__).parents[1])
_NOT_USERS = (str(Path(torch.__file__).parent), _OURS)


def _is_users(filename: str) -> bool:
    return not filename.startswith((*_NOT_USERS, "<")) and not filename.endswith("contextlib.py")


def describe(filename: str, line: int) -> str:
    """``model.py, line 12: y = x.cumsum(-1)``, as far as the source can be read."""
    code = linecache.getline(filename, line).strip()
    return f"{Path(filename).name}, line {line}" + (f": {code}" if code else "")


def line_of_error(trace: TracebackType | None) -> str:
    """The innermost line of the user's own code in a traceback; empty where there is none."""
    found = ""
    while trace is not None:
        filename = trace.tb_frame.f_code.co_filename
        if _is_users(filename):
            found = describe(filename, trace.tb_lineno)
        trace = trace.tb_next
    return found


def _line_of_call(frame: FrameType | None) -> str:
    """The user's line that a call comes from; empty where our own wrapper calls PyTorch."""
    while frame is not None:
        is_mode = frame.f_code.co_name == "__torch_function__"  # passes on what the user calls
        if frame.f_code.co_filename.startswith(_OURS) and not is_mode:
            break
        if _is_users(frame.f_code.co_filename):
            return describe(frame.f_code.co_filename, frame.f_lineno)
        frame = frame.f_back
    return ""


class _Annotator(TorchFunctionMode):
    """Notes on each op that is traced inside where it was called."""

    def __init__(self, path: list[str]) -> None:
        super().__init__()
        self._path = path

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        line = _line_of_call(sys._getframe(1))  # noqa: SLF001 - inspect.stack reads every file
        module = self._path[-1] if self._path else ""
        with annotate({_KEY: ", ".join(part for part in (module, line) if part)}):
            return func(*args, **(kwargs or {}))


@contextmanager
def annotated(model: nn.Module) -> Iterator[None]:
    """Ops that are traced inside carry their place, and their gradients do; see ``place_of``."""
    names = {id(module): name for name, module in model.named_modules()}
    path: list[str] = []

    def enter(module: nn.Module, _: Any) -> None:
        path.append(names.get(id(module), path[-1] if path else ""))

    def leave(module: nn.Module, *_: Any) -> None:
        del module
        path.pop()

    with ExitStack() as stack:
        stack.callback(register_module_forward_pre_hook(enter).remove)
        stack.callback(register_module_forward_hook(leave).remove)
        stack.enter_context(_Annotator(path))
        yield


def place_of(node: Node) -> str:
    """``module.path, file.py, line 12: code`` of an annotated op; empty where it is not known."""
    return str((node.meta.get("custom") or {}).get(_KEY, ""))
