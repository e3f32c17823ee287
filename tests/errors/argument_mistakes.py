"""Arguments of ``compile`` besides the model, its batch and its loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

import pockengine as pe
from pockengine.errors import CaptureError, InputError, PlanError, SchemeError
from pockengine.lower.tuning import Processor, Tuning
from tests.errors.mistake import Mistakes, X, Y, build, network

mistakes = Mistakes()


@mistakes(SchemeError)
def scheme_is_a_name(_: Path) -> object:
    """The scheme is a word."""
    return build(scheme="full")


@mistakes(SchemeError)
def scheme_is_a_dict(_: Path) -> object:
    """The scheme is a plain dict."""
    return build(scheme={"0.weight": 1.0})


@mistakes(SchemeError)
def scheme_is_a_function(_: Path) -> object:
    """The scheme is ``Scheme.full`` without its parentheses."""
    return build(scheme=pe.Scheme.full)


@mistakes(SchemeError)
def scheme_of_a_list(_: Path) -> object:
    """A scheme is made of names without fractions."""
    return pe.Scheme(["0.weight"])  # type: ignore[arg-type]


@mistakes(SchemeError)
def scheme_of_numbers(_: Path) -> object:
    """A scheme names parameters by number."""
    return build(scheme=pe.Scheme({0: 1.0}))  # type: ignore[dict-item]


@mistakes(SchemeError)
def empty_scheme(_: Path) -> object:
    """The scheme names nothing."""
    return build(scheme=pe.Scheme({}))


@mistakes(SchemeError)
def everything_frozen(_: Path) -> object:
    """No parameter of the model requires a gradient."""
    return build(network().requires_grad_(False))


@mistakes(SchemeError)
def model_without_parameters(_: Path) -> object:
    """The model has no parameters."""
    return build(nn.Sequential(nn.ReLU()))


@mistakes(SchemeError)
def fraction_above_one(_: Path) -> object:
    """A scheme's fraction is a percentage."""
    return pe.Scheme({"0.weight": 50})


@mistakes(SchemeError)
def fraction_zero(_: Path) -> object:
    """A scheme freezes a parameter by a fraction of 0."""
    return pe.Scheme({"0.weight": 0.0})


@mistakes(SchemeError)
def fraction_in_words(_: Path) -> object:
    """A scheme's fraction is a word."""
    return pe.Scheme({"0.weight": "half"})  # type: ignore[dict-item]


@mistakes(SchemeError)
def unknown_parameter(_: Path) -> object:
    """The scheme names a parameter that the model does not have."""
    return build(scheme=pe.Scheme({"0.weigth": 1.0}))


@mistakes(SchemeError)
def scheme_names_a_layer(_: Path) -> object:
    """The scheme names a layer instead of its parameters."""
    return build(scheme=pe.Scheme({"0": 1.0}))


@mistakes(SchemeError)
def scheme_names_a_buffer(_: Path) -> object:
    """The scheme names a buffer."""
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    return build(model, scheme=pe.Scheme({"1.running_mean": 1.0}))


@mistakes(SchemeError)
def part_of_a_bias(_: Path) -> object:
    """The scheme updates a part of a bias."""
    return build(scheme=pe.Scheme({"0.bias": 0.5}))


@mistakes(SchemeError)
def tied_with_two_fractions(_: Path) -> object:
    """The scheme gives two fractions to one tied weight."""
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight  # type: ignore[assignment]
    return build(model, scheme=pe.Scheme({"0.weight": 1.0, "1.weight": 0.5}))


@mistakes(SchemeError)
def unused_parameter(_: Path) -> object:
    """The scheme names a parameter that the loss does not depend on."""
    model = network()
    model.spare = nn.Linear(2, 2)
    model.forward = lambda x: model[2](model[1](model[0](x)))  # type: ignore[method-assign]
    return build(model, scheme=pe.Scheme({"spare.weight": 1.0}))


@mistakes(SchemeError)
def last_zero_blocks(_: Path) -> object:
    """The last 0 blocks are to be updated."""
    return pe.Scheme.last_blocks(0)


@mistakes(SchemeError)
def too_many_blocks(_: Path) -> object:
    """More blocks are to be updated than the model has."""
    return build(scheme=pe.Scheme.last_blocks(9))


@mistakes(SchemeError)
def too_many_biases(_: Path) -> object:
    """More biases are to be updated than the model has."""
    return build(scheme=pe.Scheme.bias_only(9))


