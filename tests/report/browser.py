"""A headless Chromium, spoken to over pipes: pages at any width and theme, what they measure, how they look.

    python tests/report/browser.py RUN/report.html... --out FOLDER

takes a picture of each page on a desktop and on a phone, light and dark, to be looked at.
"""

from __future__ import annotations

import argparse
import base64
import itertools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)

WIDTHS = {"desktop": 1280, "phone": 390}


class Browser:
    """One page of a running browser."""

    def __init__(self, to: int, back: int) -> None:
        self._to, self._back = os.fdopen(to, "wb", buffering=0), os.fdopen(back, "rb", buffering=0)
        self._numbers, self._rest = itertools.count(1), b""
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send one command and return its result; events that come before it are kept."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._to.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            chunk = self._back.read(1 << 16)
            if not chunk:
                raise RuntimeError("the browser is gone")
            self._rest += chunk
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def open(
        self, path: Path, *, width: int = 1280, height: int = 900, theme: str = "light", media: str = "screen"
    ) -> None:
        """Load a file at a width, with a theme, and wait until it stands."""
        self.events.clear()
        self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        features = [{"name": "prefers-color-scheme", "value": theme}]
        self.ask("Emulation.setEmulatedMedia", media=media, features=features)
        self.ask("Page.navigate", url=path.absolute().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read())

    def value(self, expression: str) -> Any:
        """Return what a JavaScript expression gives in the page; the page itself may not run any."""
        return self.ask("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def picture(self, path: Path, *, top: int = 0, height: int | None = None) -> None:
        """Write the page, or a part of it, as PNG."""
        size = self.ask("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": top, "width": size["width"], "height": height or size["height"] - top, "scale": 1}
        shot = self.ask("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(shot["data"]))

    def pdf(self, path: Path) -> None:
        """Write the page as it is printed on A4."""
        printed = self.ask(
            "Page.printToPDF", paperWidth=8.27, paperHeight=11.69, preferCSSPageSize=True, printBackground=True
        )
        path.write_bytes(base64.b64decode(printed["data"]))


@contextmanager
def browser() -> Iterator[Browser]:
    """Yield a page in a Chromium with a profile of its own that ends with the block."""
    if CHROMIUM is None:
        raise RuntimeError("there is no Chromium")
    child_reads, we_write = os.pipe()
    we_read, child_writes = os.pipe()
    switches = [
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--remote-debugging-pipe",
        "--no-first-run",
    ]
    # its helper processes may still write while the folder is being removed
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # The browser takes commands from descriptor 3 and answers on 4; bash (unlike sh) knows numbers above 9.
        line = f'exec "$@" 3<&{child_reads} 4>&{child_writes}'
        command = ["bash", "-c", line, "bash", CHROMIUM, *switches, f"--user-data-dir={profile}"]
        child = subprocess.Popen(
            command, pass_fds=(child_reads, child_writes), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        os.close(child_reads)
        os.close(child_writes)
        try:
            yield Browser(we_write, we_read)
        finally:
            child.terminate()
            child.wait(20)


def pictures(pages: list[Path], folder: Path) -> list[Path]:
    """Write FOLDER/RUN-WIDTH-THEME.png of each page at both widths in both themes; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    with browser() as page:
        for path, (name, width), theme in itertools.product(pages, WIDTHS.items(), ("light", "dark")):
            page.open(path, width=width, theme=theme)
            written.append(folder / f"{path.absolute().parent.name}-{name}-{theme}.png")
            page.picture(written[-1])
    return written


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", type=Path, nargs="+", metavar="PAGE")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    given = parser.parse_args()
    print(*pictures(given.pages, given.out), sep="\n")
