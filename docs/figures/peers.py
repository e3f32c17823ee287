"""Draw the peers of experiments/step_time/result.json: ``python docs/figures/peers.py``.

One panel a workload on one thread: the time of a step of each peer, over ours.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULT = HERE.parents[1] / "experiments" / "step_time" / "result.json"
FIGURE = HERE / "peers.svg"

NAMES = {
    "eager": "PyTorch",
    "channels_last": "PyTorch NHWC",
    "compiled": "torch.compile",
    "jax": "JAX",
    "tensorflow": "TensorFlow",
    "onnxruntime": "ONNX Runtime",
    "mnn": "MNN",
}
_COLUMNS, _PANEL, _LABEL, _BAR, _ROW, _HEAD = 2, 360, 110, 150, 19, 30
_OURS, _THEIRS, _INK = "#2f7ed8", "#c8ccd2", "#57606a"


def svg(result: Mapping[str, Any]) -> str:
    """The figure of an experiment's result."""
    rows = [row for row in result["peers"].values() if row["threads"] == 1]
    height = _HEAD + _ROW * (len(NAMES) + 1) + 14
    total = -(-len(rows) // _COLUMNS) * height + 24
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_COLUMNS * _PANEL} {total}" '
        f'role="img" aria-label="Step time beside peers" font-family="sans-serif" '
        f'font-size="12" fill="{_INK}">'
    )
    parts = [head]
    for place, row in enumerate(rows):
        down, across = divmod(place, _COLUMNS)
        parts.extend(_panel(across * _PANEL, down * height, row))
    machine = result["machine"]
    days = ", ".join(sorted({row["date"] for row in rows}))
    told = f"One thread on one core: {machine['processor']}, {days}"
    return "\n".join([*parts, _text(0, total - 6, told), "</svg>"]) + "\n"


def _panel(left: int, top: int, row: Mapping[str, Any]) -> Iterator[str]:
    """A workload: our bar, then those of the peers, to the scale of the longest."""
    ratios = {n: p["ms"] / p["ours_ms"] for n, p in row["peers"].items() if "ms" in p}
    longest = max(1.0, *ratios.values()) if ratios else 1.0
    yield _text(left, top + 18, row["case"], "bold")
    bars = [("PockEngine", 1.0, _OURS, f"{row['ours']['ms']:.1f} ms")]
    for name, told in NAMES.items():
        ratio = ratios.get(name)
        bars.append((told, ratio or 0.0, _THEIRS, "not available" if ratio is None else ""))
    for place, (told, ratio, colour, words) in enumerate(bars):
        y, width = top + _HEAD + place * _ROW, _BAR * ratio / longest
        yield _text(left, y + 11, told)
        yield f'<rect x="{left + _LABEL}" y="{y}" width="{width:.1f}" height="14" fill="{colour}"/>'
        yield _text(left + _LABEL + width + 5, y + 11, words or f"{ratio:.2f}x")


def _text(x: float, y: int, told: str, weight: str = "normal") -> str:
    return f'<text x="{x:.1f}" y="{y}" font-weight="{weight}">{told}</text>'


if __name__ == "__main__":
    FIGURE.write_text(svg(json.loads(RESULT.read_text(encoding="utf-8"))), encoding="utf-8")
