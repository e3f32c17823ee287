"""The command line: `pockengine COMMAND`, one module per group of commands.

Exit codes: 0 done; 1 a check failed (`doctor` found something missing); 2 a mistake of the user's,
told in one line; 130 interrupted by Ctrl-C. What a command needs is imported when it runs, so that
``--help`` is quick: the modules here import click alone at the top.
"""

from __future__ import annotations

import os
import sys
from difflib import get_close_matches
from importlib import import_module

import click

from pockengine.cli.options import documented
from pockengine.errors import PockEngineError

USAGE = 2
"""The exit code of a mistake, as click's own."""

INTERRUPTED = 130
"""The exit code after Ctrl-C, as a shell's."""

_HOME = {
    "compile": "compiling",
    "train": "training",
    "evaluate": "using",
    "predict": "using",
    "inspect": "looking",
    "plan": "looking",
    "profile": "profiling",
    "search": "profiling",
    "bench": "looking",
    "tune": "tuning",
    "targets": "machine",
    "doctor": "machine",
    "cache": "machine",
    "demo": "demo",
    "completion": "completion",
}

_MEANT = {"fit": "train", "finetune": "train", "fine-tune": "train", "eval": "evaluate"}
"""What other tools call a command."""


class LazyGroup(click.Group):
    """Finds each command in its module when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order a newcomer meets them."""
        del ctx
        return list(_HOME)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a name."""
        del ctx
        if cmd_name not in _HOME:
            return None
        module = import_module(f"pockengine.cli.{_HOME[cmd_name]}")
        found: click.Command = getattr(module, f"{cmd_name}_command")
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command of the first argument; what is no command is answered with one like it."""
        name = args[0]
        if name not in _HOME and not name.startswith("-"):
            like = get_close_matches(_MEANT.get(name, name), _HOME, n=1)
            hint = f" Did you mean '{like[0]}'?" if like else ""
            ctx.fail(f"No such command '{name}'.{hint}")
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="pockengine")
@documented
def commands() -> None:
    r"""Compile PyTorch models into small native trainers, train them, and look at what came of it.

    \b
    Start with:
      pockengine doctor
      pockengine demo
      pockengine train mobilenet_v2 --data photos/ --out weights.safetensors
      pockengine predict mobilenet_v2 --weights weights.safetensors new.jpg

    Exit codes: 0 done, 1 a check failed, 2 a mistake, 130 interrupted.
    """


def main() -> None:
    """Run a command and exit; an error a user can meet is one line."""
    try:
        code = commands.main(prog_name="pockengine", standalone_mode=False)
    except PockEngineError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(USAGE)
    except click.ClickException as error:
        error.show()
        sys.exit(USAGE)
    except (click.Abort, KeyboardInterrupt) as error:
        click.echo(f"Interrupted. {error.__cause__ or ''}".rstrip(), err=True)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    sys.exit(code if isinstance(code, int) else 0)
