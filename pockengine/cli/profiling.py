"""`pockengine profile` and `search`: which layers are worth updating, and which fit a device."""

from __future__ import annotations

import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pockengine.cli.options import (
    OPTIMIZERS,
    as_json,
    check_writable,
    documented,
    micro_batches_option,
    model_argument,
    of_data,
    stacked,
    target_option,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Executor

    from pockengine.contribution.report import Report
    from pockengine.contribution.search import Found
    from pockengine.contribution.shown import Checked

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


class Bytes(click.ParamType[int]):
    """A size such as 300000, 256KiB or 64MB."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """As a whole number of bytes."""
        if isinstance(value, int):
            return value
        number = value.rstrip("BbGgIiKkMm ")
        try:
            return round(float(number) * _UNITS[value[len(number) :].strip().upper()])
        except (ValueError, KeyError, OverflowError):
            self.fail(f"{value!r} is no size such as 256KiB or 64MB.", param, ctx)


limits = stacked(
    target_option,
    click.option("--memory", type=Bytes(), help="Working memory, such as 64MB; default: all."),
    click.option("--step-ms", type=click.FloatRange(min=0), help="Milliseconds a step."),
    click.option("--energy", type=click.FloatRange(min=0), help="Joules a step."),
    click.option(
        "--out",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Write the scheme that gains most within the limits, for `compile --scheme`.",
    ),
    click.option(
        "--html", type=click.Path(dir_okay=False, path_type=Path), help="Write a page to look at."
    ),
    as_json,
)


@click.command("profile")
@model_argument
@of_data
@click.option("--epochs", type=click.FloatRange(min=0, min_open=True), default=1.0)
@click.option("--batch", type=click.IntRange(min=1), default=8, show_default=True)
@click.option("--lr", type=click.FloatRange(min=0, min_open=True), default=1e-3, show_default=True)
@click.option("--warmup", type=click.IntRange(min=0), default=0, help="Steps of a rising rate.")
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--optimizer", type=click.Choice(list(OPTIMIZERS)), help="Default: the model's own.")
@click.option(
    "--init", default="pretrained", help="As in `train`: pretrained, random, or safetensors."
)
@click.option("--fast", is_flag=True, help="Estimate weights by their gradients: minutes.")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("profile"),
    show_default=True,
    help="Where trials are kept: the same command goes on, or runs nothing again.",
)
@click.option("--jobs", type=click.IntRange(min=1), help="Processes; default: one a core.")
@click.option("--dask", help="Scheduler that runs the trials, such as tcp://host:8786.")
@click.option(
    "--check",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="Fine-tune what is chosen; above 1 the search learns from that and looks again.",
)
@click.option("--csv", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures.")
@limits
@micro_batches_option
@documented
def profile_command(*, model: str, as_json: bool, **options: Any) -> None:
    r"""Measure which layers of MODEL are worth updating on data of your own.

    \b
    pockengine profile mobilenet_v2 --data photos/ --html report.html
    pockengine profile mini_lm --data reviews.csv --fast --memory 40MB --out scheme.json
    pockengine compile mini_lm --scheme scheme.json --target raspberry-pi-4 --out trainer/

    {MODEL}

    Candidates are fine-tuned on the training part and measured on the test part, as `train` splits
    them. The report is kept in the folder as report.json, which `search` reads.
    """
    import pockengine as pe  # noqa: PLC0415
    from pockengine.cli.data import Wanted  # noqa: PLC0415
    from pockengine.cli.session import open_session  # noqa: PLC0415

    _check_files(options)
    session = open_session(
        model,
        options["data"],
        Wanted(
            size=options["size"],
            length=options["length"],
            limit=options["limit"],
            bert=model == "mini_lm",
        ),
        batch=options["batch"],
        optimizer=options["optimizer"],
        init=options["init"],
    )
    with _executor(options["dask"]) as executor:
        report = pe.profile(
            session.model,
            (session.train, session.test),
            loss=session.loss,
            optimizer=session.optimizer,
            lr=options["lr"],
            warmup=options["warmup"],
            epochs=options["epochs"],
            batch=session.batch,
            seeds=options["seeds"],
            fast=options["fast"],
            folder=options["folder"],
            executor=executor,
            jobs=options["jobs"],
        )
        report.costs(options["target"])
        report.save(options["folder"] / "report.json")  # ahead of a search that may find nothing
        if options["csv"]:
            options["csv"].write_text(report.to_csv(), encoding="utf-8")
        if not as_json:
            click.echo(report.table())
        _answer(report, model, options, as_json=as_json)


@click.command("search")
@click.argument("report", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@limits
@documented
def search_command(*, report: Path, as_json: bool, **options: Any) -> None:
    r"""Find what to update within limits, from a REPORT that `profile` wrote.

    \b
    pockengine search profile/report.json --memory 20MB --out scheme.json
    pockengine search profile/report.json --memory 20MB --step-ms 50 --html report.html

    Memory is what the profile's table of costs says; `compile` plans it exactly.
    """
    from pockengine.contribution.report import Report  # noqa: PLC0415

    _check_files(options)
    _answer(Report.load(report), "MODEL", options, as_json=as_json)


def _check_files(options: dict[str, Any]) -> None:
    for name in ("out", "html", "csv"):
        if options.get(name) is not None:
            check_writable(options[name], f"--{name}")


@contextmanager
def _executor(dask: str | None) -> Iterator[Executor | None]:
    """Dask's, if one is named; None for processes of this machine."""
    if dask is None:
        yield None
        return
    try:
        from distributed import Client  # noqa: PLC0415 - only where it is wanted
    except ImportError as error:
        raise click.UsageError("--dask needs Dask: pip install 'pockengine[dask]'.") from error
    try:
        client = Client(dask, timeout=10)
    except (OSError, ValueError) as error:
        raise click.UsageError(f"--dask {dask}: no scheduler answers ({error}).") from error
    with client:
        yield client.get_executor()


def _answer(report: Report, model: str, options: dict[str, Any], *, as_json: bool) -> None:
    """The best choice, told and written."""
    parts, rounds = options.get("micro_batches", 1), options.get("check", 0)
    limits = {
        "target": options["target"],
        "memory_bytes": options["memory"],
        "step_ms": options["step_ms"],
        "energy_joules": options["energy"],
        "micro_batches": parts,
    }
    found = report.finalists(**limits, rounds=rounds)[0] if rounds else report.best(**limits)
    out = options["out"] or Path("scheme.json")
    target = "" if options["target"] == "host" else f" --target {options['target']}"
    parted = "" if parts == 1 else f" --micro-batches {parts}"
    command = f"pockengine compile {model} --scheme {out}{target}{parted}"
    if options["out"]:
        report.scheme(found).save(options["out"])
    if options["html"]:
        title = f"{model}: what each layer is worth" if model != "MODEL" else "What to update"
        page = report.page(found, target=options["target"], command=command, title=title)
        options["html"].write_text(page, encoding="utf-8")
    if as_json:
        document = json.loads(report.sensitivity.to_json())
        click.echo(json.dumps({"best": _plain(report, found), "sensitivity": document}))
    else:
        click.echo(_told(report, found))
    for name in ("csv", "out", "html"):
        if options.get(name):
            click.echo(f"wrote {options[name]}", err=True)


def _plain(report: Report, found: Found) -> dict[str, Any]:
    return {
        "scheme": dict(report.scheme(found)),
        "gain": found.gain,
        "bound": found.bound,
        "memory_bytes": found.memory_bytes,
        "step_ms": found.step_ms,
        "energy_joules": found.energy_joules,
        "seconds": found.seconds,
        "checked": [
            {
                "scheme": dict(report.scheme(each.choice)),
                "predicted": each.predicted,
                "measured": each.measured,
                "low": each.low,
                "high": each.high,
            }
            for each in report.checked
        ],
    }


def _told(report: Report, found: Found) -> str:
    layers = report.sensitivity.layers
    points, bound, size = found.gain * 100, found.bound * 100, found.memory_bytes / 1e6
    lines = [
        f"Best within the limits: {points:+.1f} points predicted, of {bound:+.1f} possible",
        *(_measured(each) for each in report.checked if each.choice == found.choice),
        f"  {size:.1f} MB of working memory",
        f"  the head, and the biases of the last {found.choice.biases} of {len(layers)} layers",
        *(
            f"  {part:g} of {layers[index].weight} ({layers[index].role})"
            for index, part in found.choice.weights.items()
        ),
    ]
    return "\n".join(lines)


def _measured(checked: Checked) -> str:
    figures = checked.measured, checked.low, checked.high, checked.predicted
    mean, low, high, before = (100 * figure for figure in figures)
    return f"  {mean:+.1f} [{low:+.1f}, {high:+.1f}] measured, {before:+.1f} predicted"
