"""Draw experiments/step_time/result.json for README.md: ``python docs/figures/step_time.py``.

One row a case: the time of a step and the transient memory, each as a share of PyTorch's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULT = HERE.parents[1] / "experiments" / "step_time" / "result.json"
FIGURE = HERE / "step_time.svg"

_WIDTH, _ROW, _TOP = 720, 48, 56
_NAMES, _PANEL, _GAP = 150, 250, 35  # of the case's name, a panel, and between the two
_TITLES = ("time of a step", "transient memory")
_OURS, _THEIRS, _INK = "#2f7ed8", "#c8ccd2", "#57606a"


def svg(result: dict[str, Any]) -> str:
    """The figure of an experiment's result."""
    cases = result["speed"]
    height = _TOP + _ROW * len(cases) + 24
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'aria-label="Step time and transient memory beside PyTorch" font-family="sans-serif" '
        f'font-size="13" fill="{_INK}">'
    )
    parts = [
        head,
        *(_text(_left(panel), 24, title, "bold") for panel, title in enumerate(_TITLES)),
        *(_text(_left(panel), 44, "PyTorch = grey") for panel in range(len(_TITLES))),
    ]
    for row, case in enumerate(cases):
        parts.extend(_case(_TOP + row * _ROW, case))
    machine = result["machine"]
    told = f"{machine['processor']}, {machine['cores']} cores, {machine['date']}"
    return "\n".join([*parts, _text(0, height - 6, told), "</svg>"]) + "\n"


def _case(top: int, case: dict[str, Any]) -> Iterator[str]:
    yield _text(0, top + 22, case["case"])
    yield from _bars(0, top, case["ms"], case["torch_ms"], "{:.0f} ms", 1)
    memory = case["arena_bytes"], case["torch_saved_bytes"]
    yield from _bars(1, top, *memory, "{:.1f} MB", 1e-6)


def _bars(
    panel: int, top: int, ours: float, theirs: float, form: str, scale: float
) -> Iterator[str]:
    """PyTorch's bar, which is as long as the panel, and ours as its share."""
    left, longest = _left(panel), _PANEL - 90
    share = ours / theirs
    for place, (value, length, colour) in enumerate(
        ((ours, longest * share, _OURS), (theirs, longest, _THEIRS))
    ):
        y = top + 4 + 18 * place
        yield f'<rect x="{left}" y="{y}" width="{length:.1f}" height="15" fill="{colour}"/>'
        told = form.format(value * scale) + (f" ({share:.0%})" if place == 0 else "")
        yield _text(left + length + 6, y + 12, told)


def _left(panel: int) -> int:
    return _NAMES + panel * (_PANEL + _GAP)


def _text(x: float, y: int, told: str, weight: str = "normal") -> str:
    return f'<text x="{x:.1f}" y="{y}" font-weight="{weight}">{told}</text>'


if __name__ == "__main__":
    FIGURE.write_text(svg(json.loads(RESULT.read_text(encoding="utf-8"))), encoding="utf-8")
