"""A real browser for pages: opens a file, says what went wrong in it, takes its picture.

`python -m tests.support.browser PAGE.html PICTURE.png [--dark] [--top N] [--height N]`
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from playwright.async_api import Browser, Dialog, Page, Request, async_playwright


def chromium() -> str | None:
    """The browser of the machine, as Debian's package `chromium` installs it."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@asynccontextmanager
async def running() -> AsyncIterator[Browser]:
    """A browser; starting one takes longer than most of what is done in it."""
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield browser
        await browser.close()


@asynccontextmanager
async def opened(
    browser: Browser, path: Path, *, dark: bool = False, width: int = 1240, height: int = 900
) -> AsyncIterator[tuple[Page, list[str]]]:
    """A page in a window, and the list of its errors and of every request it made to a network."""
    trouble: list[str] = []
    page = await browser.new_page(
        viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
    )
    _listen(page, trouble)
    await page.goto(path.resolve().as_uri(), wait_until="load")
    yield page, trouble
    await page.close()


def _listen(page: Page, trouble: list[str]) -> None:
    def note(text: str) -> None:
        trouble.append(text)

    async def dialog(box: Dialog) -> None:
        note(f"dialog: {box.message}")
        await box.dismiss()

    def request(asked: Request) -> None:
        if not asked.url.startswith(("file:", "data:", "blob:")):
            note(f"request: {asked.url}")

    page.on("console", lambda message: note(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: note(str(error)))
    page.on("dialog", dialog)
    page.on("request", request)


async def drawn(page: Page, within: float = 60) -> None:
    """Waits until every chart of a report is drawn."""
    await page.wait_for_function("document.documentElement.dataset.drawn === 'all'", timeout=within * 1000)


async def _picture(options: argparse.Namespace) -> None:
    shown = {"dark": options.dark, "width": options.width}
    async with running() as browser, opened(browser, options.page, **shown) as (page, trouble):
        await drawn(page)
        whole = await page.evaluate("document.documentElement.scrollHeight")
        tall = options.height or whole - options.top
        await page.screenshot(
            path=options.picture,
            full_page=True,
            clip={"x": 0, "y": options.top, "width": options.width, "height": tall},
        )
    for line in trouble:
        print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--width", type=int, default=1240)
    parser.add_argument("--top", type=int, default=0, help="pixels to leave out above")
    parser.add_argument("--height", type=int, default=0, help="pixels of the page; 0 for all")
    asyncio.run(_picture(parser.parse_args()))


if __name__ == "__main__":
    main()
