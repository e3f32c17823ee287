"""The command line: what each command prints, and how it fails."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from pockengine.cli import commands, main

BUFFERS = "id,lower,upper,size\na,0,2,10\nb,1,3,20\nc,2,4,10\n"
PNG = b"\x89PNG"


def run(*arguments: str) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(commands, arguments, catch_exceptions=False)


def test_plan_packs_a_file(tmp_path: Path) -> None:
    """JSON has the four keys; the table says the same."""
    path = tmp_path / "buffers.csv"
    path.write_text(BUFFERS)
    found = json.loads(run("plan", "--buffers", str(path), "--json").stdout)
    assert found.keys() == {"offsets", "peak", "lower_bound", "seconds"}
    assert found["peak"] == found["lower_bound"] == 30
    assert "peak 30 bytes, lower bound 30 bytes" in run("plan", "--buffers", str(path)).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("plan", "--buffers", "missing.csv"), "missing.csv"),
        (("bench", "resnet"), "Error: model 'resnet': no such model"),
        (("inspect", "mlp", "--scheme", "last_blocks:9"), "Error: Scheme.last_blocks(9): a model"),
        (("inspect", "mlp", "--pass", "nothing"), "there is no pass 'nothing'; one of prune"),
    ],
)
def test_errors_are_one_line(
    arguments: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit code 2, one line on stderr, nothing on stdout."""
    monkeypatch.setattr(sys, "argv", ["pockengine", *arguments])
    with pytest.raises(SystemExit) as exit_:
        main()
    out, err = capsys.readouterr()
    assert exit_.value.code == 2
    assert message in err
    assert (err.count("\n"), out) == (1, "")


def test_targets() -> None:
    """A line for each; as JSON every number with its source."""
    assert "stm32f746" in run("targets").stdout
    found = json.loads(run("targets", "--json").stdout)
    assert found["stm32f746"]["sram_bytes"] == 320 << 10
    assert "sram_bytes" in found["stm32f746"]["sources"]


@pytest.mark.slow
def test_bench() -> None:
    """JSON with every kernel; the table has only as many as are asked for."""
    found = json.loads(run("bench", "mlp", "--runs", "1", "--json").stdout)
    assert {"kernels", "kinds", "total", "peaks", "step_ms"} <= found.keys()
    assert found["total"]["calls"] == len(found["kernels"])
    table = run("bench", "mlp", "--runs", "1", "--top", "1", "--optimizer", "sgd").stdout
    assert "peaks of one core" in table
    assert table.index("together") < 400


def test_inspect_shows_passes_and_kernels() -> None:
    """All graphs, or one pass's two, or the kernels in the order they run."""
    everything = run("inspect", "mlp", "--scheme", "last_blocks:1").stdout
    assert everything.startswith("# captured\n%")
    assert everything.index("# after prune_backward") < everything.index("# after fuse")
    one = run("inspect", "mlp", "--scheme", "last_blocks:1", "--pass", "prune_backward").stdout
    before, after = one.split("# after prune_backward\n")
    assert "= param('0.weight')" in before
    assert "= const('0.weight')" in after
    kernels = run("inspect", "mlp", "--entry", "predict", "--kernels").stdout
    assert kernels.startswith("# kernel 0: ")
    assert "matmul" in kernels


def test_inspect_draws_the_plan(tmp_path: Path) -> None:
    """A PNG where it was asked for; a folder that is not there is an error."""
    path = tmp_path / "plan.png"
    assert run("inspect", "mlp", "--plot", str(path)).exit_code == 0
    assert path.read_bytes()[:4] == PNG
    with pytest.raises(Exception, match="--plot"):
        run("inspect", "mlp", "--plot", str(tmp_path / "nowhere" / "plan.png"))


def test_help_imports_neither_torch_nor_tvm() -> None:
    """So that it is quick."""
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom pockengine.cli import commands\n"
        "assert CliRunner().invoke(commands, ['bench', '--help']).exit_code == 0\n"
        "assert not {'torch', 'tvm', 'numpy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
