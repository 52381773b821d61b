"""A real browser for pages: opens a file, says what went wrong in it, takes its picture.

`python -m tests.support.browser PAGE.html PICTURE.png [--dark] [--top N] [--height N]`
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright


def chromium() -> str | None:
    """The browser of the machine, as Debian's package `chromium` installs it."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@contextmanager
def opened(path: Path, *, dark: bool = False, width: int = 1240, height: int = 900) -> Iterator[tuple[Page, list[str]]]:
    """A page in a window, and the list of its errors and of every request it made to a network."""
    trouble: list[str] = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        try:
            page = browser.new_page(
                viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
            )
            page.on("console", lambda m: trouble.append(m.text) if m.type in ("error", "warning") else None)
            page.on("pageerror", lambda e: trouble.append(str(e)))
            page.on("dialog", lambda d: (trouble.append(f"dialog: {d.message}"), d.dismiss()))
            page.on("request", lambda r: None if r.url.startswith(("file:", "data:", "blob:")) else trouble.append(r.url))
            page.goto(path.resolve().as_uri(), wait_until="load")
            yield page, trouble
        finally:
            browser.close()


def drawn(page: Page, timeout: float = 60) -> None:
    """Waits until every chart of a report is drawn."""
    page.wait_for_function("document.documentElement.dataset.drawn === 'all'", timeout=timeout * 1000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--width", type=int, default=1240)
    parser.add_argument("--top", type=int, default=0, help="pixels to leave out above")
    parser.add_argument("--height", type=int, default=0, help="pixels of the page; 0 for all")
    options = parser.parse_args()
    with opened(options.page, dark=options.dark, width=options.width) as (page, trouble):
        drawn(page)
        whole = page.evaluate("document.documentElement.scrollHeight")
        clip = {"x": 0, "y": options.top, "width": options.width, "height": options.height or whole - options.top}
        page.screenshot(path=options.picture, full_page=True, clip=clip)
    for line in trouble:
        print(line)


if __name__ == "__main__":
    main()
