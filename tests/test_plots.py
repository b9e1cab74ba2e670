"""Pictures that say in words what they show, and what is marked as measured here."""

from __future__ import annotations

import re
from base64 import b64decode

import numpy as np
import pytest

from twotower_lib.errors import SettingError
from twotower_lib.plots import BEGIN, COLOURS, END, canvas, figure, on_this_machine, seen_from

ALT = 'Line chart. Across: the epoch, from 1 to 3. Upwards: the loss in nats, from 0 to 7, "falling" & flat.'


def drawn(x="epoch", y="loss (nats)"):
    drawing, axes = canvas()
    axes.plot([1, 2, 3], [7, 2, 1], color=COLOURS[0])
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    return drawing


def test_a_picture_carries_its_description_whole():
    picture = figure(drawn(), alt=ALT)
    assert repr(picture) == f"Picture: {ALT}"
    found = re.fullmatch(
        r'<figure><img alt="([^"<>]+)" src="data:image/png;base64,([^"]+)" style="[^"]+"></figure>',
        picture._repr_html_(),
    )
    assert found[1].replace("&quot;", '"').replace("&amp;", "&") == ALT
    assert b64decode(found[2]) == picture.png and picture.png.startswith(b"\x89PNG")


def test_equal_drawings_are_equal_files():
    assert figure(drawn(), alt=ALT) == figure(drawn(), alt=ALT)


@pytest.mark.parametrize("alt", ["", "A plot.", "x" * 59])
def test_no_picture_without_a_description(alt):
    with pytest.raises(SettingError) as caught:
        figure(drawn(), alt=alt)
    assert f"a picture with alt={alt!r}\nneeded: 60 characters or more: the kind of chart" in str(caught.value)


@pytest.mark.parametrize(("x", "y"), [("", "loss"), ("epoch", "")])
def test_no_picture_without_labelled_axes(x, y):
    with pytest.raises(SettingError, match=r"axes with the labels .*\nneeded: what is shown and its unit on both axes"):
        figure(drawn(x, y), alt=ALT)


def test_axes_that_are_not_shown_need_no_labels():
    drawing = drawn("", "")
    drawing.axes[0].axis("off")
    assert figure(drawing, alt=ALT).alt == ALT


def test_several_axes_side_by_side():
    drawing, axes = canvas(columns=2)
    assert len(axes) == 2
    with pytest.raises(SettingError, match="axes with the labels"):
        figure(drawing, alt=ALT)


def test_colours_are_told_apart_by_their_lightness_too():
    """Neighbours differ in relative luminance (WCAG 2) too, so that a grey print still separates the first two."""
    assert len(set(COLOURS)) == 6
    light = [sum(w * int(c[i : i + 2], 16) for w, i in ((0.2126, 1), (0.7152, 3), (0.0722, 5))) for c in COLOURS]
    assert abs(light[0] - light[1]) > 15


def test_what_is_measured_here_stands_between_two_marks():
    shown = on_this_machine("recall@20 < 0.3 & rising")
    assert shown._repr_html_() == f"{BEGIN}<pre>recall@20 &lt; 0.3 &amp; rising</pre>{END}"
    assert "another one may differ" in repr(shown)


def test_what_renders_itself_does_so():
    assert on_this_machine(figure(drawn(), alt=ALT))._repr_html_().startswith(f"{BEGIN}<figure>")


def test_a_plane_seen_from_a_vector():
    """From the first axis; of what is left the third axis varies most, by hand: 3, -1, 1 against 0, 1, 0."""
    vectors = np.array([[1, 0, 3], [2, 1, -1], [-5, 0, 1]], dtype=np.float32)
    across, up = seen_from(np.array([1, 0, 0], dtype=np.float32), vectors)
    np.testing.assert_array_equal(across, [1, 2, -5])
    covariance = np.cov(vectors[:, 1:].T)
    _, main = np.linalg.eigh(covariance)
    np.testing.assert_allclose(up, vectors[:, 1:] @ main[:, -1] * np.sign(main[1, -1]), rtol=1e-5)
