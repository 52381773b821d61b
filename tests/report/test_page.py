"""The page in a real browser: it opens without a network, draws, reads out figures and zooms."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser

from gameday import events as ev
from gameday.report import render
from gameday.states import Fault, Reading
from tests.report import logs
from tests.report import test_reactions as reactions
from tests.support import browser
from tests.support.platforms import ROOT

CHANGED = "html => document.querySelector(\"[data-chart='1'] svg\").innerHTML !== html"


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return render(logs.write(tmp_path_factory.mktemp("run"), logs.game_day())).html


async def test_it_draws_without_a_network_and_breaks_lines_at_gaps(
    chromium: Browser, page_file: Path
) -> None:
    async with browser.opened(chromium, page_file) as (page, trouble):
        await browser.drawn(page)
        assert await page.locator(".plot svg").count() == 5
        for chart, pieces in ((0, 2), (1, 1)):
            path = page.locator(f"[data-chart='{chart}'] .mark-line path").first
            assert (await path.get_attribute("d") or "").count("M") == pieces
    assert trouble == []


async def test_figures_are_read_by_keyboard_and_charts_zoom_together(
    chromium: Browser, page_file: Path
) -> None:
    async with browser.opened(chromium, page_file) as (page, trouble):
        await browser.drawn(page)
        plot = page.locator(".plot").first
        await plot.focus()
        for _ in range(12):
            await page.keyboard.press("ArrowRight")
        assert "fault 1 drain two GPU nodes is in" in await plot.locator(".tip").inner_text()
        await plot.scroll_into_view_if_needed()
        box = await plot.bounding_box()
        assert box
        other = page.locator("[data-chart='1'] svg")
        before = await other.inner_html()
        await page.mouse.move(box["x"] + 200, box["y"] + 100)
        await page.mouse.down()
        await page.mouse.move(box["x"] + 400, box["y"] + 100, steps=4)
        await page.mouse.up()
        await page.wait_for_function(CHANGED, arg=before)
        zoomed = await other.inner_html()
        await page.keyboard.press("Escape")
        await page.wait_for_function(CHANGED, arg=zoomed)
    assert trouble == []


async def test_the_timeline_can_be_filtered(chromium: Browser, page_file: Path) -> None:
    async with browser.opened(chromium, page_file) as (page, _):
        shown = page.locator(".k-kubernetes:visible")
        assert await shown.count() == 3
        await page.get_by_label("kubernetes").uncheck()
        assert await shown.count() == 0


@pytest.mark.parametrize("length", [0, 40])
async def test_short_logs_open_too(chromium: Browser, tmp_path: Path, length: int) -> None:
    path = render(logs.write(tmp_path, logs.game_day()[:length])).html
    async with browser.opened(chromium, path) as (page, trouble):
        await browser.drawn(page)
        assert await page.locator("h1").inner_text()
    assert trouble == []


def _crowded() -> list[ev.Event]:
    """Thirty faults, and a query with three hundred series."""
    w = logs.Writer()
    w(0, logs.started())
    for i in range(30):
        fault: dict[str, Any] = {"step": str(i + 1), "name": f"fault number {i + 1}", "kind": "cordon"}
        for state, at in (("injecting", 0), ("in", 2), ("undoing", 15), ("out", 17)):
            w(10 + 20 * i + at, ev.Fault(**fault, state=state))
    w(1, ev.QueryDeclared(query=1, expression="kube_pod_status_ready", purpose="observe"))
    pods = [
        {"labels": {"pod": f"p-{n}"}, "points": [[logs.START + t, n + t % 7] for t in range(0, 600, 5)]}
        for n in range(300)
    ]
    w(700, ev.Samples(query=1, series=pods))
    w(701, ev.Verdict(verdict="passed", reason="it held", exit_code=0))
    return w.sorted()


async def test_thirty_faults_and_many_series_stay_readable_on_a_phone(
    chromium: Browser, tmp_path: Path
) -> None:
    path = render(logs.write(tmp_path, _crowded())).html
    async with browser.opened(chromium, path, width=420) as (page, trouble):
        await browser.drawn(page)
        assert await page.locator(".g-fault").count() == 30
        legend = await page.locator(".legend summary").inner_text()
        assert "300 series; the 60 that move most are drawn" in legend
        assert await page.evaluate("document.documentElement.scrollWidth") <= 420
    assert trouble == []


@pytest.mark.fast
@pytest.mark.parametrize("state", [*Reading, *(s for s in Fault if s not in (Fault.OUT,))])
def test_every_state_has_a_colour_of_its_own_in_the_timeline(state: str) -> None:
    """A bar without a rule is black, and its meaning anybody's guess."""
    style = (ROOT / "gameday" / "report" / "templates" / "report.css").read_text()
    assert re.search(rf"\.s-{state}\b[^{{]*{{ fill: ", style)


WIDER = """() => [...document.querySelectorAll("body, nav, .scroll:not(.tall), .tall, .chart, .lanes, pre")]
  .filter((box) => box.scrollWidth > box.clientWidth + 1).map((box) => box.className || box.tagName)"""
CUT = """() => {
  const whole = (inner, outer) => inner.left >= outer.left - 1 && inner.right <= outer.right + 1;
  const hidden = (inner, outer) => inner.top >= outer.bottom - 1;
  const cut = [...document.querySelectorAll(".plot svg text")].filter((text) => {
    const plot = text.closest("svg").querySelector("path.background").getBoundingClientRect();
    const shown = text.getAttribute("opacity") !== "0" && !text.closest(".role-axis");
    return shown && (text.textContent.endsWith("…") || !whole(text.getBoundingClientRect(), plot));
  });
  cut.push(...[...document.querySelectorAll(".lname, .pname, .g-phase text")].filter((box) => {
    const words = document.createRange();
    words.selectNodeContents(box);
    const name = words.getBoundingClientRect();
    const clip = box.closest(".pname, .lname, svg").getBoundingClientRect();
    return !hidden(name, clip) && !whole(name, clip);
  }));
  return cut.map((box) => box.textContent);
}"""


async def test_nothing_is_cut_or_scrolls_sideways_on_a_phone(chromium: Browser, page_file: Path) -> None:
    async with browser.opened(chromium, page_file, width=390) as (page, trouble):
        await browser.drawn(page)
        assert await page.evaluate("document.documentElement.scrollWidth") <= 390
        assert await page.evaluate(WIDER) == []
        for kind in ("bound", "fault"):
            assert await page.locator(f".plot svg text[fill='var(--{kind})'][opacity='1']").count() > 2
        assert await page.evaluate(CUT) == []
        for width in (500, 800, 1000, 1280):
            await page.set_viewport_size({"width": width, "height": 900})
            assert await page.evaluate(CUT) == [], width
        assert await page.get_by_text("phases, in order: preflight, baseline, method, recovery").is_visible()
        assert await page.locator("td[data-column='Worst during']").count() > 0
    assert trouble == []


async def test_a_cell_of_two_columns_leaves_the_others_their_names(chromium: Browser, tmp_path: Path) -> None:
    known = (1.0, reactions.changed("GPUd", "Healthy"))
    log = reactions.logged(known, (12.0, reactions.alert("GPUXidError", node="gpu-2")))
    path = render(logs.write(tmp_path, log)).html
    async with browser.opened(chromium, path, width=390) as (page, trouble):
        silent = page.locator("#reactions tr", has_text="GPUd")
        assert await silent.locator("td[data-column='Who']").inner_text() == "GPUd"
        assert await silent.locator("td[data-column='What']").inner_text() == "did not react"
    assert trouble == []
