"""`pockengine compile`: a trainer for this machine or another one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pockengine.cli.options import (
    as_json,
    documented,
    micro_batches_option,
    of_model,
    recompute_option,
    target_option,
    threads_option,
    tuning_option,
    workload_of,
)

if TYPE_CHECKING:
    from pockengine.trainer import Trainer


@click.command("compile")
@of_model
@target_option
@threads_option
@tuning_option
@click.option("--partial", is_flag=True, help="Let a batch have fewer samples than --batch.")
@micro_batches_option
@recompute_option
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for a trainer of another machine: library, data, C sources, example, README.",
)
@as_json
@documented
def compile_command(  # noqa: PLR0913 - an option each
    *,
    output: Path | None,
    as_json: bool,
    scheme: str | None,
    target: str,
    threads: int | None,
    partial: bool,
    micro_batches: int,
    recompute: float | None,
    tuning: Path | None,
    **options: Any,
) -> None:
    r"""Compile MODEL into a trainer, and tell what it takes.

    \b
    pockengine compile mobilenet_v2 --scheme last_blocks:3 --batch 4
    pockengine compile mini_lm --batch 8 --micro-batches 4 --recompute 0.02
    pockengine compile my_model.py:small --target stm32f746 -o personalizer/

    {MODEL}

    For this machine the kernels are kept, so that `train` and `pockengine.compile` begin at once.
    For another one, `-o FOLDER` writes all that it needs.
    """
    from pockengine.compile import compile as build  # noqa: PLC0415
    from pockengine.report.manifest import manifest, manifest_table  # noqa: PLC0415
    from pockengine.report.workloads import find_scheme  # noqa: PLC0415

    if output is not None and target == "host":
        raise click.UsageError(
            "-o writes a trainer for another machine: name it, such as --target linux-arm64; "
            "for this one, `pockengine.compile` in Python gives the trainer."
        )
    workload = workload_of(**options)
    with build(
        workload.model,
        workload.batch,
        loss=workload.loss,
        optimizer=workload.optimizer,
        scheme=find_scheme(scheme),
        partial=partial,
        micro_batches=micro_batches,
        recompute=recompute,
        target=target,
        threads=threads,
        tuning=tuning,
    ) as trainer:
        found = manifest(trainer, model=options["model"])
        if output is not None:
            _export(trainer, output, found)
    click.echo(json.dumps(found, indent=2) if as_json else manifest_table(found))
    if output is not None:
        click.echo(f"wrote {output}; its README.md says how to build it", err=True)


def _export(trainer: Trainer, folder: Path, found: dict[str, Any]) -> None:
    trainer.export(folder)
    (folder / "manifest.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