@mistakes(SchemeError)
def bias_only_of_a_word(_: Path) -> object:
    """The number of biases is a word."""
    return pe.Scheme.bias_only("all")  # type: ignore[arg-type]


@mistakes(SchemeError)
def lora_without_a_match(_: Path) -> object:
    """LoRA's targets match no layer."""
    return build(scheme=pe.Scheme.lora(2, ["q_proj"]))


@mistakes(SchemeError)
def lora_without_targets(_: Path) -> object:
    """LoRA has no targets."""
    return build(scheme=pe.Scheme.lora(2, []))


@mistakes(SchemeError)
def lora_of_rank_zero(_: Path) -> object:
    """LoRA's rank is 0."""
    return pe.Scheme.lora(0, ["0"])


@mistakes(SchemeError)
def lora_alpha_in_words(_: Path) -> object:
    """LoRA's alpha is a word."""
    return pe.Scheme.lora(2, ["0"], alpha="16")  # type: ignore[arg-type]


@mistakes(SchemeError)
def lora_of_a_number(_: Path) -> object:
    """LoRA's target is the number of a layer."""
    return pe.Scheme.lora(2, 0)  # type: ignore[arg-type]


@mistakes(SchemeError)
def lora_of_a_convolution(_: Path) -> object:
    """LoRA is to adapt a convolution of 3 x 3."""
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten())
    return build(model, (torch.zeros(4, 3, 3, 3), Y), scheme=pe.Scheme.lora(2, ["0"]))


@mistakes(SchemeError)
def lora_of_attention(_: Path) -> object:
    """LoRA is to adapt the projection inside ``nn.MultiheadAttention``."""
    model = nn.Sequential(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), nn.Linear(4, 2))
    batch = (torch.zeros(4, 3, 4), torch.zeros(4, 3, 2))
    return build(model, batch, loss="mse", scheme=pe.Scheme.lora(2, ["out_proj"]))


@mistakes(SchemeError)
def missing_scheme_file(folder: Path) -> object:
    """The file of a scheme does not exist."""
    return pe.Scheme.load(folder / "scheme.json")


@mistakes(SchemeError)
def scheme_file_is_something_else(folder: Path) -> object:
    """The file of a scheme holds something else."""
    (folder / "scheme.json").write_text('{"0.weight": 1.0}')
    return pe.Scheme.load(folder / "scheme.json")


@mistakes(SchemeError)
def scheme_file_is_no_json(folder: Path) -> object:
    """The file of a scheme is cut short."""
    (folder / "scheme.json").write_text(pe.Scheme({"0.weight": 1.0}).to_json()[:-9])
    return pe.Scheme.load(folder / "scheme.json")


@mistakes(SchemeError)
def scheme_file_is_binary(folder: Path) -> object:
    """The file of a scheme is no text."""
    (folder / "scheme.json").write_bytes(b"\xff\xfe\x00\x80")
    return pe.Scheme.load(folder / "scheme.json")


@mistakes(SchemeError)
def scheme_saved_nowhere(folder: Path) -> object:
    """A scheme is saved into a folder that does not exist."""
    pe.Scheme({"0.weight": 1.0}).save(folder / "schemes" / "mine.json")


@mistakes(InputError)
def optimizer_is_a_name(_: Path) -> object:
    """The optimizer is a word."""
    return build(optimizer="adam")


@mistakes(InputError)
def optimizer_is_a_class(_: Path) -> object:
    """The optimizer is a class that was not instantiated."""
    return build(optimizer=pe.AdamW)


@mistakes(InputError)
def optimizer_has_a_rate(_: Path) -> object:
    """The optimizer is given the learning rate, as PyTorch's are."""
    return build(optimizer=pe.SGD(lr=0.1))  # type: ignore[call-arg]


@mistakes(InputError)
def optimizer_is_torch(_: Path) -> object:
    """The optimizer is PyTorch's."""
    return build(optimizer=torch.optim.SGD(network().parameters(), lr=0.1))


@mistakes(InputError)
def negative_momentum(_: Path) -> object:
    """The momentum is negative."""
    return pe.SGD(momentum=-0.9)


@mistakes(InputError)
def momentum_in_words(_: Path) -> object:
    """The momentum is a word."""
    return pe.SGD(momentum="0.9")  # type: ignore[arg-type]


@mistakes(InputError)
def nesterov_without_momentum(_: Path) -> object:
    """Nesterov's method has no momentum."""
    return pe.SGD(nesterov=True)


