"""The tasks by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from pockengine.errors import InputError
from pockengine.tasks import builtin, images, texts
from pockengine.tasks.task import Task, check_positive

IMAGE_TASKS: Mapping[str, Callable[..., Task]] = MappingProxyType(
    {
        "fashion-mnist": images.fashion_mnist,
        "openclipart": images.openclipart,
        "openclipart-topics": images.openclipart_topics,
        "elpv": images.elpv,
        "digits": images.digits,
        "shapes": builtin.shapes,
    }
)
"""Name -> loader with the keywords ``size``, ``limit``, ``seed``."""

TEXT_TASKS: Mapping[str, Callable[..., Task]] = MappingProxyType(
    {
        **{
            f"sentiment-{key}": partial(texts.sentiment, f"sentiment-{key}", member)
            for key, member in {
                "movie": "movieReviewSnippets",
                "amazon": "amazonReviewSnippets",
                "tweets": "tweets",
                "nyt": "nytEditorialSnippets",
            }.items()
        },
        "bbc-news": texts.bbc_news,
        "phrases": builtin.phrases,
    }
)
"""Name -> loader with the keywords ``limit``, ``seed``."""


def task_names() -> tuple[str, ...]:
    """Return the names that ``load_task`` knows; the last image and text task are built in."""
    return (*IMAGE_TASKS, *TEXT_TASKS)


def load_task(
    name: str, *, size: int | None = None, limit: int | None = None, seed: int = 0
) -> Task:
    """Load a task, fetching its data first where needed.

    Args:
        name: one of ``task_names()``; "shapes" and "phrases" never need a download.
        size: side of the pictures in pixels; None is the task's own. Texts have none.
        limit: at most this many examples of each class are read (of each part, where the data
            set brings its own split).
        seed: of the limit's choice and of the split.

    Raises:
        InputError: an unknown name, or a size or limit that is no positive number.
        PayloadError: the data cannot be had here.
    """
    for option, value in {"size": size, "limit": limit}.items():
        if value is not None:
            check_positive(f"load_task({option}=...)", value)
    if name in IMAGE_TASKS:
        return IMAGE_TASKS[name](size=size, limit=limit, seed=seed)
    if name in TEXT_TASKS:
        return TEXT_TASKS[name](limit=limit, seed=seed)
    raise InputError(
        where="load_task",
        found=f"there is no task {name!r}",
        needed=f"needs one of {', '.join(task_names())}",
        remedy="Load your own data with image_folder or text_csv",
    )
