"""A page as a browser reads it."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import html5lib

HTML = "{http://www.w3.org/1999/xhtml}"
SVG = "{http://www.w3.org/2000/svg}"


def parsed(page: str) -> Any:
    """The document, read as a browser reads it."""
    return html5lib.HTMLParser(tree=html5lib.getTreeBuilder("etree")).parse(page)


def nodes(page: str) -> list[Any]:
    """All elements; of a page on which an id stands twice, links would lead astray."""
    found = [node for node in parsed(page).iter() if isinstance(node.tag, str)]
    ids = Counter(node.get("id") for node in found if node.get("id"))
    assert [one for one, n in ids.items() if n > 1] == []
    return found


def words(page: str) -> str:
    return " ".join(" ".join(node.itertext()) for node in parsed(page).iter(f"{HTML}body")).replace("\u00a0", " ")


def flat(page: str) -> str:
    return re.sub(r"\s+", " ", words(page))
