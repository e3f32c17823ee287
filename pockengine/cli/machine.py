"""`pockengine targets`, `doctor` and `cache`: machines, and the state of this one."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from pockengine.cli.options import as_json, documented

_PARTS = ("kernels", "runtime", "payloads", "zig", "other")


@click.command("targets")
@as_json
@documented
def targets_command(*, as_json: bool) -> None:
    r"""List the machines that trainers are compiled for, with the source of each number.

    \b
    pockengine targets
    pockengine targets --json
    """
    from pockengine.report.tables import target_table, targets_as_dict  # noqa: PLC0415

    click.echo(json.dumps(targets_as_dict(), indent=2) if as_json else target_table())


@click.command("doctor")
@click.option("--quick", is_flag=True, help="Without compiling a small trainer.")
@as_json
@click.pass_context
@documented
def doctor_command(ctx: click.Context, *, quick: bool, as_json: bool) -> None:
    r"""Tell what works on this machine and what is missing, with a remedy for each.

    \b
    pockengine doctor
    pockengine doctor --quick --json

    Exit code 1 if something that compiling and training need is missing; what only tests, emulators
    or the demo's data need is listed as optional.
    """
    from pockengine.report.doctor import doctor_table, examine, healthy  # noqa: PLC0415

    checks = examine(self_test=not quick)
    if as_json:
        told = [{**asdict(check), "status": check.status} for check in checks]
        click.echo(json.dumps({"healthy": healthy(checks), "checks": told}, indent=2))
    else:
        click.echo(doctor_table(checks))
    ctx.exit(0 if healthy(checks) else 1)


@click.command("cache")
@click.option("--clear", type=click.Choice([*_PARTS, "all"]), help="Delete this part.")
@as_json
@documented
def cache_command(*, clear: str | None, as_json: bool) -> None:
    r"""Show what the cache folder holds, or delete a part of it.

    \b
    pockengine cache
    pockengine cache --clear kernels

    Kernels are kept within POCKENGINE_CACHE_BYTES (such as 500M; default 2G): the ones used longest
    ago go first. XDG_CACHE_HOME moves the folder.
    """
    from pockengine.lower.link import cache_dir  # noqa: PLC0415
    from pockengine.report.storage import clear as delete  # noqa: PLC0415
    from pockengine.report.storage import stored  # noqa: PLC0415
    from pockengine.report.tables import storage_table  # noqa: PLC0415

    freed = delete(_PARTS if clear == "all" else (clear,)) if clear else None
    parts = stored()
    if as_json:
        told = {"folder": str(cache_dir()), "parts": [asdict(part) for part in parts]}
        click.echo(json.dumps(told if freed is None else {**told, "freed_bytes": freed}, indent=2))
        return
    if freed is not None:
        click.echo(f"deleted {freed / 2**20:.1f} MiB", err=True)
    click.echo(f"{cache_dir()}\n{storage_table(parts)}")
