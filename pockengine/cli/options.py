"""Arguments and options that several commands share. Imports click alone."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from pockengine.report.workloads import Workload

Command = TypeVar("Command", bound=Callable[..., Any])

MODELS = ("mobilenet_v2", "mini_lm", "mlp", "small_cnn", "small_encoder")
OPTIMIZERS = ("sgd", "momentum", "adam", "adamw", "lion", "rmsprop", "adagrad")
LOSSES = (
    *("cross_entropy", "mse", "l1", "smooth_l1", "bce_with_logits"),
    *("token_cross_entropy", "causal_lm", "model"),
)
_SCHEMES = ("full", "bias_only", "bias_only:4", "last_blocks:1", "last_blocks:2", "lora:4:")
TASKS = (
    *("fashion-mnist", "openclipart", "openclipart-topics", "elpv", "digits", "shapes"),
    *("sentiment-movie", "sentiment-amazon", "sentiment-tweets", "sentiment-nyt"),
    *("bbc-news", "phrases"),
)

MODEL_HELP = r"""MODEL is one of

    \b
      mobilenet_v2, mini_lm        built in, with pretrained weights
      mlp, small_cnn, small_encoder
      file.py                      its function `workload`, `model`, `make_model`,
                                   ... or the only one that it defines
      file.py:function             a function of a file
      module:function              a function of a module
      file.pt2                     saved by torch.export.save

    A function gives a model, (model, example_batch, loss) or (model, example_batch, loss,
    optimizer). Its arguments `classes`, `vocabulary` and `features`, where it has them, are told by
    the data: how many classes, how many tokens, how many numbers an example has."""


def documented(command: Command) -> Command:
    r"""Make a docstring a help text: ``{MODEL}`` becomes what that may be, ``\b`` click's mark."""
    assert command.__doc__
    text = command.__doc__.replace("{MODEL}", MODEL_HELP)
    command.__doc__ = text.replace("\\b\n", "\b\n")
    return command


def _names(*names: str, files: bool) -> Callable[..., list[CompletionItem]]:
    """Completes names, and files and folders where asked for."""

    def complete(
        ctx: click.Context, parameter: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        del ctx, parameter
        found = [CompletionItem(name) for name in names if name.startswith(incomplete)]
        return [*found, CompletionItem(incomplete, type="file")] if files else found

    return complete


def _targets(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    from pockengine.targets import TARGETS  # noqa: PLC0415 - only data, but not for --help

    del ctx, parameter
    return [CompletionItem(name) for name in TARGETS if name.startswith(incomplete)]


def stacked(*options: Callable[[Any], Any]) -> Callable[[Command], Command]:
    """Some options as one decorator."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def _count(name: str, default: int, told: str) -> Callable[[Any], Any]:
    at_least_one = click.IntRange(min=1)
    return click.option(name, type=at_least_one, default=default, show_default=True, help=told)


complete_model = _names(*MODELS, files=True)

model_argument = click.argument("model", shell_complete=complete_model)

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")

threads_option = click.option(
    "--threads", type=click.IntRange(min=1), help="Default: all cores where that pays, else one."
)

target_option = click.option(
    "--target",
    default="host",
    show_default=True,
    shell_complete=_targets,
    help="A machine of `pockengine targets`.",
)

tuning_option = click.option(
    "--tuning",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File of `pockengine tune` for the target's processor: results differ by rounding only.",
)

micro_batches_option = click.option(
    "--micro-batches",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Equal parts of a batch that a step runs in turn: activations are those of one.",
)
recompute_option = click.option(
    "--recompute",
    type=click.FloatRange(0, 1, max_open=True),
    help="Largest part of a step's time for computing values again instead of keeping them, where "
    "that saves as much memory; default: 0.09.",
)
scheme_option = click.option(
    "--scheme",
    shell_complete=_names(*_SCHEMES, files=True),
    help="What is updated: full, bias_only[:N], last_blocks:N, lora:RANK:LAYER,LAYER or a JSON "
    "file; default: what the model's requires_grad says.",
)

weights_option = click.option(
    "--weights",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    help="What `pockengine train --out` wrote.",
)

how_trained = stacked(
    scheme_option,
    click.option(
        "--optimizer",
        type=click.Choice(OPTIMIZERS),
        help="Instead of the model's own, or SGD with momentum 0.9.",
    ),
    click.option(
        "--loss",
        type=click.Choice(LOSSES),
        help="Instead of the model's own, or cross_entropy for classes and mse for numbers.",
    ),
)
"""The options that say what a step is."""

sized = stacked(
    _count("--batch", 8, "Examples, of a built-in model."),
    _count("--size", 128, "Pixels of an image's side."),
    _count("--length", 128, "Tokens of a text."),
    how_trained,
)
"""The options of the commands that look at a model without data."""

of_model = stacked(model_argument, sized)

of_data = stacked(
    click.option(
        "--data",
        required=True,
        shell_complete=_names(*TASKS, files=True),
        help="A folder with a folder of pictures for each class, a CSV file with the columns text "
        "and label, an .npz file, or the name of a task.",
    ),
    click.option(
        "--size",
        type=click.IntRange(min=1),
        help="Pixels that a picture's sides are squeezed to; default 128, or the task's own.",
    ),
    click.option(
        "--length",
        type=click.IntRange(min=3),
        help="Tokens that a text is cut or filled to; default 64.",
    ),
    click.option("--limit", type=click.IntRange(min=1), help="At most this many of each class."),
)
"""The options of the commands that read data."""


def check_writable(path: Path, option: str) -> None:
    """A file that is to be written at the end can be: its folder takes one now.

    Raises:
        UsageError: it cannot.
    """
    folder = path.absolute().parent
    if not folder.is_dir():
        raise click.UsageError(f"{option} {path}: there is no folder {path.parent}.")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        message = f"{option} {path}: {path.parent} cannot be written ({error.strerror})."
        raise click.UsageError(message) from error


def check_room(path: Path, nbytes: int, option: str) -> None:
    """There is room for a file of so many bytes, so that no training is lost for want of it.

    Raises:
        UsageError: there is not.
    """
    free = shutil.disk_usage(path.absolute().parent).free
    if free < nbytes:
        raise click.UsageError(
            f"{option} {path}: {path.parent} has room for {free / 1e6:.1f} MB, the file needs "
            f"{nbytes / 1e6:.1f} MB."
        )


def workload_of(
    *, model: str, batch: int, size: int, length: int, optimizer: str | None, loss: str | None
) -> Workload:
    """The workload that ``of_model`` describes, but for its scheme."""
    from pockengine.report.workloads import (  # noqa: PLC0415
        OPTIMIZERS as FOUND,
    )
    from pockengine.report.workloads import Sizes, find_workload  # noqa: PLC0415

    sizes = Sizes(batch=batch, side=size, length=length)
    return find_workload(model, sizes, FOUND[optimizer] if optimizer else None, loss)
