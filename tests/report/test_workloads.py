"""Models and schemes by the names that the command line takes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from pockengine.errors import InputError
from pockengine.optimizer import SGD, AdamW
from pockengine.report.workloads import Sizes, find_model, find_scheme, find_workload
from pockengine.scheme import Scheme

SOURCE = """\
import torch
from pockengine.optimizer import AdamW

def three():
    return torch.nn.Linear(3, 2), (torch.ones(4, 3), torch.ones(4, 2)), "mse"

def four():
    return *three(), AdamW()

def two():
    return torch.nn.Linear(3, 2), None

number = 3
"""

DATACLASS = "from dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\n"


def test_a_function_of_a_file(tmp_path: Path) -> None:
    """Three things or four; what the user asks for goes ahead of the function's optimizer."""
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    three, four = find_workload(f"{path}:three"), find_workload(f"{path}:four")
    assert isinstance(three.model, nn.Linear)
    assert (three.loss, three.optimizer, four.optimizer) == ("mse", SGD(momentum=0.9), AdamW())
    assert find_workload(f"{path}:four", optimizer=SGD()).optimizer == SGD()


def test_a_function_of_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules are found from the current folder."""
    (tmp_path / "users_module.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert find_workload("users_module:three").loss == "mse"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet", "model 'resnet': no such model; mobilenet_v2, mini_lm, mlp, small_cnn, small"),
        ("nowhere:f", "No module named 'nowhere'"),
        ("nowhere.py:f", "there is no file nowhere.py"),
        ("{path}:two", "its function gives a tuple of 2; a model, (model, example_batch, loss)"),
        ("{path}:five", "has no function five"),
        ("{path}:number", "has no function number"),
    ],
)
def test_what_is_no_model(tmp_path: Path, name: str, message: str) -> None:
    """Each mistake has its message."""
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    with pytest.raises(InputError) as caught:
        find_workload(name.format(path=path))
    assert message in str(caught.value)


def test_built_in_models() -> None:
    """They come with a batch of the asked size that they accept."""
    for name in ("mobilenet_v2", "mlp"):
        workload = find_workload(name, Sizes(batch=2, side=32))
        assert workload.model(workload.batch[0]).shape == (2, 10)
    assert torch.equal(find_workload("mlp").batch[0], find_workload("mlp").batch[0])


def test_schemes(tmp_path: Path) -> None:
    """Rules by name, tables from files."""
    path = tmp_path / "scheme.json"
    Scheme({"0.bias": 1.0}).save(path)
    assert find_scheme(None) is None
    assert find_scheme("full") == Scheme.full()
    assert find_scheme("bias_only") == Scheme.bias_only()
    assert find_scheme("bias_only:3") == Scheme.bias_only(3)
    assert find_scheme("last_blocks:2") == Scheme.last_blocks(2)
    assert find_scheme(str(path)) == Scheme({"0.bias": 1.0})
    for wrong in ("last_blocks", "last_blocks:x", "nothing.json"):
        with pytest.raises(InputError, match="--scheme"):
            find_scheme(wrong)


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("def f():\n    return nn.Linear(1, 1)\n", "Linear"),
        ("def other():\n    ...\ndef model():\n    return nn.ReLU()\n", "ReLU"),
        ("def make_model(classes):\n    return nn.Linear(2, classes)\n", "Linear"),
        ("def model(classes=3, depth=2):\n    return nn.Linear(2, classes)\n", "Linear"),
        (DATACLASS + "def model():\n    return nn.ReLU()\n", "ReLU"),
    ],
)
def test_the_obvious_function_of_a_file(tmp_path: Path, source: str, kind: str) -> None:
    """The only one, or one with a usual name; data tell it the number of classes."""
    path = tmp_path / "mine.py"
    path.write_text("from torch import nn\n" + source)
    found = find_model(str(path), {"classes": 7, "vocabulary": 9})
    assert type(found.model).__name__ == kind
    assert getattr(found.model, "out_features", 1) in (1, 7)
    assert (found.batch, found.loss, found.optimizer) == (None, None, None)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def f(): ...\ndef g(): ...\n", "its functions are f, g; one that is called workload or"),
        ("x = 1\n", "it has no function"),
        ("def f(a, b=1): ...\n", "its function needs a; a function without arguments, or with"),
        (
            "def f():\n    return 1 / 0\n",
            r"raises ZeroDivisionError: division by zero \(mine.py, li",
        ),
        ("import nothing_here\n", "its code raises ModuleNotFoundError: No module named 'nothing_"),
        ("def f(:\n", "its code raises SyntaxError"),
        ("def f():\n    return 3\n", "its function gives a int; a model"),
        ("def model():\n    from torch import nn\n    return nn.ReLU()\n", "without an example ba"),
    ],
)
def test_mistakes_in_a_file(tmp_path: Path, source: str, message: str) -> None:
    """Each is one line that names the file, and the line where it has one."""
    path = tmp_path / "mine.py"
    path.write_text(source)
    with pytest.raises(InputError, match=message) as caught:
        find_workload(str(path))
    assert str(caught.value).count("\n") == 0
    assert "mine.py" in str(caught.value)


def test_an_exported_program(tmp_path: Path) -> None:
    """It brings its inputs; targets and loss are made up after its output."""
    path = str(tmp_path / "net.pt2")
    torch.export.save(torch.export.export(nn.Linear(3, 2), (torch.ones(4, 3),)), path)
    found = find_workload(path)
    assert (found.batch[1].tolist(), found.loss) == ([0, 1, 0, 1], "cross_entropy")
    torch.export.save(torch.export.export(nn.Linear(3, 1), (torch.ones(4, 3),)), path)
    found = find_workload(path, optimizer=AdamW())
    assert (found.batch[1].shape, found.loss, found.optimizer) == ((4, 1), "mse", AdamW())
    assert find_workload(path, loss="l1").loss == "l1"


def test_lora_scheme() -> None:
    """Rank and layers."""
    assert find_scheme("lora:4:query,value") == Scheme.lora(4, ["query", "value"], head=True)
    with pytest.raises(InputError, match="lora:RANK:LAYER"):
        find_scheme("lora:4")