@mistakes(InputError)
def beta_of_one(_: Path) -> object:
    """A beta is 1."""
    return pe.AdamW(betas=(0.9, 1.0))


@mistakes(InputError)
def one_beta(_: Path) -> object:
    """The betas are one number."""
    return pe.Adam(betas=0.9)  # type: ignore[arg-type]


@mistakes(InputError)
def three_betas(_: Path) -> object:
    """There are three betas."""
    return pe.Lion(betas=(0.9, 0.99, 0.999))  # type: ignore[arg-type]


@mistakes(InputError)
def nan_weight_decay(_: Path) -> object:
    """The weight decay is not a number."""
    return pe.RMSprop(weight_decay=float("nan"))


@mistakes(InputError)
def groups_of_dicts(_: Path) -> object:
    """Parameter groups are dicts, as PyTorch's are."""
    return pe.SGD(groups=({"match": "*.bias"},))  # type: ignore[arg-type]


@mistakes(InputError)
def one_group(_: Path) -> object:
    """The groups are one group, not a tuple of them."""
    return pe.SGD(groups=pe.ParamGroup("*.bias"))  # type: ignore[arg-type]


@mistakes(InputError)
def group_without_a_pattern(_: Path) -> object:
    """A group's pattern is empty."""
    return pe.ParamGroup("")


@mistakes(InputError)
def group_of_a_number(_: Path) -> object:
    """A group's pattern is a number."""
    return pe.ParamGroup(0)  # type: ignore[arg-type]


@mistakes(InputError)
def group_without_a_match(_: Path) -> object:
    """A group matches no parameter."""
    return build(optimizer=pe.SGD(groups=(pe.ParamGroup("norm.*"),)))


@mistakes(InputError)
def clip_is_a_number(_: Path) -> object:
    """The limit on gradients is a number that does not say of what."""
    return build(clip=1.0)


@mistakes(InputError)
def clip_of_two(_: Path) -> object:
    """Gradients are limited in two ways."""
    return pe.Clip(value=1.0, norm=1.0)


@mistakes(InputError)
def clip_negative(_: Path) -> object:
    """The limit on gradients is negative."""
    return pe.Clip(global_norm=-1.0)


@mistakes(InputError)
def accumulate_nothing(_: Path) -> object:
    """Gradients of 0 batches are accumulated."""
    return build(accumulate=0)


@mistakes(InputError)
def accumulate_in_words(_: Path) -> object:
    """The number of accumulated batches is a word."""
    return build(accumulate="4")


@mistakes(InputError)
def no_micro_batches(_: Path) -> object:
    """A batch is taken apart into 0 micro-batches."""
    return build(micro_batches=0)


@mistakes(InputError)
def micro_batches_do_not_divide(_: Path) -> object:
    """Four samples are taken apart into 3 micro-batches."""
    return build(micro_batches=3)


@mistakes(InputError)
def recompute_in_percent(_: Path) -> object:
    """Two percent of a step's time are told as 2."""
    return build(recompute=2)


@mistakes(InputError)
def recompute_as_a_switch(_: Path) -> object:
    """Computing again is switched on instead of measured out."""
    return build(recompute=True)


@mistakes(InputError)
def micro_batches_and_accumulation(_: Path) -> object:
    """Batches are taken apart and put together at once."""
    return build(micro_batches=2, accumulate=2)


@mistakes(InputError)
def micro_batches_of_several_shapes(_: Path) -> object:
    """Steps of two shapes are to be taken apart into micro-batches."""
    return build(micro_batches=2, shapes=[(X[:2], Y[:2])])


@mistakes(InputError)
def micro_batches_and_padding(_: Path) -> object:
    """Smaller batches are padded and taken apart at once."""
    return build(micro_batches=2, partial=True)


@mistakes(CaptureError)
def micro_batches_of_an_unknown_loss(_: Path) -> object:
    """The loss of a batch in micro-batches is a function that nothing is known of."""
    return build(micro_batches=2, loss=lambda output, target: output.sum() * target.sum())


@mistakes(CaptureError)
def micro_batches_share_statistics(_: Path) -> object:
    """A model whose BatchNorm trains is to take micro-batches."""
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    return build(model, micro_batches=2)


@mistakes(InputError)
def average_above_one(_: Path) -> object:
    """The decay of the averaged weights is 2."""
    return build(ema=2)


@mistakes(InputError)
def average_is_a_flag(_: Path) -> object:
    """The decay of the averaged weights is a flag."""
    return build(ema=True)


