"""HTML and SVG elements from plain values: what is text is escaped, always."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from html import escape


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(name: str, *children: str, **attributes: object) -> Markup:
    """An element.

    Args:
        name: of the element.
        children: ``Markup`` as it is, other text escaped.
        attributes: ``_`` is written ``-``, except at the end (``class_``); None and False are left
            out, and True has no value.
    """
    given = {k: v for k, v in attributes.items() if v is not None and v is not False}
    text = "".join(_attribute(key, value) for key, value in given.items())
    return Markup(f"<{name}{text}>{joined(children)}</{name}>")


def joined(children: Iterable[str]) -> Markup:
    """Elements and texts, one after the other."""
    return Markup("".join(map(_escaped, children)))


def html_table(
    headers: Sequence[str], rows: Iterable[Sequence[str]], *, words: Collection[int] = (0,)
) -> Markup:
    """A table in a box that scrolls; columns hold figures, but ``words`` hold words."""
    kinds = ["text" if column in words else None for column in range(len(headers))]
    head = tag(
        "tr", *(tag("th", h, scope="col", class_=k) for h, k in zip(headers, kinds, strict=True))
    )
    lines = [
        tag("tr", *(tag("td", cell, class_=k) for cell, k in zip(row, kinds, strict=True)))
        for row in rows
    ]
    body = tag("table", tag("thead", head), tag("tbody", *lines))
    label = f"Table of {', '.join(filter(None, headers))}"
    return tag("div", body, class_="scroll", tabindex="0", role="region", aria_label=label)


def folded(summary: str, *children: str) -> Markup:
    """What is seen when it is asked for."""
    return tag("details", tag("summary", summary), *children)


def _attribute(key: str, value: object) -> str:
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(str(value))}"'


def _escaped(child: str) -> str:
    return child if isinstance(child, Markup) else escape(child)
