"""Which outputs of a notebook are stored: the new ones, or those of the last run where these are as good.

Two runs never agree to the last byte, so a stored output is kept where nbval calls the new one equal. What the sanitise
file hides from nbval (pixels, digits of one machine) would then stay for ever; it is kept only while the code of the
notebook is the same and the new one is nearly the same.

Widgets: without a kernel, the stored view of a widget is an error message, so it is dropped beside its `text/plain`.
nbval 0.11 skips `application/vnd.jupyter.widget-view+json` on both sides and compares that text: it calls them equal.
"""

from __future__ import annotations

import io
import re
from base64 import b64decode
from collections.abc import Iterator
from copy import deepcopy
from itertools import zip_longest
from pathlib import Path

import numpy as np
from nbformat import NotebookNode
from nbval.plugin import IPyNbCell, coalesce_streams, get_sanitize_patterns, nocolors
from PIL import Image

SANITIZE = Path(__file__).resolve().parent.parent / "tests" / "sanitize.cfg"

WIDGET = "application/vnd.jupyter.widget-view+json"

PICTURES = ("image/png", "image/jpeg")
NOT_COMPARED = ("metadata", "traceback", "prompt_number", "output_type", "name", "execution_count", WIDGET, *PICTURES)
"""What nbval skips; it makes this list in a constructor, so it is written here again, and a test compares them."""

NEAR_SHARE, NEAR_UNITS = 0.02, 0.002
"""Two measured numbers are nearly the same within the larger of these: a share of the number, an absolute distance."""

BLOCK, NEAR_LEVELS = 8, 4
"""Two pictures are nearly the same where no block of 8 x 8 pixels differs by more levels (of 255) on average. That is
rounding, not another digit in a label, nor another font library, whose difference is no smaller than a digit's."""


class Comparison:
    """nbval's own comparison, outside of a pytest session.

    Args:
        patterns: what to replace before comparing, as pairs of a regular expression and a text.
    """

    compare_outputs = IPyNbCell.compare_outputs
    sanitize = IPyNbCell.sanitize
    colors = nocolors
    skip_compare = NOT_COMPARED

    def __init__(self, patterns: dict[str, str] | None = None) -> None:
        text = SANITIZE.read_text(encoding="utf-8")
        self.sanitize_patterns = dict(get_sanitize_patterns(text)) if patterns is None else patterns
        self.parent = self  # where nbval looks for patterns and skipped keys

    def equal(self, new: list[NotebookNode], stored: list[NotebookNode]) -> bool:
        """Whether nbval calls the outputs of a cell equal."""
        return self.compare_outputs(*(coalesce_streams(deepcopy(one)) for one in (new, stored)))

    def format_output_compare(self, key: str, stored: object, new: object) -> None:
        """nbval calls this to word a difference; nobody reads it here."""

    def hidden(self, outputs: list[NotebookNode]) -> list[str]:
        """The parts of the outputs that the comparison does not see, in order: pictures, and what the patterns hide."""
        pictures = [one.data[kind] for one in outputs for kind in PICTURES if kind in one.get("data", {})]
        found = (re.finditer(regex, text) for text in texts(outputs) for regex in self.sanitize_patterns)
        return pictures + [match[0] for matches in found for match in matches]


def strip(notebook: NotebookNode) -> None:
    """Leave what a reader needs: no timings, no state of widgets, no views of widgets, of the metadata the kernel."""
    notebook.metadata = NotebookNode(kernelspec=notebook.metadata.kernelspec)
    for cell in notebook.cells:
        cell.metadata = NotebookNode({key: cell.metadata[key] for key in ("tags",) if key in cell.metadata})
        for output in cell.get("outputs", []):
            if len(output.get("data", {})) > 1:
                output.data.pop(WIDGET, None)


def keep_equal(notebook: NotebookNode, stored: NotebookNode, same_code: bool) -> None:
    """Put the outputs of the last run into a notebook that has just run, wherever they are as good as the new ones.

    Both have the same cells in the same order; `same_code` says whether the last run was of the same code.
    """
    comparison = Comparison()
    pairs = [pair for pair in zip(notebook.cells, stored.cells, strict=True) if pair[0].cell_type == "code"]
    equal = [comparison.equal(new.outputs, old.outputs) for new, old in pairs]
    unchanged = same_code and all(equal)
    for (new, old), is_equal in zip(pairs, equal, strict=True):
        if is_equal and hidden_parts_agree(comparison, new.outputs, old.outputs, roughly=unchanged):
            put_outputs(new, old.outputs)


def hidden_parts_agree(
    comparison: Comparison, new: list[NotebookNode], stored: list[NotebookNode], roughly: bool
) -> bool:
    """Whether what the comparison does not see is the same, or at least nearly the same."""
    pairs = list(zip_longest(comparison.hidden(new), comparison.hidden(stored), fillvalue=""))
    return all(a == b for a, b in pairs) or (roughly and all(near(a, b) for a, b in pairs))


def put_outputs(cell: NotebookNode, outputs: list[NotebookNode]) -> None:
    """Give a code cell these outputs, under its own number."""
    for output in outputs:
        if "execution_count" in output:
            output.execution_count = cell.execution_count
    cell.outputs = outputs


def texts(outputs: list[NotebookNode]) -> Iterator[str]:
    """Every text of the outputs."""
    for output in outputs:
        values = [output.get("text"), *(value for _, value in sorted(output.get("data", {}).items()))]
        yield from (value for value in values if isinstance(value, str))


def near(new: str, stored: str) -> bool:
    """Whether two pictures or two texts are nearly the same."""
    if new.startswith("data:image/") and stored.startswith("data:image/"):
        return near_pictures(new, stored)
    return near_texts(new, stored)


def near_texts(new: str, stored: str) -> bool:
    """The same words, and numbers close to each other."""
    number = r"\d*\.?\d+"
    if re.sub(number, "#", new) != re.sub(number, "#", stored):
        return False
    pairs = zip(re.findall(number, new), re.findall(number, stored), strict=True)
    return all(np.isclose(float(a), float(b), rtol=NEAR_SHARE, atol=NEAR_UNITS) for a, b in pairs)


def near_pictures(new: str, stored: str) -> bool:
    """The same size, and no block of pixels that differs visibly."""
    a, b = pixels(new), pixels(stored)
    return a.shape == b.shape and bool(np.abs(block_means(a) - block_means(b)).max() <= NEAR_LEVELS)


def pixels(url: str) -> np.ndarray:
    """Height x width x 3 levels of a `data:` URL."""
    return np.asarray(Image.open(io.BytesIO(b64decode(url.partition(",")[2]))).convert("RGB"), dtype=float)


def block_means(image: np.ndarray) -> np.ndarray:
    """The mean level of each block; those at the right and lower edge may be smaller."""
    starts = [np.arange(0, length, BLOCK) for length in image.shape[:2]]
    sums = np.add.reduceat(np.add.reduceat(image, starts[0], axis=0), starts[1], axis=1)
    sizes = [np.diff([*start, length]) for start, length in zip(starts, image.shape, strict=False)]
    return sums / (sizes[0][:, None, None] * sizes[1][None, :, None])