@mistakes(InputError)
def unknown_target(_: Path) -> object:
    """There is no such target."""
    return build(target="raspberry-pi")


@mistakes(InputError)
def target_is_a_list(_: Path) -> object:
    """The target is a list of names."""
    return build(target=["host"])


@mistakes(InputError)
def no_threads(_: Path) -> object:
    """No thread is to work."""
    return build(threads=0)


@mistakes(InputError)
def negative_seed(_: Path) -> object:
    """The seed is negative."""
    return build(seed=-1)


@mistakes(InputError)
def partial_in_words(_: Path) -> object:
    """``partial`` is a number of samples."""
    return build(partial=3)


@mistakes(PlanError)
def too_big_for_a_board(_: Path) -> object:
    """The trainer needs more memory than the microcontroller has."""
    model = nn.Sequential(nn.Linear(64, 2048), nn.ReLU(), nn.Linear(2048, 2))
    return build(model, (torch.zeros(4, 64), Y), target="stm32f746")


@mistakes(PlanError)
def too_big_for_flash(_: Path) -> object:
    """The frozen weights are larger than the microcontroller's flash."""
    model = nn.Sequential(nn.Linear(64, 8192), nn.ReLU(), nn.Linear(8192, 2))
    scheme = pe.Scheme({"2.bias": 1.0})
    return build(model, (torch.zeros(1, 64), Y[:1]), target="stm32f746", scheme=scheme)


@mistakes(SchemeError)
def head_of_no_classes(_: Path) -> object:
    """A new head has no classes."""
    return pe.replace_head(network(), classes=0)


@mistakes(SchemeError)
def head_of_a_word(_: Path) -> object:
    """The number of classes is a word."""
    return pe.replace_head(network(), classes="10")  # type: ignore[arg-type]


@mistakes(SchemeError)
def head_of_no_module(_: Path) -> object:
    """A head is replaced in something that is no module."""
    return pe.replace_head(network().state_dict(), classes=2)  # type: ignore[arg-type]


@mistakes(SchemeError)
def head_without_linear(_: Path) -> object:
    """A head is replaced in a model without a linear layer."""
    return pe.replace_head(nn.Sequential(nn.Conv2d(3, 2, 1)), classes=2)


@mistakes(SchemeError)
def head_keeps_too_much(_: Path) -> object:
    """A new head is to keep classes that the old one does not have."""
    return pe.replace_head(network(), classes=3, keep=range(3))


@mistakes(SchemeError)
def head_keeps_a_number(_: Path) -> object:
    """A new head is to keep so many classes, instead of which."""
    return pe.replace_head(network(), classes=3, keep=2)  # type: ignore[arg-type]


@mistakes(InputError)
def negative_rate_schedule(_: Path) -> object:
    """A schedule's learning rate is negative."""
    return pe.schedules.cosine(-1e-3, 100)


@mistakes(InputError)
def schedule_without_steps(_: Path) -> object:
    """A schedule takes no steps."""
    return pe.schedules.linear(1e-3, 0.0, 0)


@mistakes(InputError)
def warmup_to_a_number(_: Path) -> object:
    """A warm-up is followed by a number, not a schedule."""
    return pe.schedules.warmup(10, 1e-3)  # type: ignore[arg-type]


@mistakes(InputError)
def chain_without_steps(_: Path) -> object:
    """A chain of schedules does not say how long each holds."""
    parts: Any = [pe.schedules.constant(1e-3)]
    return pe.schedules.chain(*parts, then=pe.schedules.constant(1e-4))


@mistakes(InputError)
def no_tuning_file(folder: Path) -> object:
    """The tuning file is not there."""
    return build(tuning=folder / "tuning.json")


@mistakes(InputError)
def tuning_that_is_a_scheme(folder: Path) -> object:
    """A scheme's file is given as the tuning."""
    pe.Scheme({"0.weight": 1.0}).save(folder / "scheme.json")
    return build(tuning=folder / "scheme.json")


@mistakes(InputError)
def tuning_is_no_path(_: Path) -> object:
    """The tuning is switched on by True."""
    return build(tuning=True)


@mistakes(InputError)
def tuning_of_another_processor(folder: Path) -> object:
    """The tuning was measured on another processor."""
    foreign = Processor(architecture="riscv64", vector_lanes=4, vector_registers=32)
    Tuning(processor=foreign).save(folder / "tuning.json")
    return build(tuning=folder / "tuning.json", target="linux-x86-64")
