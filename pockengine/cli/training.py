"""`pockengine train`: a model fine-tuned on the user's data."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pockengine.cli.options import (
    as_json,
    check_room,
    check_writable,
    documented,
    how_trained,
    model_argument,
    of_data,
    threads_option,
    tuning_option,
)

if TYPE_CHECKING:
    from pockengine.cli.session import Session
    from pockengine.fit.history import History
    from pockengine.schedules import Schedule
    from pockengine.trainer import Trainer


@click.command("train")
@model_argument
@of_data
@click.option(
    "--vocabulary",
    type=click.Choice(["bert", "words"]),
    help="Of texts: BERT's, or their 2000 most frequent words; default: bert for mini_lm only.",
)
@how_trained
@click.option("--epochs", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--batch", type=click.IntRange(min=1), default=8, show_default=True)
@click.option("--lr", type=float, default=1e-3, show_default=True, help="Learning rate, at most.")
@click.option(
    "--schedule",
    type=click.Choice(["linear", "cosine", "constant"]),
    default="linear",
    show_default=True,
    help="How the rate falls to 0 over the run, or not.",
)
@click.option("--warmup", type=click.IntRange(min=0), default=0, help="Steps of a rising rate.")
@click.option(
    "--init",
    default="pretrained",
    show_default=True,
    help="First weights of a built-in model: pretrained, random; or a safetensors file.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@threads_option
@tuning_option
@click.option(
    "--checkpoint",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File that is written after each epoch and on Ctrl-C; if it is there, go on from it.",
)
@click.option("--save-every", type=click.IntRange(min=1), help="Write it every so many steps too.")
@click.option(
    "--resume/--restart",
    default=None,
    help="Insist that the checkpoint is there; or overwrite it and begin anew.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the weights to this safetensors file, for evaluate, predict and PyTorch.",
)
@click.option("--picture", type=click.Path(dir_okay=False, path_type=Path), help="Draw the run.")
@as_json
@documented
def train_command(*, model: str, as_json: bool, **options: Any) -> None:
    r"""Fine-tune MODEL on data of your own, and tell how it went.

    \b
    pockengine train mobilenet_v2 --data photos/ --scheme last_blocks:3 --out weights.safetensors
    pockengine train my_model.py --data reviews.csv --epochs 5 --checkpoint run.ckpt
    pockengine train mini_lm --data sentiment-movie --scheme lora:4:query,value --lr 1e-2

    {MODEL}

    Data are split, a fifth of each class for validation, unless they bring a test part: folders
    `train` and `test`, or arrays whose names end in _test. Pictures are normalized by ImageNet's
    mean and deviation. Ctrl-C stops after the step under way (exit code 130); the same command then
    goes on from the checkpoint.
    """
    from pockengine.cli.session import open_session  # noqa: PLC0415

    _check_options(options)
    session = open_session(
        model,
        options["data"],
        _wanted(model, options),
        batch=options["batch"],
        optimizer=options["optimizer"],
        loss=options["loss"],
        init=options["init"],
    )
    if options["out"]:
        tensors = session.model.state_dict().values()
        check_room(options["out"], sum(tensor.nbytes for tensor in tensors), "--out")
    with session.compile(
        options["scheme"], options["threads"], options["seed"], options["tuning"]
    ) as trainer:
        history = _fit(trainer, session, options)
        if options["out"]:
            from pockengine.cli.weights import write_weights  # noqa: PLC0415

            write_weights(options["out"], trainer.state_dict(merge=True), session.reading)
        told = {
            "rows": history.rows,
            "plan": dict(_plan(trainer)),
            "classes": session.reading.classes,
        }
    if options["picture"]:
        history.plot(options["picture"])
    click.echo(json.dumps(told) if as_json else history.table())
    for written in filter(None, (options["out"], options["picture"])):
        click.echo(f"wrote {written}", err=True)


def _wanted(model: str, options: dict[str, Any]) -> Any:
    from pockengine.cli.data import Wanted  # noqa: PLC0415

    vocabulary = options["vocabulary"] or ("bert" if model == "mini_lm" else "words")
    return Wanted(
        size=options["size"],
        length=options["length"],
        limit=options["limit"],
        bert=vocabulary == "bert",
        seed=options["seed"],
    )


def _check_options(options: dict[str, Any]) -> None:
    """What would fail after the compilation or the training fails ahead of it."""
    if not 0 < options["lr"] < math.inf:
        raise click.UsageError(
            f"Invalid value for '--lr': {options['lr']} is not a finite number above 0."
        )
    checkpoint = options["checkpoint"]
    if checkpoint is None and (options["resume"] is not None or options["save_every"]):
        raise click.UsageError("--resume, --restart and --save-every need --checkpoint FILE.")
    if options["resume"] and not checkpoint.exists():
        raise click.UsageError(f"--resume: there is no checkpoint {checkpoint}.")
    for name in ("out", "checkpoint", "picture"):
        path = options[name]
        if path is not None:
            check_writable(path, f"--{name}")


def _fit(trainer: Trainer, session: Session, options: dict[str, Any]) -> History:
    steps = -(-len(session.train[1]) // session.batch) * options["epochs"]
    if not trainer.program.partial:
        steps = len(session.train[1]) // session.batch * options["epochs"]
        rest = len(session.train[1]) % session.batch
        if rest:
            click.echo(f"an epoch leaves out {rest} examples, less than a batch", err=True)
    if options["checkpoint"] and options["checkpoint"].exists() and options["resume"] is not False:
        click.echo(f"going on from {options['checkpoint']}", err=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is left out")  # which was told
        return trainer.fit(
            session.train,
            validation=session.test,
            epochs=options["epochs"],
            lr=_schedule(options, steps),
            seed=options["seed"],
            checkpoint=options["checkpoint"],
            save_every=options["save_every"],
            resume=options["resume"] is not False,
        )


def _schedule(options: dict[str, Any], steps: int) -> Schedule:
    from pockengine import schedules  # noqa: PLC0415

    rate, warmup = options["lr"], min(options["warmup"], steps - 1)
    kinds = {
        "constant": lambda: schedules.constant(rate),
        "linear": lambda: schedules.linear(rate, 0.0, steps - warmup),
        "cosine": lambda: schedules.cosine(rate, steps - warmup),
    }
    chosen = kinds[options["schedule"]]()
    return schedules.warmup(warmup, chosen) if warmup else chosen


def _plan(trainer: Trainer) -> dict[str, int]:
    from pockengine.report.plan_summary import regions  # noqa: PLC0415

    return regions(trainer.plan)
