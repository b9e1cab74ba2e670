"""Pictures and measured texts for notebooks: readable without eyes, and comparable between machines.

A picture needs its description in words: `figure` refuses one without. It is shown as `<figure><img alt=...>`, because
that is the form in which JupyterLab, Binder and a web page all keep the description.

What a model answers may differ in its last digits on another processor, and close items then change places. Such
output goes between the two marks of `on_this_machine`: a reader sees it, and the comparison of notebook outputs leaves
it out and compares the facts that stand beside it.
"""

from __future__ import annotations

import io
from base64 import b64encode
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from twotower_lib.errors import SettingError

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
"""Told apart by colour-blind readers too (Okabe and Ito 2008, Color Universal Design)."""

SHORTEST_ALT = 60
"""Characters of the shortest description that can name chart, axes, range and what to notice."""

BEGIN, END = "<!-- measured here: begin -->", "<!-- measured here: end -->"


@dataclass(frozen=True)
class Picture:
    """A drawn picture and its description."""

    png: bytes
    alt: str

    def _repr_html_(self) -> str:
        source = f"data:image/png;base64,{b64encode(self.png).decode()}"
        return f'<figure><img alt="{escape(self.alt)}" src="{source}" style="max-width: 100%"></figure>'

    def __repr__(self) -> str:
        return f"Picture: {self.alt}"


@dataclass(frozen=True)
class OnThisMachine:
    """A text that holds on this machine, to the last digit perhaps only there."""

    html: str

    def _repr_html_(self) -> str:
        return f"{BEGIN}{self.html}{END}"

    def __repr__(self) -> str:
        return "Measured on this machine; another one may differ in the last digits."


def canvas(columns: int = 1, width: float = 7.0, height: float = 4.5) -> tuple[Figure, Any]:
    """An empty drawing in inches, and its axes: one, or an array of `columns` side by side."""
    drawing = Figure(figsize=(width, height), layout="constrained", dpi=100)
    return drawing, drawing.subplots(1, columns)


def figure(drawing: Figure, alt: str) -> Picture:
    """The picture of a drawing.

    Args:
        drawing: what `canvas` gave, drawn upon.
        alt: the picture in words: the kind of chart, its axes with their range, and what to notice.

    Raises:
        SettingError: the description is missing or too short to be one, or an axis that is shown has no label.
    """
    if len(alt) < SHORTEST_ALT:
        needed = f"{SHORTEST_ALT} characters or more: the kind of chart, its axes with their range, what to notice"
        raise SettingError(f"a picture with alt={alt!r}", needed)
    for axes in drawing.axes:
        _check_labels(axes)
    drawn = io.BytesIO()
    drawing.savefig(drawn, format="png", metadata={"Software": None})
    return Picture(drawn.getvalue(), alt)


def seen_from(viewer: NDArray[np.float32], vectors: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
    """Vectors in a plane: their inner product with one of them, and the direction in which they differ most otherwise.

    Args:
        viewer: of shape (dim); length 1.
        vectors: of shape (rows, dim).

    Returns:
        two arrays of shape (rows): the products, and the first principal component of what they leave over.
    """
    products = vectors @ viewer
    rest = vectors - np.outer(products, viewer)
    _, _, directions = np.linalg.svd(rest - rest.mean(axis=0), full_matrices=False)
    first = directions[0] * np.sign(directions[0][np.abs(directions[0]).argmax()])
    return products, rest @ first


def on_this_machine(shown: object) -> OnThisMachine:
    """Any object, in its own HTML or as text, marked as measured on this machine."""
    own = getattr(shown, "_repr_html_", None)
    return OnThisMachine(own() if own else f"<pre>{escape(str(shown))}</pre>")


def _check_labels(axes: Axes) -> None:
    if axes.axison and not (axes.get_xlabel() and axes.get_ylabel()):
        came = f"axes with the labels {axes.get_xlabel()!r} and {axes.get_ylabel()!r}"
        raise SettingError(came, "what is shown and its unit on both axes", "axes.set_xlabel(...), or axes.axis('off')")
