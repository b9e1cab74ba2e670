"""What a reader's function gives back, made comparable: tensors, arrays, lists and floats are all arrays here.

An answer is compared by its values and its shape, never by its type: a student who answers with a list of lists has
understood as much as one who answers with a tensor.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

SMALL = 12
"""Values that are shown one by one; of a larger array its shape."""


def as_array(value: object) -> NDArray | None:
    """The value as one array of float64 or of bool; None where it is neither numbers nor truth values.

    >>> as_array([torch.tensor(1), 2.5])
    array([1. , 2.5])
    >>> as_array("two") is None
    True
    """
    try:
        array = _stacked(value)
    except (TypeError, ValueError, RuntimeError):  # ragged lists, sparse tensors, objects that are no arrays
        return None
    if array.dtype == bool:
        return array
    return array.astype(np.float64) if array.dtype.kind in "iuf" else None


def _stacked(value: object) -> NDArray:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        return (value.double() if value.is_floating_point() else value).numpy()
    if isinstance(value, list | tuple):
        return np.array([_stacked(one) for one in value])
    return np.asarray(value)


def same_form(one: NDArray, other: NDArray) -> bool:
    """Whether two arrays have the same shape and are both numbers or both truth values."""
    return one.shape == other.shape and (one.dtype == bool) == (other.dtype == bool)


def alike(one: NDArray, other: NDArray, tolerance: float) -> NDArray:
    """For each place whether two arrays of the same form agree there; the tolerance is absolute and relative."""
    return np.asarray(np.isclose(one, other, rtol=tolerance, atol=tolerance, equal_nan=True))


def equal(one: object, other: object, tolerance: float) -> bool:
    """Whether two values are the same array within the tolerance; of what are no arrays, whether they are equal."""
    a, b = as_array(one), as_array(other)
    if a is None or b is None:
        return a is b and bool(one == other)
    return same_form(a, b) and bool(alike(a, b, tolerance).all())


def size(value: object) -> int:
    """How many numbers a value holds; anything else counts as one."""
    array = as_array(value)
    return 1 if array is None else array.size


def form(value: object) -> str:
    """What a value is, in words.

    >>> form(torch.zeros(2, 3)), form([True]), form(0.5), form("a")
    ('numbers of shape 2 x 3', 'a list of 1 truth value', 'one number', 'a value of type str')
    """
    array = as_array(value)
    if array is None:
        return f"a value of type {type(value).__name__}"
    noun = "truth value" if array.dtype == bool else "number"
    if array.ndim == 0:
        return f"one {noun}"
    if array.ndim == 1:
        return f"a list of {len(array)} {noun}" + ("" if len(array) == 1 else "s")
    return f"{noun}s of shape " + " x ".join(map(str, array.shape))


def shown(value: object, digits: int = 4) -> str:
    """A small array value by value, a large one by its form.

    >>> shown(torch.tensor([[1.0, 0.33333]])), shown(np.zeros((5, 5)))
    ('[[1, 0.3333]]', 'numbers of shape 5 x 5')
    """
    array = as_array(value)
    if array is None or array.size > SMALL:
        return form(value)
    return _nested(array.tolist(), digits)


def _nested(value: list | float | bool, digits: int) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_nested(one, digits) for one in value) + "]"
    return str(value) if isinstance(value, bool) else f"{value + 0.0:.{digits}g}"


def place(index: tuple[int, ...]) -> str:
    """Where in an array, in words.

    >>> place((0, 2)), place((4,)), place(())
    ('row 0, column 2', 'place 4', '')
    """
    if len(index) == 2:
        return f"row {index[0]}, column {index[1]}"
    return "place " + ", ".join(map(str, index)) if index else ""
