"""The analytic memory of the Tiny Training Engine as a cost table, so that it can be searched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pockengine.contribution.analytic import (
    AnalyticMemory,
    ConvLayer,
    Widths,
    analytic_memory,
    last_biases,
)
from pockengine.contribution.choice import RATIOS
from pockengine.contribution.costs import Bias, CostTable, Part, Piece, Place


def analytic_costs(
    layers: Sequence[ConvLayer],
    *,
    ratios: Sequence[float] = RATIOS,
    widths: Widths | None = None,
) -> CostTable:
    """The costs of all choices of a layer table, by ``analytic_memory``: no time, no energy.

    All that is kept counts as live at once: the schedule has a single point. Where elements take
    less than a byte, each part is rounded up by itself.

    Args:
        layers: convolutions in the order of the forward pass.
        ratios: parts of a weight; of grouped convolutions that are not depthwise, only the whole.
        widths: bits of an element; by default those of int8 training.
    """
    count = len(layers)

    def memory(scheme: Mapping[str, float]) -> AnalyticMemory:
        return analytic_memory(layers, scheme, widths)

    idle = memory({})
    tried = {
        (index, ratio): memory({f"{layer.name}.weight": ratio})
        for index, layer in enumerate(layers)
        for ratio in (ratios if layer.groups in (1, layer.cin) else (1.0,))
    }
    ends = {count - k: memory(last_biases(layers, k)) for k in range(count + 1)}
    places = [
        *(Place(layer=k, ratio=None, live_bytes=(_live(x),), amounts=()) for k, x in ends.items()),
        *(
            Place(layer=index, ratio=ratio, live_bytes=(_live(x),), amounts=())
            for (index, ratio), x in tried.items()
        ),
    ]
    parts = [
        Part(
            layer=index,
            ratio=ratio,
            kept_bytes=x.weight_bytes,
            pieces=(Piece(first=0, end=1, nbytes=x.activation_bytes - idle.activation_bytes),),
            amounts=(),
        )
        for (index, ratio), x in tried.items()
    ]
    biases = [memory({f"{layer.name}.bias": 1.0}).bias_bytes for layer in layers]
    return CostTable(
        layers=count,
        places=tuple(places),
        parts=tuple(parts),
        biases=tuple(Bias(kept_bytes=nbytes, amounts=()) for nbytes in biases),
    )


def _live(memory: AnalyticMemory) -> int:
    return memory.activation_bytes + memory.mask_bytes
