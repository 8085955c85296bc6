"""Small plots: ticks at round numbers, places on the scales, nothing outside of the image, nothing unescaped."""

from __future__ import annotations

import itertools
import re
from xml.etree import ElementTree

import pytest

from headrace.evaluation import Interval
from headrace.report.parts.data import histogram
from headrace.report.parts.training import smoothed, thinned
from headrace.report.plots import WIDTH, Axis, Plot, share_bar, small, strip, strip_axis, strip_scale, tick_texts
from headrace.report.svg import Scale, element, padded, path, short, ticks


@pytest.mark.parametrize(
    ("low", "high", "most", "expected"),
    [
        (0.0, 1.0, 6, [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.0, 1.0, 5, [0.0, 0.5, 1.0]),
        (0.873, 0.914, 5, [0.88, 0.89, 0.9, 0.91]),
        (0.0, 2112.0, 6, [0.0, 500.0, 1000.0, 1500.0, 2000.0]),
        (-0.3, 0.4, 5, [-0.2, 0.0, 0.2, 0.4]),
        (5.0, 5.0, 5, [5.0]),
    ],
)
def test_ticks_are_round_and_inside(low: float, high: float, most: int, expected: list[float]) -> None:
    assert ticks(low, high, most) == pytest.approx(expected)


def test_ticks_of_epochs_are_whole() -> None:
    assert ticks(0.75, 3.25, 6, whole=True) == [1, 2, 3]
    assert ticks(0.0, 2.0, 6, whole=True) == [0, 1, 2]
    assert ticks(1.0, 40.0, 6, whole=True) == [10, 20, 30, 40]


@pytest.mark.parametrize("high", [1e-9, 3e-5, 0.07, 1.0, 17.0, 4e6])
def test_there_are_never_more_ticks_than_asked_for_and_at_least_two(high: float) -> None:
    for most in (3, 4, 6):
        found = ticks(0.0, high, most)
        assert 2 <= len(found) <= most
        assert len(set(tick_texts(found))) == len(found)


def test_texts_of_ticks_have_as_many_decimals_as_they_need() -> None:
    assert tick_texts([0.0, 0.2, 0.4]) == ["0.0", "0.2", "0.4"]
    assert tick_texts([0.88, 0.9, 0.92]) == ["0.88", "0.90", "0.92"]
    assert tick_texts([0.895, 0.9]) == ["0.895", "0.900"]
    assert tick_texts([0.0, 0.5, 1.0], is_share=True) == ["0 %", "50 %", "100 %"]
    assert tick_texts([0.0, 10_000.0, 20_000.0]) == ["0", "10k", "20k"]
    assert tick_texts([0.0, 2e-5]) == ["0", "2e−5"]
    assert tick_texts([-0.2, 0.0]) == ["−0.2", "0.0"]


def test_a_scale_keeps_values_inside() -> None:
    scale = Scale(0.0, 10.0, 100.0, 200.0)
    assert [scale.at(value) for value in (-5, 0, 5, 10, 15)] == [100, 100, 150, 200, 200]
    assert Scale(3.0, 3.0, 0.0, 10.0).at(3.0) == 5.0


def test_a_path_may_be_a_staircase() -> None:
    assert path([(0, 0), (1, 2), (3, 4)]) == "M0 0L1 2L3 4"
    assert path([(0, 0), (1, 2), (3, 4)], steps=True) == "M0 0H1V2H3V4"
    assert [short(value) for value in (1.04, -0.04, 12.36)] == ["1", "0", "12.4"]


def test_texts_and_attributes_are_escaped() -> None:
    found = element("text", "a < b & c", x='"><script>')
    assert found == '<text x="&#34;&gt;&lt;script&gt;">a &lt; b &amp; c</text>'
    plot = Plot("<b>", "</desc>", Axis("<x>", 0, 1), Axis("", 0, 1)).vertical(0.5, "</svg>").svg()
    assert ElementTree.fromstring(plot).find("title").text == "<b>"


def numbers(image: str) -> list[float]:
    return [float(found) for found in re.findall(r'(?:x|cx|width|x1)="(-?[\d.]+)"', image)]


@pytest.mark.parametrize("values", [[0.5], [0.1, 0.1, 0.1], [1e-7, 2e-7], [-3.0, 1e6], [0.0, 0.0]])
def test_a_plot_of_any_values_stays_in_its_image(values: list[float]) -> None:
    low, high = padded(values)
    plot = Plot("t", "d", Axis("step", 0, max(1, len(values)), whole=True), Axis("", low, high))
    points = [(float(i), value) for i, value in enumerate(values)]
    image = plot.line(points).dots(points, 2, spans=[(low, high)] * len(points)).vertical(len(values), "kept").svg()
    assert all(0 <= place <= WIDTH for place in numbers(image))
    assert ElementTree.fromstring(image).get("role") == "img"
    assert "nan" not in image
    assert "inf" not in image


def test_texts_along_the_axis_do_not_touch() -> None:
    plot = Plot("t", "d", Axis("tokens", 0, 2_000_000, most=6), Axis("", 0, 1))
    places = [
        (float(text.get("x")), len(text.text))
        for text in ElementTree.fromstring(plot.svg()).iter("text")
        if text.get("text-anchor") == "middle" and text.get("class") is None
    ]
    assert len(places) >= 3
    for (x, n), (next_x, next_n) in itertools.pairwise(places):
        assert next_x - x >= 6.7 * (n + next_n) / 2


def test_a_strip_marks_value_interval_and_what_is_off_the_scale() -> None:
    scale = strip_scale(0.8, 1.0)
    inside = ElementTree.fromstring(strip(Interval(0.9, 0.85, 0.95), scale=scale, reference=0.88))
    assert inside.find("circle").get("cx") == "90"
    assert [one.get("d") for one in inside.iter("path") if one.get("class") == "span s1"] == ["M48 11H132"]
    assert inside.get("aria-hidden") == "true"
    below = ElementTree.fromstring(strip(Interval(0.5), scale=scale, reference=0.2, series=6))
    assert below.find("circle") is None
    assert [one.get("class") for one in below.iter("path")] == ["grid", "dot s6"]
    assert len(list(ElementTree.fromstring(strip(Interval(None), scale=scale)).iter())) == 2
    assert all(0 <= place <= 180 for place in numbers(strip_axis(scale)))


def test_a_bar_of_a_few_rows_is_still_seen() -> None:
    assert ElementTree.fromstring(share_bar(1e-6)).findall("rect")[1].get("width") == "1"
    assert len(ElementTree.fromstring(share_bar(0.0)).findall("rect")) == 1
    assert ElementTree.fromstring(small("t", "d", [(0, 0), (1, 1)], chance=[(0, 0), (1, 1)])).get("role") == "img"


def test_the_last_bin_of_longer_texts_is_drawn_like_the_others() -> None:
    edges, counts, longest = histogram({"edges": [0, 32, 64, 2000], "counts": [5, 4, 1]})
    assert (edges, counts, longest) == ([0, 32, 64, 96], [5, 4, 1], 2000)
    assert histogram({"edges": [0, 1], "counts": [3]}) == ([0, 1], [3], 1)
    assert histogram({"edges": [0, 1], "counts": [0]}) == ([], [], 0.0)
    assert histogram({"edges": [0], "counts": [3]}) == ([], [], 0.0)
    assert histogram({}) == ([], [], 0.0)


def test_a_smoothed_curve_keeps_a_constant_and_its_length() -> None:
    points = [(float(i), 2.0) for i in range(200)]
    assert [x for x, _ in smoothed(points)] == [x for x, _ in points]
    assert [y for _, y in smoothed(points)] == pytest.approx([2.0] * 200)
    noisy = [(float(i), float(i % 2)) for i in range(200)]
    assert max(abs(y - 0.5) for _, y in smoothed(noisy)[10:-10]) < 0.1
    assert smoothed([(1.0, 3.0)]) == [(1.0, 3.0)]


def test_a_thinned_curve_keeps_its_ends() -> None:
    points = [(float(i), 0.0) for i in range(5000)]
    kept = thinned(points, 100)
    assert len(kept) == 100
    assert (kept[0], kept[-1]) == (points[0], points[-1])
    assert thinned(points[:7], 100) == points[:7]
