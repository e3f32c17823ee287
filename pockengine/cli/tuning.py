"""`pockengine tune`: how products are best cut on this processor, found by measurement."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pockengine.cli.options import (
    as_json,
    check_writable,
    documented,
    of_model,
    threads_option,
    workload_of,
)

if TYPE_CHECKING:
    from pockengine.report.tune import Standing


@click.command("tune")
@of_model
@threads_option
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="The tuning file; if it is there, the search goes on from it.",
)
@click.option(
    "--minutes",
    type=click.FloatRange(min=0),
    default=5.0,
    show_default=True,
    help="After which nothing more is tried.",
)
@as_json
@documented
def tune_command(
    *,
    threads: int | None,
    out: Path,
    minutes: float,
    as_json: bool,
    scheme: str | None,
    **model: Any,
) -> None:
    r"""Find out how MODEL's matrix products and convolutions are best cut on this processor.

    \b
    pockengine tune mobilenet_v2 --scheme last_blocks:3 --out tuning.json --minutes 10
    pockengine train mobilenet_v2 --scheme last_blocks:3 --data photos/ --tuning tuning.json

    {MODEL}

    Sizes of register tiles and blocks, and what is copied ahead, are tried in place and in turns
    with the best so far; what is faster by more than noise is kept. The file is written as the
    search goes on, also before Ctrl-C; the same command goes on from it, and another model adds to
    it. Results stay the same but for the rounding of sums. Nothing else should run on the machine.
    One thread unless --threads says more.
    """
    from pockengine.report.tables import tuned_table  # noqa: PLC0415
    from pockengine.report.tune import tune  # noqa: PLC0415
    from pockengine.report.workloads import find_scheme  # noqa: PLC0415

    check_writable(out, "--out")
    chosen = find_scheme(scheme)
    bar = _Bar(minutes * 60)
    try:
        found = tune(
            workload_of(**model),
            out,
            scheme=chosen,
            threads=threads or 1,
            seconds=minutes * 60,
            watch=bar.show,
        )
    except KeyboardInterrupt:
        if out.exists():
            click.echo(f"{out} has what was found; the same command goes on from it", err=True)
        raise
    finally:
        bar.close()
    click.echo(json.dumps(found.as_dict()) if as_json else tuned_table(found))
    click.echo(f"wrote {out}", err=True)


class _Bar:
    """One line with the time, what was tried and what was kept, where a person sees it.

    Args:
        seconds: how long the search may take.
    """

    def __init__(self, seconds: float) -> None:
        from pockengine.watched import is_watched  # noqa: PLC0415

        self._bar: Any = None
        if is_watched():
            from tqdm import tqdm  # noqa: PLC0415 - only where it is seen

            form = "{desc}{percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} s{postfix}"
            quiet = type("Bar", (tqdm,), {"monitor_interval": 0})  # builds fork: no thread
            self._bar = quiet(total=seconds, bar_format=form)

    def show(self, standing: Standing) -> None:
        """A round was done."""
        if self._bar is None:
            return
        told = f"{standing.tried} tried, {len(standing.gains)} faster"
        self._bar.set_postfix_str(told, refresh=False)
        self._bar.update(min(standing.seconds, self._bar.total) - self._bar.n)

    def close(self) -> None:
        """Leave the line as it is."""
        if self._bar is not None:
            self._bar.close()
