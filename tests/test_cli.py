"""The command line: what each command prints, and how it fails."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click import Context
from click.shell_completion import ShellComplete
from click.testing import CliRunner, Result

from pockengine.cli import commands, main, options
from pockengine.errors import InputError
from pockengine.frontend.losses import LOSSES, MODEL
from pockengine.report import doctor
from pockengine.report.workloads import BUILT_IN, OPTIMIZERS
from pockengine.scheme import Scheme
from pockengine.tasks import task_names

ROOT = Path(__file__).parents[1]

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
        (("compile", "mlp", "--tuning", "missing.json"), "tuning missing.json: it cannot be read"),
        (("tune", "mlp", "--out", __file__), "it is no JSON; a tuning file of version 1"),
        (("compile", "mlp", "--target", "abacus"), "there is no target 'abacus'"),
        (("train", "mlp", "--data", "nowhere"), "--data nowhere: nothing of that name"),
        (("profile", "mlp", "--data", "nowhere"), "--data nowhere: nothing of that name"),
        (("search", __file__), "something else (JSONDecodeError); a report of this version"),
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("compile",), "Missing argument 'MODEL'"),
        (("plan",), "Give either MODEL or --buffers"),
        (("compile", "mlp", "-o", "folder"), "-o writes a trainer for another machine"),
        (("train", "mlp", "--data", "x", "--resume"), "need --checkpoint FILE"),
        (("train", "mlp", "--data", "x", "--resume", "--checkpoint", "no"), "is no checkpoint no"),
        (("train", "mlp", "--data", "x", "--out", "no/where"), "there is no folder no"),
        (("train", "mlp", "--data", "x", "--out", "/proc/w"), "/proc cannot be written"),
        (("inspect", "mlp", "--html", "no/where"), "there is no folder no"),
        (("plan", "mlp", "--batch", "0"), "Invalid value for '--batch'"),
        (("train", "mlp", "--data", "x", "--lr", "-1"), "Invalid value for '--lr': -1.0"),
        (("train", "mlp", "--data", "x", "--lr", "nan"), "Invalid value for '--lr': nan"),
        (("train", "mlp", "--data", "x", "--epochs", "0"), "Invalid value for '--epochs'"),
        (("frobnicate",), "No such command 'frobnicate'"),
        (("trian", "mlp"), "No such command 'trian'. Did you mean 'train'?"),
        (("fit", "mlp"), "No such command 'fit'. Did you mean 'train'?"),
    ],
)
def test_usage(
    arguments: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit code 2, with a word on how it is used."""
    monkeypatch.setattr(sys, "argv", ["pockengine", *arguments])
    with pytest.raises(SystemExit) as exit_:
        main()
    out, err = capsys.readouterr()
    assert (exit_.value.code, out) == (2, "")
    assert message in " ".join(err.split())
    assert "Try 'pockengine" in err


def test_every_command_has_examples() -> None:
    """Help names the command as it is typed, in lines of their own."""
    listed = run("--help").stdout
    names = commands.list_commands(Context(commands))
    assert len(names) == 15
    for name in names:
        told = run(name, "--help").stdout
        assert f"\n  {name} " in listed
        assert f"pockengine {name}" in told
        assert "{MODEL}" not in told
        assert "\\b" not in told


def test_names_in_options_are_those_that_there_are() -> None:
    """What completes without an import is what is found with it."""
    assert set(options.MODELS) == BUILT_IN.keys()
    assert set(options.OPTIMIZERS) == OPTIMIZERS.keys()
    assert set(options.LOSSES) == {*LOSSES, MODEL}
    assert set(options.TASKS) == set(task_names())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str) -> None:
    """Each shell gets a script that asks us, and we answer with names."""
    script = run("completion", shell).stdout
    assert f"_POCKENGINE_COMPLETE={shell}_complete" in script
    known = ShellComplete(commands, {}, "pockengine", "_POCKENGINE_COMPLETE")
    assert [item.value for item in known.get_completions([], "do")] == ["doctor"]
    models = known.get_completions(["inspect"], "m")
    assert {"mlp", "mini_lm", "mobilenet_v2"} <= {item.value for item in models}
    targets = known.get_completions(["plan", "mlp", "--target"], "stm")
    assert [item.value for item in targets] == ["stm32f746"]


