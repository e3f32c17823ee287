"""Data sets, folders and files of users, and what the command line is given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pockengine.errors import InputError, PayloadError, PlanError
from pockengine.plan.buffers import plan_buffers
from pockengine.report.workloads import find_scheme, find_workload
from pockengine.tasks import (
    image_folder,
    load_task,
    mini_lm,
    mobilenet_v2,
    prepare_images,
    take,
    text_csv,
)
from tests.errors.mistake import Mistakes

mistakes = Mistakes()


def _pictures(folder: Path, *classes: str) -> Path:
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (4, 4)).save(folder / name / f"{number}.png")
    return folder


@mistakes(InputError)
def unknown_task(_: Path) -> object:
    """There is no such task."""
    return load_task("cifar10")


@mistakes(InputError)
def task_of_no_size(_: Path) -> object:
    """Pictures are to have 0 pixels."""
    return load_task("shapes", size=0)


@mistakes(InputError)
def task_of_a_worded_limit(_: Path) -> object:
    """The limit on examples is a word."""
    return load_task("shapes", limit="all")  # type: ignore[arg-type]


@mistakes(InputError)
def task_is_a_path(folder: Path) -> object:
    """A task is a path, which ``image_folder`` reads."""
    return load_task(folder)  # type: ignore[arg-type]


@mistakes(InputError)
def more_examples_than_there_are(_: Path) -> object:
    """More examples are taken than a task has."""
    return take(load_task("shapes", limit=5), train=10**6)


@mistakes(InputError)
def texts_as_pictures(_: Path) -> object:
    """Texts are prepared as pictures."""
    return prepare_images(load_task("phrases", limit=2).train_inputs)


@mistakes(InputError)
def floats_as_pictures(_: Path) -> object:
    """Pictures are floating-point numbers already."""
    return prepare_images(np.zeros((1, 4, 4, 3)))  # type: ignore[arg-type]


@mistakes(PayloadError)
def payload_offline(folder: Path) -> object:
    """Weights have to be fetched, and there is no network."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        patch.setenv("POCKENGINE_OFFLINE", "1")
        return mobilenet_v2(classes=10, pretrained=True)


@mistakes(InputError)
def folder_does_not_exist(folder: Path) -> object:
    """The folder of pictures does not exist."""
    return image_folder(folder / "photos")


@mistakes(InputError)
def folder_is_empty(folder: Path) -> object:
    """The folder of pictures is empty."""
    return image_folder(folder)


@mistakes(InputError)
def folder_without_classes(folder: Path) -> object:
    """The pictures lie in one folder, not in one for each class."""
    Image.new("RGB", (4, 4)).save(folder / "cat.png")
    return image_folder(folder)


@mistakes(InputError)
def class_without_pictures(folder: Path) -> object:
    """The folder of a class holds no pictures."""
    _pictures(folder, "cat")
    (folder / "dog").mkdir()
    return image_folder(folder)


@mistakes(InputError)
def broken_picture(folder: Path) -> object:
    """A picture is cut short."""
    path = _pictures(folder, "cat", "dog") / "dog" / "0.png"
    path.write_bytes(path.read_bytes()[:30])
    return image_folder(folder)


@mistakes(InputError)
def pictures_of_no_size(folder: Path) -> object:
    """Pictures of a folder are to have a negative size."""
    return image_folder(_pictures(folder, "cat", "dog"), size=-1)


@mistakes(InputError)
def folder_is_none(_: Path) -> object:
    """The folder of pictures is None."""
    return image_folder(None)  # type: ignore[arg-type]


def _csv(folder: Path, content: str, encoding: str = "utf-8") -> Path:
    path = folder / "reviews.csv"
    path.write_text(content, encoding=encoding)
    return path


@mistakes(InputError)
def csv_does_not_exist(folder: Path) -> object:
    """The CSV file does not exist."""
    return text_csv(folder / "reviews.csv")


@mistakes(InputError)
def csv_is_empty(folder: Path) -> object:
    """The CSV file is empty."""
    return text_csv(_csv(folder, ""))


@mistakes(InputError)
def csv_with_other_columns(folder: Path) -> object:
    """The CSV file has other columns."""
    return text_csv(_csv(folder, "review,stars\ngood,5\n"))


