"""All tables of the vocabulary, and the rows of them that PyTorch leaves undefined somewhere."""

from __future__ import annotations

from tests.vocabulary.activations import ACTIVATIONS, FUNCTIONS, LOGIC
from tests.vocabulary.attention import ATTENTION
from tests.vocabulary.experts import EXPERTS
from tests.vocabulary.indexing import INDEXING, SHAPES
from tests.vocabulary.reductions import REDUCTIONS
from tests.vocabulary.spatial import SPATIAL

_DOUBLE = {
    "activations": ACTIVATIONS,
    "functions": FUNCTIONS,
    "logic": LOGIC,
    "reductions": REDUCTIONS,
    "indexing": INDEXING,
    "shapes": SHAPES,
    "attention": ATTENTION,
}
TABLES = {**_DOUBLE, "experts": EXPERTS}
ALL = {**_DOUBLE, "spatial": SPATIAL}  # PyTorch's grouped products do not take float64

_TIES = "ties: the slope differs by side"
_LAST = "places that occur twice: one write wins, PyTorch gives both a gradient"
NO_SLOPE = {
    "nan_to_num": "NaN and infinity among its values",
    "straight through": "detached on purpose",
    "double": ".float() rounds, also in float64",
    "amax of ties": _TIES,
    "max of ties": _TIES,
    "sort of ties": _TIES,
    "embedding padding": "the padding row has no gradient on purpose",
    "scatter_add smaller": "detached on purpose",
    "assign columns": _LAST,
    "assign apart": _LAST,
    "normalization: rms": "its default epsilon goes by the dtype, which is float64 here",
    "as_strided": "PyTorch's gradient of as_strided_scatter fails its own gradcheck",
}
"""Rows whose gradient is not the slope of their function, with the reason."""

_LANES = "NaN's gradient depends on the element's place: vector code and its rest differ in PyTorch"
_ORDER = "equal elements, which PyTorch orders by no rule"
_WELFORD = "PyTorch's running mean turns infinity into NaN, its mean does not"
_KERNELS = "PyTorch has several kernels of attention, which treat NaN behind a mask apart"
_BORDER = "0 * NaN beyond the border: the gradient convolves padded gradients, PyTorch skips them"
_BLEND = "PyTorch's kernel sums weighted neighbours, its decomposition adds weighted differences"
UNDEFINED = {
    **dict.fromkeys(("ReLU6", "Hardtanh", "Hardtanh bounds", "Hardshrink", "Hardswish"), _LANES),
    **dict.fromkeys(("ELU", "ELU alpha", "CELU", "CELU alpha", "SELU"), _LANES),
    "GELU": "infinity gives NaN in vector code and infinity in its rest",
    "logit": "the gradient at -0: PyTorch's decomposition has the other sign of infinity",
    **dict.fromkeys(("topk", "kthvalue", "smallest one"), _ORDER),
    "topk of one": "several NaN: any of them is the largest",
    **dict.fromkeys(("var_mean", "std_mean"), _WELFORD),
    **dict.fromkeys(("weights: padded", "weights: unpadded"), _BORDER),
    "experts": "gates of NaN: any expert is the best",
    "prod": "PyTorch's gradient divides, unless there is a zero: its formula goes by the data",
    **dict.fromkeys(("attention causal square", "grouped queries causal"), _KERNELS),
    **{
        f"resizing: {n}": _BLEND
        for n in ("bilinear", "bilinear, corners", "bilinear, down", "linear")
    },
}
"""Rows that PyTorch itself answers in several ways for special operands, with the reason."""

_TRACER = "PyTorch computes it, but its tracer refuses a negative axis of an empty tensor"
_UNWRITTEN = "groups that leave out rows: PyTorch does not write theirs, we write zeros"
_PADDING = (
    "windows of padding alone: -inf, whose gradient PyTorch gives to some element, we to none"
)
UNCOMPARED = {
    "pooling: max, ceil, 1 for [6]": _PADDING,
    **{
        f"grouped {row}, {extent} for [{size}]": _UNWRITTEN
        for row, size in {
            "rows": 3,
            "rows, empty groups": 5,
            "rows, more groups": 6,
            "rows, transposed": 3,
            "columns": 3,
            "sums": 3,
        }.items()
        for extent in (0, 1)
    },
    "topk, expanded": _ORDER,
    "norm, 0 for [3]": _TRACER,
    "norm, 0 for [4]": _TRACER,
    "vector_norm, 0 for [3]": _TRACER,
    "vector_norm, 0 for [4]": _TRACER,
}
"""Variants of rows that PyTorch answers in several ways or cannot trace, with the reason."""

_SPELLED = "another overload or spelling of an op that a row reaches; traces made elsewhere have it"
_CUT = "torch takes it apart ahead of the table; traces made elsewhere have it"
_DRAWN = "random: tests/test_spatial.py and tests/frontend/test_rules.py replay the draws"
UNREACHED = {
    **dict.fromkeys(
        "__and__.Scalar __and__.Tensor __or__.Scalar __or__.Tensor __xor__.Scalar __xor__.Tensor "
        "_assert_async.default _assert_scalar.default adaptive_avg_pool2d.default arange.default "
        "arange.start detach.default div.Scalar_mode eq.default fix.default ge.default gt.default "
        "le.default lt.default maximum.Scalar maximum.Tensor maximum.Tensor_Tensor minimum.Scalar "
        "minimum.Tensor minimum.Tensor_Tensor mul.Tensor_Tensor mul.default ne.default pow.Tensor "
        "pow.default reshape.default rsub.Scalar rsub.Tensor squeeze.default squeeze.dim "
        "sum.default t.default to.dtype transpose.int true_divide.Tensor where.Scalar "
        "where.ScalarOther where.ScalarSelf all.default contiguous.default _unsafe_view.default "
        "convert_element_type.default flatten.using_ints remainder.Scalar_Tensor "
        "native_batch_norm.default _native_batch_norm_legit.default".split(),
        _SPELLED,
    ),
    **dict.fromkeys(
        "_unsafe_index.Tensor _unsafe_index_put.default all.dim all.dims baddbmm.default "
        "clamp_max.Tensor clamp_max.default clamp_min.Tensor clamp_min.default empty_like.default "
        "floor_divide.default mv.default new_empty.default new_full.default new_ones.default "
        "new_zeros.default "
        "ones.default ones_like.default replication_pad1d.default replication_pad2d.default "
        "replication_pad3d.default select_scatter.default stack.default zeros.default "
        "zeros_like.default".split(),
        _CUT,
    ),
    **dict.fromkeys(
        "bernoulli.default bernoulli.p exponential.default native_dropout.default "
        "normal.Tensor_Tensor normal.Tensor_float normal.float_Tensor normal.float_float "
        "normal_functional.default rand.default rand_like.default randn.default "
        "randn_like.default randperm.default rrelu_with_noise.default uniform.default".split(),
        _DRAWN,
    ),
}
"""Rules that no row needs, with the reason."""