def test_interrupted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 130, and what was interrupted."""

    def examine(*, self_test: bool) -> None:
        raise KeyboardInterrupt(f"self test {self_test}")

    monkeypatch.setattr("pockengine.report.doctor.examine", examine)
    monkeypatch.setattr(sys, "argv", ["pockengine", "doctor"])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 130
    assert "Interrupted. self test True" in capsys.readouterr().err


def test_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    """All is well here; what is missing and needed makes the exit code 1, the rest does not."""
    found = json.loads(run("doctor", "--json").stdout)
    named = {check["name"]: check for check in found["checks"]}
    assert found["healthy"], [check for check in found["checks"] if not check["ok"]]
    assert {"Python", "torch", "apache-tvm", "processor", "cache folder"} <= named.keys()
    assert named["self test"]["status"] == "ok"
    monkeypatch.setattr(doctor, "PINNED", {"torch": "1.0"})
    monkeypatch.setattr(doctor.shutil, "which", lambda _: None)
    result = run("doctor", "--quick")
    assert result.exit_code == 1
    assert "missing - torch: pip install 'torch==1.0.*'" in result.stdout
    assert "optional - sanitizers: Install gcc" in result.stdout
    assert "Something needed is missing." in result.stdout


def test_doctor_survives_what_is_broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An unwritable cache is one check that failed; the others are still made."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    checks = {check.name: check for check in doctor.examine(self_test=False)}
    assert not checks["cache folder"].ok
    assert "Set XDG_CACHE_HOME" in checks["cache folder"].remedy
    assert checks["Python"].ok


def test_doctor_knows_the_dependencies() -> None:
    """What it asks for is what pyproject.toml does."""
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {re.split("[=>]", each)[0] for each in wanted["dependencies"]}
    assert names - {"tqdm"} == {*doctor.PINNED, *doctor.PACKAGES} - {"tqdm"}
    for name, version in doctor.PINNED.items():
        assert f"{name}=={version}.*" in wanted["dependencies"]


def test_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Sizes by part; what is cleared is gone, the rest stays."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("POCKENGINE_CACHE_BYTES", "1M")
    for name in ("kernels/00/a.kernel", "payloads/b", "odd/c"):
        path = tmp_path / "pockengine" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes(5000))
    parts = {part["name"]: part for part in json.loads(run("cache", "--json").stdout)["parts"]}
    files = {name: part["files"] for name, part in parts.items()}
    assert files == {"kernels": 1, "runtime": 0, "payloads": 1, "zig": 0, "other": 1}
    assert parts["kernels"]["nbytes"] >= 5000
    assert parts["kernels"]["limit_bytes"] == 1 << 20
    left = json.loads(run("cache", "--clear", "kernels", "--json").stdout)
    assert left["freed_bytes"] == parts["kernels"]["nbytes"]
    assert not (tmp_path / "pockengine" / "kernels").exists()
    assert "deleted" in run("cache", "--clear", "all").stderr
    assert list((tmp_path / "pockengine").iterdir()) == []


def test_compile_tells_what_it_takes(tmp_path: Path) -> None:
    """A manifest of sizes and entry points; for another machine, a folder that has it too."""
    found = json.loads(run("compile", "mlp", "--scheme", "last_blocks:1", "--json").stdout)
    assert found["scheme"] == {"4.weight": 1.0, "4.bias": 1.0}
    assert found["entries"].keys() == {"step", "predict", "evaluate"}
    assert found["region_bytes"]["param"] >= 4 * (128 * 10 + 10)
    assert min(found["kernel_bytes"], found["descriptor_bytes"]) > 0
    folder = tmp_path / "out"
    told = run("compile", "mlp", "--target", "linux-arm64", "--batch", "2", "-o", str(folder))
    written = json.loads((folder / "manifest.json").read_text())
    assert (written["target"], written["model"]) == ("linux-arm64", "mlp")
    assert (folder / "libkernels.a").exists()
    assert "SGD(momentum=0.9) updates 6 tensors" in told.stdout


def test_plan_of_a_model() -> None:
    """Regions, entry points and the largest values; a microcontroller is planned for as well."""
    found = json.loads(run("plan", "mlp", "--batch", "4", "--top", "2", "--json").stdout)
    step = found["entries"]["step"]
    arenas = [entry["arena_bytes"] for entry in found["entries"].values()]
    assert found["region_bytes"]["arena"] == max(arenas)
    assert len(step["largest"]) == 2
    assert step["largest"][0]["nbytes"] >= step["largest"][1]["nbytes"] > 0
    assert step["arena_bytes"] >= step["lower_bound_bytes"]
    table = run("plan", "mlp", "--target", "stm32f746", "--scheme", "bias_only:1").stdout
    assert table.startswith("stm32f746: ")
    assert "Largest values at the worst step" in table


def test_targets() -> None:
    """A line for each; as JSON every number with its source."""
    assert "stm32f746" in run("targets").stdout
    found = json.loads(run("targets", "--json").stdout)
    assert found["stm32f746"]["sram_bytes"] == 320 << 10
    assert "sram_bytes" in found["stm32f746"]["sources"]


@pytest.mark.slow
def test_bench(tmp_path: Path) -> None:
    """JSON with every kernel, and a picture; the table has only as many as are asked for."""
    picture = tmp_path / "roof.svg"
    drawn = run("bench", "mlp", "--runs", "1", "--json", "--picture", str(picture))
    found = json.loads(drawn.stdout)
    assert "contract matmul" in picture.read_text()
    assert {"kernels", "kinds", "total", "peaks", "prediction", "step_ms"} <= found.keys()
    assert {"limit", "lost_ms", "predicted_ms"} <= found["kernels"][0].keys()
    assert found["total"]["calls"] == len(found["kernels"])
    table = run("bench", "mlp", "--runs", "1", "--top", "1", "--optimizer", "sgd").stdout
    assert "peaks of one core" in table
    assert "Spearman" in table
    assert table.index("together") < 500
    missing = run("bench", "mlp", "--picture", str(tmp_path / "no" / "roof.svg"))
    assert missing.exit_code == 2
    assert "there is no folder" in missing.output


@pytest.mark.slow
def test_tune(tmp_path: Path) -> None:
    """A file that the other commands take; the search goes on from it."""
    out = tmp_path / "tuning.json"
    found = json.loads(run("tune", "mlp", "--minutes", "0", "--out", str(out), "--json").stdout)
    assert {"contractions", "tried", "gains", "before_ms", "after_ms"} <= found.keys()
    assert out.is_file()
    again = run("tune", "mlp", "--minutes", "0", "--out", str(out))
    assert "0 choices tried" in again.stdout
    compiled = run("compile", "mlp", "--tuning", str(out))
    assert compiled.exit_code == 0
    missing = run("tune", "mlp", "--out", str(tmp_path / "no" / "tuning.json"))
    assert (missing.exit_code, "there is no folder" in missing.output) == (2, True)


def test_an_interrupted_search_tells_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 130; the file is there if a round was done."""
    out = tmp_path / "tuning.json"

    def stopped(*_: object, **__: object) -> None:
        out.write_text("{}")
        raise KeyboardInterrupt

    monkeypatch.setattr("pockengine.report.tune.tune", stopped)
    monkeypatch.setattr(sys, "argv", ["pockengine", "tune", "mlp", "--out", str(out)])
    with pytest.raises(SystemExit) as exit_:
        main()
    assert exit_.value.code == 130
    assert f"{out} has what was found; the same command goes on" in capsys.readouterr().err


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
    refused = run("inspect", "mlp", "--plot", str(tmp_path / "nowhere" / "plan.png"))
    assert refused.exit_code == 2
    assert "--plot" in refused.output


