"""The page in a real browser: nothing runs over on a phone, nothing is fetched, colours can be read in both themes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.report import write_page
from report import samples
from report.browser import CHROMIUM, Browser, browser

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here"),
]
SAMPLES = ("reviews", "pairs", "toxic", "many", "bare")
# Of what is not inside a frame of its own that scrolls: what reaches beyond the window's right edge.
OVERFLOWING = """[...document.querySelectorAll('body *')].filter(node => {
  if (node.closest('.scroll, pre, .skip')) return false;
  const box = node.getBoundingClientRect();
  return box.width > 0 && (box.right > document.documentElement.clientWidth + 1 || box.left < -1);
}).map(node => node.outerHTML.slice(0, 80))"""
# Texts inside images that lie on each other, or outside of their image.
COLLIDING = """[...document.querySelectorAll('svg')].flatMap(image => {
  const texts = [...image.querySelectorAll('text')].map(text => [text.textContent, text.getBoundingClientRect()]);
  const frame = image.getBoundingClientRect();
  const off = texts.filter(([, b]) => b.width && (b.left < frame.left - 2 || b.right > frame.right + 2));
  const pairs = texts.flatMap(([a, b], i) => texts.slice(i + 1)
    .filter(([, c]) => b.width && c.width && b.left < c.right - 1 && c.left < b.right - 1 && b.top < c.bottom - 3 && c.top < b.bottom - 3)
    .map(([d]) => a + ' | ' + d));
  return off.map(([a]) => 'off: ' + a).concat(pairs);
})"""
# The contrast of each text with the ground that it stands on (WCAG 2.1, relative luminance), the least of all.
CONTRAST = """(() => {
  const parse = colour => { const c = document.createElement('canvas').getContext('2d'); c.fillStyle = colour; c.fillRect(0, 0, 1, 1);
    return [...c.getImageData(0, 0, 1, 1).data]; };
  const over = (top, under) => top.slice(0, 3).map((v, i) => v * top[3] / 255 + under[i] * (1 - top[3] / 255)).concat(255);
  const light = ([r, g, b]) => { const f = v => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b); };
  const ground = node => { if (!node) return [255, 255, 255, 255];
    const c = parse(getComputedStyle(node).backgroundColor); return c[3] === 255 ? c : over(c, ground(node.parentElement)); };
  const found = [...document.querySelectorAll('body *')].filter(node => [...node.childNodes].some(t => t.nodeType === 3 && t.textContent.trim())
      && node.getBoundingClientRect().width && !node.closest('desc, title, .skip')).map(node => {
    const style = getComputedStyle(node), under = ground(node);
    const ink = over(parse(node.closest('svg') ? style.fill : style.color), under);
    const [a, b] = [light(ink), light(under)].sort((x, y) => y - x);
    return [(a + 0.05) / (b + 0.05), node.outerHTML.slice(0, 100)]; });
  return found.sort((a, b) => a[0] - b[0])[0];
})()"""


@pytest.fixture(scope="module")
def page() -> Iterator[Browser]:
    with browser() as found:
        yield found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    found = {name: write_page(folder / name, getattr(samples, name)()) for name in SAMPLES}
    wide = samples.toxic()
    wide["labels"] = {f"{'unbreakable' * 7}{label}": values for label, values in wide["labels"].items()}
    wide["errors"][0] |= {"text": "w" * 900, "attributions": None}
    return found | {"wide": write_page(folder / "wide", wide)}


@pytest.mark.parametrize("name", [*SAMPLES, "wide"])
@pytest.mark.parametrize("width", [320, 390, 768, 1280, 1920])
def test_nothing_runs_over_the_edge(page: Browser, pages: dict[str, Path], name: str, width: int) -> None:
    page.open(pages[name], width=width)
    assert page.value("document.documentElement.scrollWidth") == width
    assert page.value(OVERFLOWING) == []
    assert page.value(COLLIDING) == []


@pytest.mark.parametrize("name", ["reviews", "toxic"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_text_can_be_read(page: Browser, pages: dict[str, Path], name: str, theme: str) -> None:
    page.open(pages[name], theme=theme)
    background = page.value("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, background[4:-1].split(","))) < 200) == (theme == "dark")
    contrast, where = page.value(CONTRAST)
    assert contrast >= 4.5, where


def test_nothing_is_fetched_and_nothing_complains(page: Browser, pages: dict[str, Path]) -> None:
    page.open(pages["reviews"])
    asked = [e["params"]["request"]["url"] for e in page.events if e.get("method") == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith(pages["reviews"].as_uri())] == []
    assert len(asked) == 1
    assert [event for event in page.events if event.get("method") == "Log.entryAdded"] == []


def test_hostile_texts_run_nothing(page: Browser, tmp_path: Path) -> None:
    report = samples.toxic()
    report["errors"][0]["text"] = (
        "</p><script>document.title = 'taken'</script><img src=x onerror=\"document.title='taken'\">"
    )
    report["errors"][0]["attributions"] = None
    page.open(write_page(tmp_path, report))
    assert page.value("document.title") == "toxic: report"
    assert page.value("document.querySelectorAll('script, img').length") == 0


def test_it_prints_on_paper_in_light_colours_with_nothing_folded(
    page: Browser, pages: dict[str, Path], tmp_path: Path
) -> None:
    page.open(pages["toxic"], theme="dark", media="print", width=760)
    assert page.value("getComputedStyle(document.documentElement).getPropertyValue('--paper')") == "#fefefd"
    assert page.value("document.querySelector('pre').getBoundingClientRect().height") > 200
    page.pdf(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
