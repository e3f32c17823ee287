"""The text tasks: public data sets, and a user's CSV file."""

from __future__ import annotations

import csv
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pockengine.errors import InputError
from pockengine.tasks import sources
from pockengine.tasks.payload import fetch
from pockengine.tasks.task import Task, check_positive, checked_path, limit_classes, split

_COLUMNS = ("text", "label")
_SENTIMENT_CLASSES = ("negative", "positive")
_NEWS_CLASSES = ("business", "entertainment", "politics", "sports", "tech")


def sentiment(name: str, member: str, *, limit: int | None, seed: int) -> Task:
    """Snippets rated by twenty people; the sign of the mean score is the class, 0 is left out.

    Args:
        name: the task's name.
        member: the file's stem in the payload's archive.
        limit: at most this many snippets of each class.
        seed: of the limit's choice and of the split.
    """
    with tarfile.open(fetch(sources.SENTIMENT)) as tar:
        file = tar.extractfile(f"hutto_ICWSM_2014/{member}_GroundTruth.txt")
        content = file.read().decode() if file else ""
    rows = [line.split("\t", 2) for line in content.splitlines()]
    scored = [(row[2].strip(), float(row[1])) for row in rows]
    examples = [(text, _SENTIMENT_CLASSES[score > 0]) for text, score in scored if score != 0]
    payload = sources.SENTIMENT
    return _task(name, examples, _SENTIMENT_CLASSES, payload.licence, payload.source, limit, seed)


def bbc_news(*, limit: int | None, seed: int) -> Task:
    """BBC articles of 2004 and 2005, five topics."""
    folder = fetch(sources.BBC_NEWS)
    examples = [
        (" ".join(path.read_text(encoding="utf-8", errors="replace").split()), name)
        for name in _NEWS_CLASSES
        for path in sorted((folder / name).glob("*.txt"))
    ]
    payload = sources.BBC_NEWS
    return _task("bbc-news", examples, _NEWS_CLASSES, payload.licence, payload.source, limit, seed)


def text_csv(path: str | Path, *, limit: int | None = None, seed: int = 0) -> Task:
    """Read a task from a CSV file (UTF-8) with the columns ``text`` and ``label``.

    Equal texts count once; a seeded fifth of each class is the test set.

    Args:
        path: the file; other columns are ignored.
        limit: at most this many texts of each class.
        seed: of the limit's choice and of the split.

    Raises:
        InputError: no such file, a missing column, a row without text or label, or under two
            classes.
    """
    if limit is not None:
        check_positive("text_csv(limit=...)", limit)
    source = checked_path("text_csv(path)", path)
    try:
        with source.open(encoding="utf-8-sig", newline="") as file:
            examples = list(_csv_examples(source, csv.DictReader(file)))
    except OSError as error:
        raise _csv_error(str(source), f"cannot be read ({error.strerror})") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise _csv_error(str(source), f"cannot be read ({error})") from error
    classes = tuple(sorted({label for _, label in examples}))
    if len(classes) < 2:
        told = classes[0] if classes else "it has no rows"
        raise _csv_error(str(source), f"has fewer than two labels ({told})")
    return _task(source.stem, examples, classes, "the user's", str(source), limit, seed)


def _csv_examples(source: Path, reader: csv.DictReader[str]) -> Iterable[tuple[str, str]]:
    missing = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
    if missing:
        columns = ", ".join(reader.fieldnames or ()) or "nothing"
        raise _csv_error(str(source), f"has no column {missing[0]!r} (its first row: {columns})")
    for row in reader:
        text, label = (row[name] or "" for name in _COLUMNS)
        if not text.strip() or not label.strip():
            empty = "text" if not text.strip() else "label"
            raise _csv_error(f"{source} line {reader.line_num}", f"the {empty} is empty")
        yield text, label.strip()


def _csv_error(where: str, found: str) -> InputError:
    return InputError(
        where=where,
        found=found,
        needed="needs a UTF-8 CSV with the columns text and label, and at least two classes",
        remedy="Write a first row `text,label` and one example a row, with commas between",
    )


def _task(
    name: str,
    examples: Sequence[tuple[str, str]],
    classes: tuple[str, ...],
    licence: str,
    source: str,
    limit: int | None,
    seed: int,
) -> Task:
    unique = list(dict(reversed(examples)).items())[::-1]  # the first of equal texts stays
    labels = np.asarray([classes.index(label) for _, label in unique], dtype=np.int64)
    kept = limit_classes(labels, limit, seed)
    texts: npt.NDArray[np.object_] = np.empty(len(unique), dtype=np.object_)
    texts[:] = [text for text, _ in unique]
    train, test = split(texts[kept], labels[kept], seed)
    return Task(
        name=name,
        kind="text",
        train_inputs=train[0],
        train_labels=train[1],
        test_inputs=test[0],
        test_labels=test[1],
        classes=classes,
        licence=licence,
        source=source,
    )
