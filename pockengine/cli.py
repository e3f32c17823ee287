"""The command line. What a command needs is imported when it runs, so that ``--help`` is quick."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pockengine.errors import PockEngineError

if TYPE_CHECKING:
    from pockengine.report.workloads import Workload

_Command = TypeVar("_Command", bound=Callable[..., Any])
_USAGE = 2  # the exit code of a mistake, as click's own


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pockengine")
def commands() -> None:
    """Compile PyTorch models into small native trainers, and look at what came of it."""


def main() -> None:
    """Run a command; an error a user can meet is one line."""
    try:
        commands()
    except PockEngineError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(_USAGE)


def _of_model(command: _Command) -> _Command:
    """The argument and the options of the commands that look at a model."""
    options = (
        click.argument("model"),
        click.option(
            "--batch", default=8, show_default=True, help="Examples, of a built-in model."
        ),
        click.option("--size", default=128, show_default=True, help="Pixels of an image's side."),
        click.option("--length", default=128, show_default=True, help="Tokens of a text."),
        click.option(
            "--scheme",
            help="full, bias_only[:N], last_blocks:N or a JSON file; default: requires_grad.",
        ),
        click.option(
            "--optimizer",
            type=click.Choice(["sgd", "momentum", "adamw"]),
            help="Instead of the model's own, or SGD with momentum 0.9.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")


@commands.command()
@click.option(
    "--buffers",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="CSV with the columns id, lower, upper, size; a buffer lives on [lower, upper).",
)
@click.option("--capacity", type=click.IntRange(min=0), help="Bytes the arena may have.")
@_json
def plan(buffers: Path, capacity: int | None, *, as_json: bool) -> None:
    """Pack buffers into an arena: offsets, peak, lower bound, seconds."""
    from pockengine.plan.buffers import plan_buffers  # noqa: PLC0415
    from pockengine.report.tables import plan_table  # noqa: PLC0415

    found = plan_buffers(buffers, capacity)
    click.echo(json.dumps(found) if as_json else plan_table(found))


@commands.command()
@_json
def targets(*, as_json: bool) -> None:
    """List the machines that trainers are compiled for, with the source of each number."""
    from pockengine.report.tables import target_table, targets_as_dict  # noqa: PLC0415

    click.echo(json.dumps(targets_as_dict(), indent=2) if as_json else target_table())


@commands.command()
@_of_model
@click.option("--threads", default=1, show_default=True, type=click.IntRange(min=1))
@click.option("--runs", default=20, show_default=True, help="Steps; figures are medians.")
@click.option("--top", type=click.IntRange(min=0), help="Show only the slowest so many kernels.")
@click.option("--torch", "eager", is_flag=True, help="Time PyTorch's eager step too, in turns.")
@_json
def bench(
    *,
    threads: int,
    runs: int,
    top: int | None,
    eager: bool,
    as_json: bool,
    scheme: str | None,
    **model: Any,
) -> None:
    """Time every kernel of MODEL's step in place.

    MODEL is mobilenet_v2, mini_lm, mlp, or module:function or file.py:function, whose function
    gives (model, example_batch, loss) or (model, example_batch, loss, optimizer).

    The peaks that shares refer to are measured in the same run: multiply-adds in registers, and
    copies within the second and third cache and beyond.
    """
    from pockengine.report.bench import bench as measure  # noqa: PLC0415
    from pockengine.report.tables import bench_table  # noqa: PLC0415
    from pockengine.report.workloads import find_scheme  # noqa: PLC0415

    chosen = find_scheme(scheme)
    found = measure(_workload(**model), scheme=chosen, threads=threads, runs=runs, eager=eager)
    click.echo(json.dumps(found.as_dict()) if as_json else bench_table(found, top))


@commands.command()
@_of_model
@click.option(
    "--entry",
    type=click.Choice(["step", "predict", "evaluate"]),
    default="step",
    show_default=True,
    help="The entry point to look at.",
)
@click.option("--pass", "only", help="Show the graph before and after this pass only.")
@click.option("--kernels", is_flag=True, help="List the kernels in the order they run.")
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Draw the memory plan to this PNG file.",
)
def inspect(
    *,
    entry: str,
    only: str | None,
    kernels: bool,
    plot: Path | None,
    scheme: str | None,
    **model: Any,
) -> None:
    """Show what the passes make of MODEL, its kernels and its memory plan.

    Without --pass, --kernels and --plot: the captured graph, and the graph after each pass.
    """
    from pockengine.report.inspect_graph import inspect_graph  # noqa: PLC0415
    from pockengine.report.workloads import find_scheme  # noqa: PLC0415

    found = inspect_graph(_workload(**model), scheme=find_scheme(scheme))
    if only is not None:
        stage = found.stage(entry, only)
        click.echo(f"# before {only}\n{stage.before}\n# after {only}\n{stage.after}")
    elif not kernels and plot is None:
        click.echo(f"# captured\n{found.stages[entry][0].before}")
        for stage in found.stages[entry]:
            click.echo(f"# after {stage.name}\n{stage.after}")
    if kernels:
        for listed in found.kernels(entry):
            click.echo(listed)
    if plot is not None:
        from pockengine.report.memory_plan import draw_plan  # noqa: PLC0415 - matplotlib

        title = f"{model['model']}, {entry}:"
        plan_of_entry = found.prepared.plan.entries[entry]
        draw_plan(plan_of_entry, plot, owners=found.owners(entry), title=title)
        click.echo(f"wrote {plot}", err=True)


def _workload(*, model: str, batch: int, size: int, length: int, optimizer: str | None) -> Workload:
    from pockengine.report.workloads import OPTIMIZERS, Sizes, find_workload  # noqa: PLC0415

    sizes = Sizes(batch=batch, side=size, length=length)
    return find_workload(model, sizes, OPTIMIZERS[optimizer] if optimizer else None)
