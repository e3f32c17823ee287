"""`pockengine completion`: what a shell has to run to complete our commands."""

from __future__ import annotations

import click

from pockengine.cli.options import documented


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@documented
def completion_command(shell: str) -> None:
    r"""Print the script that completes commands, options, models and targets in SHELL.

    \b
    For this session:        eval "$(pockengine completion bash)"
    For all to come (bash):  pockengine completion bash >> ~/.bashrc
                    (zsh):   pockengine completion zsh >> ~/.zshrc
                    (fish):  pockengine completion fish > ~/.config/fish/completions/pockengine.fish
    """
    from click.shell_completion import get_completion_class  # noqa: PLC0415

    from pockengine.cli import commands  # noqa: PLC0415 - which imports this module

    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(commands, {}, "pockengine", "_POCKENGINE_COMPLETE")
    click.echo(click.shell_completion.ShellComplete.source(script))