@mistakes(InputError)
def csv_with_semicolons(folder: Path) -> object:
    """The CSV file's columns are separated by semicolons."""
    return text_csv(_csv(folder, "text;label\ngood;yes\nbad;no\n"))


@mistakes(InputError)
def csv_without_a_label(folder: Path) -> object:
    """A row of the CSV file has no label."""
    return text_csv(_csv(folder, "text,label\ngood,yes\nbad\n"))


@mistakes(InputError)
def csv_of_one_class(folder: Path) -> object:
    """All rows of the CSV file have one label."""
    return text_csv(_csv(folder, "text,label\ngood,yes\nbetter,yes\n"))


@mistakes(InputError)
def csv_in_another_encoding(folder: Path) -> object:
    """The CSV file is not UTF-8."""
    return text_csv(_csv(folder, "text,label\ntrès bien,oui\nmal,non\n", "latin-1"))


@mistakes(InputError)
def limit_of_minus_one(folder: Path) -> object:
    """At most -1 texts are to be read."""
    return text_csv(_csv(folder, "text,label\ngood,yes\nbad,no\n"), limit=-1)


@mistakes(InputError)
def model_width(_: Path) -> object:
    """MobileNetV2 is to have no channels."""
    return mobilenet_v2(width=0.0)


@mistakes(InputError)
def no_classes(_: Path) -> object:
    """MiniLM is to tell no classes apart."""
    return mini_lm(0)


@mistakes(InputError)
def unknown_workload(_: Path) -> object:
    """The command line is given a model that is not known."""
    return find_workload("resnet50")


@mistakes(InputError)
def workload_file_is_missing(folder: Path) -> object:
    """The model's file does not exist."""
    return find_workload(f"{folder}/net.py:make")


@mistakes(InputError)
def workload_without_the_function(folder: Path) -> object:
    """The model's file has no such function."""
    (folder / "net.py").write_text("def make():\n    pass\n")
    return find_workload(f"{folder}/net.py:build")


@mistakes(InputError)
def workload_gives_a_model_only(folder: Path) -> object:
    """The function gives the model alone."""
    (folder / "net.py").write_text("def make():\n    return object()\n")
    return find_workload(f"{folder}/net.py:make")


@mistakes(InputError)
def workload_with_a_typo(folder: Path) -> object:
    """The model's file is no Python."""
    (folder / "net.py").write_text("def make(:\n")
    return find_workload(f"{folder}/net.py:make")


@mistakes(InputError)
def workload_that_raises(folder: Path) -> object:
    """The function that makes the model raises an error."""
    (folder / "net.py").write_text("def make():\n    return 1 / 0\n")
    return find_workload(f"{folder}/net.py:make")


@mistakes(InputError)
def workload_with_arguments(folder: Path) -> object:
    """The function that makes the model wants arguments."""
    (folder / "net.py").write_text("def make(classes):\n    return classes\n")
    return find_workload(f"{folder}/net.py:make")


@mistakes(InputError)
def workload_module_is_missing(_: Path) -> object:
    """The model's module does not exist."""
    return find_workload("my_models.net:make")


@mistakes(InputError)
def unknown_scheme_word(_: Path) -> object:
    """The command line's scheme is neither a rule nor a file."""
    return find_scheme("last_blocks:two")


@mistakes(PlanError)
def buffers_without_a_column(folder: Path) -> object:
    """The file of buffers lacks a column."""
    (folder / "buffers.csv").write_text("id,lower,upper\na,0,1\n")
    return plan_buffers(folder / "buffers.csv")


@mistakes(PlanError)
def buffer_that_dies_first(folder: Path) -> object:
    """A buffer ends before it begins."""
    (folder / "buffers.csv").write_text("id,lower,upper,size\na,2,1,64\n")
    return plan_buffers(folder / "buffers.csv")


@mistakes(PlanError)
def buffers_above_capacity(folder: Path) -> object:
    """The buffers need more than the arena may have."""
    (folder / "buffers.csv").write_text("id,lower,upper,size\na,0,2,64\nb,1,3,64\n")
    return plan_buffers(folder / "buffers.csv", capacity=100)
