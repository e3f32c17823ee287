"""Where the command line's models come from: a function of the user's, or an exported program."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from pockengine.errors import InputError, PockEngineError

OBVIOUS = ("workload", "model", "make_model", "create_model", "get_model", "build_model")
"""Functions that a Python file is asked for, in this order, where none is named."""

TOLD = ("classes", "vocabulary", "features")
"""Arguments that a function may have: classes of the targets, tokens of the texts' vocabulary,
numbers of an example."""

FORMS = "module:function, file.py:function, file.py or file.pt2"


def is_exported(name: str) -> bool:
    """Whether a name is that of a saved exported program."""
    return name.endswith(".pt2")


def call_source(name: str, given: Mapping[str, int]) -> Any:
    """What the function of a name gives.

    Args:
        name: ``module:function``, ``file.py:function``, or ``file.py`` for one of ``OBVIOUS`` or
            the file's only function. Modules are found from the current folder too.
        given: what data tell, such as the number of ``classes``; passed to a function with
            arguments of these names.

    Raises:
        InputError: there is no such function, it needs other arguments, or the user's code fails.
    """
    function = _function(name)
    try:
        known = dict(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # of a builtin
        known = {}
    keywords = {key: value for key, value in given.items() if key in known}
    needed = [
        each.name for each in known.values() if _is_needed(each) and each.name not in keywords
    ]
    if needed:
        raise wrong_model(
            name,
            f"its function needs {', '.join(needed)}",
            f"a function without arguments, or with those that data tell: {', '.join(TOLD)}",
        )
    try:
        return function(**keywords)
    except PockEngineError:
        raise
    except Exception as error:  # noqa: BLE001 - the user's code may raise anything
        _blame(name, error)


def wrong_model(name: str, found: str, needed: str) -> InputError:
    """The error of a model that cannot be had."""
    return InputError(
        where=f"model {name!r}",
        found=found,
        needed=needed,
        remedy="See the forms of MODEL in `pockengine compile --help`",
    )


def _function(name: str) -> Callable[..., Any]:
    if name.endswith(".py"):
        return _only_function(name, _file(name, Path(name)))
    place, _, attribute = name.rpartition(":")
    module = _file(name, Path(place)) if place.endswith(".py") else _module(name, place)
    function = getattr(module, attribute, None)
    if not callable(function):
        raise wrong_model(name, f"{place} has no function {attribute}", _told(_functions(module)))
    found: Callable[..., Any] = function
    return found


def _only_function(name: str, module: ModuleType) -> Callable[..., Any]:
    """The function that a file is there for."""
    functions = _functions(module)
    for each in OBVIOUS:
        if each in functions:
            return functions[each]
    if len(functions) == 1:
        return next(iter(functions.values()))
    found = f"its functions are {', '.join(functions)}" if functions else "it has no function"
    needed = f"one that is called {' or '.join(OBVIOUS[:2])}, or a name: {name}:FUNCTION"
    raise wrong_model(name, found, needed)


def _functions(module: ModuleType) -> dict[str, Callable[..., Any]]:
    """What a file itself defines and does not hide."""
    return {
        name: value
        for name, value in vars(module).items()
        if inspect.isfunction(value)
        and value.__module__ == module.__name__
        and not name.startswith("_")
    }


def _told(functions: Sequence[str] | dict[str, Any]) -> str:
    return f"one of {', '.join(functions)}" if functions else "a function without arguments"


def _is_needed(parameter: inspect.Parameter) -> bool:
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return parameter.default is inspect.Parameter.empty and parameter.kind not in variadic


def _module(name: str, place: str) -> ModuleType:
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        raise wrong_model(name, str(error), "a module that Python finds from here") from error
    except Exception as error:  # noqa: BLE001 - the user's code may raise anything
        _blame(name, error)


def _file(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise wrong_model(name, f"there is no file {path}", "a Python file")
    module = importlib.util.module_from_spec(spec)
    beside = str(path.resolve().parent)
    if beside not in sys.path:  # what the file imports may lie beside it
        sys.path.insert(0, beside)
    sys.modules.setdefault(path.stem, module)  # for what it pickles or looks up in itself
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # noqa: BLE001 - the user's code may raise anything
        sys.modules.pop(path.stem, None)
        _blame(name, error)
    return module


def _blame(name: str, error: Exception) -> NoReturn:
    """An error of the user's code in one line, with its place."""
    place = ""
    if not isinstance(error, SyntaxError):  # which tells it itself
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f" ({Path(last.filename).name}, line {last.lineno})"
    text = " ".join(str(error).split())
    raise wrong_model(
        name, f"its code raises {type(error).__name__}: {text}{place}", "code that runs"
    ) from error
