"""`pockengine inspect`, `plan` and `bench`: what was made of a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pockengine.cli.options import (
    as_json,
    check_writable,
    complete_model,
    documented,
    of_model,
    sized,
    target_option,
    threads_option,
    tuning_option,
    workload_of,
)

if TYPE_CHECKING:
    from pockengine.report.inspect_graph import Inspection

_ENTRIES = click.Choice(["step", "predict", "evaluate"])


@click.command("bench")
@of_model
@threads_option
@tuning_option
@click.option(
    "--runs",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="Steps; figures are medians.",
)
@click.option("--top", type=click.IntRange(min=0), help="Show only the first so many kernels.")
@click.option(
    "--sort",
    type=click.Choice(["lost", "time", "step"]),
    default="lost",
    show_default=True,
    help="Kernels by the time they lose against the peaks, by their time, or as they run.",
)
@click.option(
    "--picture",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw the kernels under the machine's roofs to this PNG, SVG or PDF file.",
)
@click.option("--torch", "eager", is_flag=True, help="Time PyTorch's eager step too, in turns.")
@as_json
@documented
def bench_command(
    *,
    top: int | None,
    sort: str,
    picture: Path | None,
    as_json: bool,
    scheme: str | None,
    **options: Any,
) -> None:
    r"""Time every kernel of MODEL's step in place.

    \b
    pockengine bench mlp
    pockengine bench mobilenet_v2 --scheme last_blocks:3 --torch --top 10 --picture roof.svg

    {MODEL}

    The peaks that shares refer to are measured in the same run, by as many threads: multiply-adds
    in registers, and copies within the second and third cache and beyond. A kernel is bound by
    arithmetic, or by the nearest memory that holds its operands; what it takes longer is lost.
    Predicted is what the cost model tells from the peaks. One thread unless --threads says more.
    """
    if picture is not None:
        check_writable(picture, "--picture")
    from pockengine.report.bench import bench as measure  # noqa: PLC0415
    from pockengine.report.tables import bench_table  # noqa: PLC0415
    from pockengine.report.workloads import find_scheme  # noqa: PLC0415

    asked = {name: options.pop(name) for name in ("runs", "eager", "tuning")}
    threads = options.pop("threads") or 1
    chosen = find_scheme(scheme)
    found = measure(workload_of(**options), scheme=chosen, threads=threads, **asked)
    click.echo(json.dumps(found.as_dict()) if as_json else bench_table(found, top, sort))
    if picture is not None:
        from pockengine.report.roofline import draw_roofline  # noqa: PLC0415 - matplotlib

        draw_roofline(found, picture, title=f"{options['model']}:")
        click.echo(f"wrote {picture}", err=True)


@click.command("plan")
@click.argument("model", required=False, shell_complete=complete_model)
@sized
@target_option
@click.option(
    "--buffers",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Instead of a model: CSV with the columns id, lower, upper, size; a buffer lives on "
    "[lower, upper).",
)
@click.option("--capacity", type=click.IntRange(min=0), help="Bytes the arena of --buffers has.")
@click.option("--top", default=10, show_default=True, type=click.IntRange(min=0))
@as_json
@documented
def plan_command(
    *,
    buffers: Path | None,
    capacity: int | None,
    as_json: bool,
    model: str | None,
    **options: Any,
) -> None:
    r"""The memory plan of MODEL: bytes by region and entry point, and the largest values.

    \b
    pockengine plan mobilenet_v2 --scheme last_blocks:3 --batch 4
    pockengine plan my_model.py --target stm32f746
    pockengine plan --buffers buffers.csv --capacity 65536

    {MODEL}

    With --buffers: pack buffers into an arena; offsets, peak, lower bound, seconds.
    """
    if (model is None) == (buffers is None):
        raise click.UsageError("Give either MODEL or --buffers.")
    if buffers is not None:
        from pockengine.plan.buffers import plan_buffers  # noqa: PLC0415
        from pockengine.report.tables import plan_table  # noqa: PLC0415

        packed = plan_buffers(buffers, capacity)
        click.echo(json.dumps(packed) if as_json else plan_table(packed))
        return
    from pockengine.report.plan_summary import plan_summary, summary_table  # noqa: PLC0415

    top = options.pop("top")
    summary = plan_summary(_inspection(model=model, **options), top)
    click.echo(json.dumps(summary) if as_json else summary_table(summary))


@click.command("inspect")
@of_model
@target_option
@click.option(
    "--entry", type=_ENTRIES, default="step", show_default=True, help="The entry point to look at."
)
@click.option("--pass", "only", help="Show the graph before and after this pass only.")
@click.option("--kernels", is_flag=True, help="List the kernels in the order they run.")
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw the memory plan to this PNG file.",
)
@click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a page with layers, kernels and memory map to this file.",
)
@documented
def inspect_command(
    *,
    entry: str,
    only: str | None,
    kernels: bool,
    plot: Path | None,
    html: Path | None,
    **options: Any,
) -> None:
    r"""Show what the passes make of MODEL, its kernels and its memory plan.

    \b
    pockengine inspect mobilenet_v2 --scheme last_blocks:3 --html mobilenet.html
    pockengine inspect mlp --scheme last_blocks:1 --pass prune_backward

    {MODEL}

    Without --pass, --kernels, --plot and --html: the captured graph, and the graph after each pass.
    """
    for option, path in (("--plot", plot), ("--html", html)):
        if path is not None:
            check_writable(path, option)
    found = _inspection(**options)
    if only is not None:
        stage = found.stage(entry, only)
        click.echo(f"# before {only}\n{stage.before}\n# after {only}\n{stage.after}")
    elif not kernels and plot is None and html is None:
        click.echo(f"# captured\n{found.stages[entry][0].before}")
        for stage in found.stages[entry]:
            click.echo(f"# after {stage.name}\n{stage.after}")
    if kernels:
        for listed in found.kernels(entry):
            click.echo(listed)
    title = f"{options['model']}, {entry}:"
    if plot is not None:
        from pockengine.report.memory_plan import draw_plan  # noqa: PLC0415 - matplotlib

        plan_of_entry = found.prepared.plan.entries[entry]
        draw_plan(plan_of_entry, plot, owners=found.owners(entry), title=title)
        click.echo(f"wrote {plot}", err=True)
    if html is not None:
        from pockengine.report.page import write_page  # noqa: PLC0415

        write_page(found, html, model=options["model"], scheme=options["scheme"])
        click.echo(f"wrote {html}", err=True)


def _inspection(*, scheme: str | None, target: str, **model: Any) -> Inspection:
    from pockengine.report.inspect_graph import inspect_graph  # noqa: PLC0415
    from pockengine.report.workloads import find_scheme  # noqa: PLC0415
    from pockengine.targets import get_target  # noqa: PLC0415

    chosen, machine = find_scheme(scheme), get_target(target)
    return inspect_graph(workload_of(**model), scheme=chosen, target=machine)