def test_profile_and_search(tmp_path: Path) -> None:
    """A profile writes its report, a scheme and a page; a search reads the report."""
    folder, scheme, page = tmp_path / "trials", tmp_path / "scheme.json", tmp_path / "page.html"
    arguments = ("profile", "small_cnn", "--data", "shapes", "--limit", "12", "--size", "16")
    arguments += ("--fast", "--seeds", "1", "--jobs", "1", "--folder", str(folder))
    told = run(*arguments, "--memory", "1MB", "--out", str(scheme), "--html", str(page)).stdout
    assert "head alone:" in told
    assert "Best within the limits:" in told
    assert "measured, " in told
    assert "Predicted against measured" in page.read_text()
    both = json.loads(run(*arguments, "--memory", "1MB", "--check", "2", "--json").stdout)["best"]
    assert both["scheme"] in [each["scheme"] for each in both["checked"]]
    assert len(both["checked"]) > 1
    assert "measured, " not in run(*arguments, "--memory", "1MB", "--check", "0").stdout
    report = str(folder / "report.json")
    found = json.loads(run("search", report, "--memory", "1MB", "--json").stdout)["best"]
    assert found["scheme"] == dict(Scheme.load(scheme))
    assert found["memory_bytes"] <= 10**6
    assert f"--scheme {scheme}" in page.read_text()
    (folder / "report.json").unlink()
    with pytest.raises(InputError, match="no choice within 100 bytes"):
        run(*arguments, "--memory", "100")
    assert (folder / "report.json").exists()
    with pytest.raises(InputError, match="no choice within 1,024 bytes"):
        run("search", report, "--memory", "1KiB")


@pytest.mark.parametrize("size", ["5 apples", "MB", "-", "1e999"])
def test_sizes(size: str) -> None:
    """What is no size is said to be none."""
    found = run("search", __file__, "--memory", size)
    assert found.exit_code == 2
    assert f"{size!r} is no size such as 256KiB or 64MB" in found.stderr


def test_help_imports_neither_torch_nor_tvm() -> None:
    """So that it is quick."""
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom pockengine.cli import commands\n"
        "assert CliRunner().invoke(commands, ['bench', '--help']).exit_code == 0\n"
        "assert not {'torch', 'tvm', 'numpy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
