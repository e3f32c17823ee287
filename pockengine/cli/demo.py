"""`pockengine demo`: two models on real data, or on built-in tasks where nothing can be fetched."""

from __future__ import annotations

import json
from typing import Any

import click

from pockengine.cli.options import as_json, documented, threads_option


@click.command("demo")
@click.option("--quick", is_flag=True, help="Few examples and one epoch.")
@click.option(
    "--task",
    type=click.Choice(["openclipart", "sentiment-movie", "shapes", "phrases"]),
    help="Only this one; default: openclipart and sentiment-movie.",
)
@threads_option
@as_json
@documented
def demo_command(*, quick: bool, task: str | None, threads: int | None, as_json: bool) -> None:
    r"""Fine-tune pretrained MobileNetV2 and MiniLM by sparse schemes, and show what it brought.

    \b
    pockengine demo
    pockengine demo --task shapes --quick

    Weights and data are fetched at first use and kept. Where they cannot be had, two small networks
    with random weights learn built-in tasks instead.
    """
    from pockengine.cli.demo_jobs import run_demo  # noqa: PLC0415

    def say(text: str) -> None:
        click.echo(text, err=True)

    found: list[dict[str, Any]] = run_demo(task, quick=quick, threads=threads, say=say)
    if as_json:
        click.echo(json.dumps(found))
        return
    from tabulate import tabulate  # noqa: PLC0415

    click.echo(tabulate(found, headers="keys", floatfmt=".3f"))
    click.echo("\nNext: pockengine train --help")
