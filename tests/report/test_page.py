"""report.html: what it says, that nothing from the data becomes markup (X8), that it needs nothing else, its size."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from typing import Any

import html5lib
import pytest

from headrace.errors import RunError
from headrace.report import PAGE, page_of, write_page
from report import samples
from report.parsed import HTML, SVG, flat, nodes, words

ELEMENTS = set(
    [
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "a",
        "nav",
        "header",
        "main",
        "section",
        "footer",
        "div",
        "span",
        "p",
        "b",
        "bdi",
        "h1",
        "h2",
        "h3",
        "ul",
        "ol",
        "li",
        "dl",
        "dt",
        "dd",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "figure",
        "figcaption",
        "details",
        "summary",
        "pre",
        "code",
    ]
)
IMAGE_ELEMENTS = {"svg", "title", "desc", "path", "rect", "circle", "text"}
ATTRIBUTES = set(
    [
        "lang",
        "charset",
        "http-equiv",
        "content",
        "name",
        "id",
        "class",
        "href",
        "dir",
        "scope",
        "title",
        "role",
        "aria-label",
        "aria-labelledby",
        "aria-hidden",
        "focusable",
        "viewBox",
        "d",
        "x",
        "y",
        "width",
        "height",
        "cx",
        "cy",
        "r",
        "text-anchor",
        "open",
    ]
)
LEFT_OUT = '<section id="unreadable">'
HOSTILE = {
    "script": "</script><script>alert(1)</script>",
    "image": '"><img src=x onerror=alert(1)>',
    "attribute": '" onmouseover="alert(1)" x="',
    "apostrophe": "' onfocus='alert(1)' autofocus='",
    "style": "</style><style>*{display:none}</style>",
    "title": "</title></desc></svg><svg onload=alert(1)>",
    "comment": "<!--[if IE]><script>--><![CDATA[x]]>",
    "template": "{{ 7 * 7 }}{% raw %}{# #}",
    "entity": "&lt;script&gt;&#60;b&#62;&amp;",
    "link": "javascript:alert(1)",
    "bidi": "abc\u202edef\u2066ghi\u2069",
    "nul": "a\x00b\x07c\x85\ufffe\ud800d",
    "long": "w" * 10_000,
    "tall": "Z" + "\u0300\u0489" * 200,
}


def poisoned(value: Any, *texts: str) -> Any:
    """The report with one of the texts in turn put into each text and each key that comes from the data."""
    turn = itertools.cycle(texts)
    fixed = {"task", "severity", "method", "metric", "winner", "split", "name", "monitor", "created", "code"}
    by_name = {"labels", "values", "roc", "pr", "rates", "recipe", "versions", "fingerprints"}

    def walk(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {f"{next(turn)}{k}" if key in by_name else k: walk(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [walk(one, key) for one in value]
        return f"{next(turn)}{value}" if isinstance(value, str) and key not in fixed else value

    return {key: walk(one, key) for key, one in value.items() if key != "recipe"} | {
        "recipe": walk(value.get("recipe", {}), "recipe")
    }


@pytest.mark.parametrize("sample", ["reviews", "pairs", "toxic", "many", "bare", "both_ways"])
def test_a_page_is_whole_valid_and_small(sample: str) -> None:
    page = page_of(getattr(samples, sample)())
    parser = html5lib.HTMLParser(tree=html5lib.getTreeBuilder("etree"), strict=True)
    parser.parse(page)  # strict: any error of the markup raises
    assert len(page.encode()) < 400_000
    assert LEFT_OUT not in page
    found = nodes(page)
    ids = {node.get("id") for node in found if node.get("id")}
    targets = [node.get("href") for node in found if node.get("href")]
    assert len(targets) >= 4
    assert {target.removeprefix("#") for target in targets} <= ids


def test_the_sections_stand_in_the_order_of_the_reading() -> None:
    ids = [node.get("id") for node in nodes(page_of(samples.reviews())) if node.tag == f"{HTML}section"]
    assert ids == (
        [
            "look",
            "data",
            "training",
            "metrics",
            "confusion",
            "labels",
            "calibration",
            "abstention",
            "slices",
            "leaks",
            "errors",
            "forecast",
            "settings",
        ]
    )
    ids = [node.get("id") for node in nodes(page_of(samples.toxic())) if node.tag == f"{HTML}section"]
    assert ids == [
        "look",
        "data",
        "training",
        "metrics",
        "labels",
        "calibration",
        "thresholds",
        "errors",
        "forecast",
        "settings",
    ]


def test_the_verdict_comes_first() -> None:
    text = flat(page_of(samples.reviews()))
    places = [text.index(part) for part in ("The model gives the right answer", "Contents", "What to look at Error")]
    assert places == sorted(places)


def test_nothing_outside_the_file_is_asked_for() -> None:
    page = page_of(samples.toxic())
    policy = next(node.get("content") for node in nodes(page) if node.get("http-equiv"))
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:")
    style = "".join(node.text for node in nodes(page) if node.tag == f"{HTML}style")
    assert "url(" not in style
    assert "@import" not in style
    assert "http" not in style
    assert "prefers-color-scheme: dark" in style
    assert "@media print" in style
    assert not any(node.get("src") or node.get("style") for node in nodes(page))
    assert "<script" not in page


@pytest.mark.parametrize("sample", ["reviews", "toxic", "many"])
def test_texts_from_the_data_never_become_markup(sample: str) -> None:
    page = page_of(poisoned(getattr(samples, sample)(), *HOSTILE.values()))
    assert LEFT_OUT not in page
    found = nodes(page)
    assert len(found) > 500
    for node in found:
        if node.tag.startswith(SVG):
            assert node.tag.removeprefix(SVG) in IMAGE_ELEMENTS
        else:
            assert node.tag.removeprefix(HTML) in ELEMENTS
        for name, value in node.attrib.items():
            assert name in ATTRIBUTES
            assert name != "href" or value.startswith("#")
            assert name != "id" or re.fullmatch("[a-z-]+", value)
            assert name != "class" or re.fullmatch("[a-z0-9 -]+", value)
    assert len(page.encode()) < 2_000_000


@pytest.mark.parametrize("sample", ["reviews", "toxic"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_no_angle_bracket_is_left_outside_of_known_tags(sample: str, kind: str) -> None:
    page = page_of(poisoned(getattr(samples, sample)(), HOSTILE[kind]))
    page.encode("utf-8")  # no half of a surrogate pair is left
    page = re.sub(r"(?s)<style>.*?</style>", "", page.removeprefix("<!doctype html>"), count=1)
    known = "|".join(sorted(ELEMENTS | IMAGE_ELEMENTS, key=len, reverse=True))
    attributes = "|".join(ATTRIBUTES)
    rest = re.sub(rf'</?(?:{known})(?: (?:{attributes})(?:="[^"<>]*")?)*/?>', "", page)
    assert len(rest) < 0.8 * len(page)
    assert "<" not in rest
    assert ">" not in rest


@pytest.mark.parametrize("kind", ["script", "attribute", "bidi", "nul", "template"])
def test_hostile_texts_give_the_very_same_elements_as_kind_ones(kind: str) -> None:
    report = samples.toxic()
    kind_page, hostile_page = page_of(poisoned(report, "kind ")), page_of(poisoned(report, HOSTILE[kind]))
    shapes = [[(node.tag, tuple(node.attrib)) for node in nodes(page)] for page in (kind_page, hostile_page)]
    assert shapes[0] == shapes[1]


def test_hostile_texts_are_shown_as_what_they_are() -> None:
    report = samples.reviews()
    report["errors"][0] |= {"text": "a <script>alert(1)</script> & \x00 \u202e x", "attributions": None}
    text = words(page_of(report))
    assert "a <script>alert(1)</script> & ␀ ‹U+202E› x" in text
    report["errors"][0]["attributions"] = [["<b>", 1.0], [" &amp;", -1.0], [" 'x'", 0.0]]
    marked = [node for node in nodes(page_of(report)) if node.get("class") in ("for4", "against4")]
    assert [node.text for node in marked[:2]] == ["<b>", "&amp;"]


def test_no_control_character_reaches_the_page() -> None:
    page = page_of(poisoned(samples.toxic(), "".join(map(chr, range(0x20))) + "\x7f\x85\u202a\u2068\ufdd0"))
    assert set(re.findall(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufdd0\ufffe\uffff]", page)) == set()


def test_any_key_may_be_missing_or_null() -> None:
    report = samples.toxic()
    for key in report:
        without = {name: value for name, value in report.items() if name != key}
        assert LEFT_OUT not in page_of(without), key
        assert LEFT_OUT not in page_of(without | {key: None}), key
    for key in ("calibration", "thresholds", "abstain"):
        assert LEFT_OUT not in page_of(report | {"decide": report["decide"] | {key: None}})
    for key in report["check"]:
        assert LEFT_OUT not in page_of(report | {"check": report["check"] | {key: None}}), key
    assert "There is no figure to judge the model by." in flat(page_of({}))


def test_a_part_of_another_form_is_left_out_and_said() -> None:
    report = samples.reviews()
    report["curves"]["roc"]["pos"] = [["a", None]]
    text = flat(page_of(report))
    assert "Left out" in text
    assert "per label (ValueError" in text
    assert "Most confident errors" in text


def test_a_page_is_a_pure_function_of_the_report() -> None:
    assert page_of(samples.toxic()) == page_of(samples.toxic())


def test_many_labels_give_a_list_of_confusions_and_the_weakest_labels_first() -> None:
    text = flat(page_of(samples.many(26)))
    assert "With 26 labels a matrix would be too large to read" in text
    assert "true ↓ answer →" in flat(page_of(samples.many(20, 600)))
    report = samples.many(60, 1200)
    page = page_of(report)
    assert "30 more labels" in flat(page)
    weakest = min(report["labels"], key=lambda label: report["labels"][label]["f1"]["value"])
    table = next(node for node in nodes(page) if node.get("id") == "labels").find(f".//{HTML}tbody")
    assert "".join(table.find(f"{HTML}tr/{HTML}th").itertext()) == weakest
    assert "Not drawn: 48 more labels" in flat(page)


def test_a_thousand_labels_stay_under_two_megabytes() -> None:
    report = samples.many(26)
    name, values = next(iter(report["labels"].items()))
    names = [f"{i} {'x' * 200}" for i in range(1500)]
    report["labels"] = dict.fromkeys(names, values)
    report["curves"] = {"roc": dict.fromkeys(names, report["curves"]["roc"][name]), "pr": {}}
    report["confusion_matrix"] = None
    for split in report["check"]["splits"]:
        split["labels"] = dict.fromkeys(names, 3)
    report["recipe"] = {"data": {"labels": names}, "fit": {"class_weights": dict.fromkeys(names, 1.0)}}
    report["errors"] = [
        {"row": 1, "text": "y" * 5000, "true": "a", "predicted": "b", "attributions": [["z" * 500, 1.0]] * 5000}
    ] * 500
    page = page_of(report)
    assert len(page.encode()) < 2_000_000
    assert "and 1,100 more labels" in flat(page)


def test_every_metric_stands_beside_its_interval() -> None:
    report = samples.reviews()
    text = flat(page_of(report))
    for found in report["metrics"].values():
        assert f"{found['value']:.4f} {found['low']:.4f} to {found['high']:.4f}" in text
    report = samples.bare()
    assert "0.464 no interval" in flat(page_of(report))
    told = "Log loss; F1, mean over labels: no interval from fewer than 20 rows"
    assert flat(page_of(report)).count(told) == 1


def test_images_have_a_role_a_title_and_a_description_or_are_hidden() -> None:
    images = [node for node in nodes(page_of(samples.toxic())) if node.tag == f"{SVG}svg"]
    assert len(images) > 30
    kinds = Counter(node.get("role") for node in images)
    assert kinds["img"] >= 17
    for image in images:
        if image.get("role") == "img":
            assert image.find(f"{SVG}title").text
            assert image.find(f"{SVG}desc").text
        else:
            assert image.get("aria-hidden") == "true"


def test_the_page_is_written_whole_or_not_at_all(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_page(tmp_path / "run", samples.bare())
    assert path == tmp_path / "run" / PAGE
    before = path.read_bytes()
    assert before.startswith(b"<!doctype html>")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("headrace.files.os.fsync", full)
    with pytest.raises(RunError, match=r"cannot write report\.html"):
        write_page(tmp_path / "run", samples.reviews())
    assert path.read_bytes() == before
