"""`pockengine evaluate` and `predict`: what a trained model knows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from pockengine.cli.options import (
    as_json,
    documented,
    how_trained,
    model_argument,
    of_data,
    threads_option,
    weights_option,
)


@click.command("evaluate")
@model_argument
@of_data
@click.option(
    "--weights",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What `pockengine train --out` wrote; default: the model's own.",
)
@click.option("--part", type=click.Choice(["test", "train"]), default="test", show_default=True)
@how_trained
@click.option("--batch", type=click.IntRange(min=1), default=8, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Of the split.")
@threads_option
@as_json
@documented
def evaluate_command(*, model: str, as_json: bool, **options: Any) -> None:
    r"""Loss, accuracy, F1 and confusion matrix of MODEL on data.

    \b
    pockengine evaluate mobilenet_v2 --data photos/ --weights weights.safetensors
    pockengine evaluate my_model.py --data test.npz --weights w.safetensors --json

    {MODEL}

    The test part is the one that `train` validated on, with the same --seed and --limit.
    """
    from pockengine.cli.data import Wanted  # noqa: PLC0415
    from pockengine.cli.session import open_session  # noqa: PLC0415
    from pockengine.report.tables import metrics_table  # noqa: PLC0415

    wanted = Wanted(
        size=options["size"],
        length=options["length"],
        limit=options["limit"],
        bert=model == "mini_lm",
        seed=options["seed"],
    )
    session = open_session(
        model,
        options["data"],
        wanted,
        batch=options["batch"],
        optimizer=options["optimizer"],
        loss=options["loss"],
        weights=options["weights"],
    )
    classes = session.reading.classes
    metrics = ("loss", "accuracy", "f1", "confusion_matrix") if classes else ("loss",)
    with session.compile(options["scheme"], options["threads"]) as trainer:
        part = session.test if options["part"] == "test" else session.train
        found = trainer.metrics(part, metrics=metrics)
    plain = {name: getattr(value, "tolist", lambda v=value: v)() for name, value in found.items()}
    told = {**plain, "examples": len(part[1]), "classes": classes}
    click.echo(json.dumps(told) if as_json else metrics_table(told))


@click.command("predict")
@model_argument
@click.argument("inputs", nargs=-1, required=True)
@weights_option
@click.option("--top", type=click.IntRange(min=1), default=1, show_default=True, help="Classes.")
@click.option("--batch", type=click.IntRange(min=1), default=8, show_default=True)
@threads_option
@as_json
@documented
def predict_command(
    *,
    model: str,
    inputs: tuple[str, ...],
    weights: Path,
    top: int,
    batch: int,
    threads: int | None,
    as_json: bool,
) -> None:
    r"""The class and score of each of INPUTS: pictures or folders of them, texts, or arrays.

    \b
    pockengine predict mobilenet_v2 new.jpg more/ --weights weights.safetensors
    pockengine predict mini_lm "what a film" --weights weights.safetensors --top 2 --json
    pockengine predict my_model.py new.npz --weights weights.safetensors

    {MODEL}

    A text may also be a .txt file with one text a line, or a .csv file with the column text. A
    model of numbers instead of classes gives its outputs.
    """
    from pockengine.cli.predictions import predict  # noqa: PLC0415
    from pockengine.report.tables import predictions_table  # noqa: PLC0415

    found = predict(model, inputs, weights, batch=batch, top=top, threads=threads)
    click.echo(json.dumps(found) if as_json else predictions_table(found))
