// The page's life: charts drawn when they come into view, figures read along a line, one zoom for all.
"use strict";
(() => {
  const { spec, start, charts } = JSON.parse(document.getElementById("data").textContent);
  const views = new Map(); // plot element -> {view, chart}
  document.documentElement.classList.add("live");

  // On a narrow screen a row is a block: each cell says its column. One that spans rows is missing in those below.
  for (const table of document.querySelectorAll(".scroll table")) {
    const names = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
    for (const row of table.tBodies[0].rows) {
      const cells = [...row.cells];
      let column = names.length - cells.reduce((sum, cell) => sum + cell.colSpan, 0);
      for (const cell of cells.length > 1 ? cells : []) {
        if (cell.tagName === "TD" && cell.textContent.trim()) cell.dataset.column = names[column];
        column += cell.colSpan;
      }
    }
  }

  const clock = (ms) => {
    const s = Math.round(ms / 1000), h = Math.floor(s / 3600), two = (n) => String(n).padStart(2, "0");
    return "+" + (h ? h + ":" + two(Math.floor((s % 3600) / 60)) : Math.floor(s / 60)) + ":" + two(s % 60);
  };
  const wall = (ms) => new Date(start * 1000 + ms).toISOString().slice(11, 19) + " UTC";
  const figure = (v, p) => (v == null ? "no sample" : (v * p.factor).toLocaleString("en", { maximumSignificantDigits: 4 }) + p.suffix);

  let zoom = null;
  const whole = (p) => [p.x0, p.x1];

  function specOf(chart) {
    const [x0, x1] = zoom || whole(chart.params);
    const values = { ...chart.params, x0, x1 };
    const samples = [];
    [...chart.lines.keys()].reverse().forEach((i) => {
      const line = chart.lines[i];
      line.t.forEach((t, k) => samples.push({ t: t * 1000, v: line.v[k], s: i, c: line.c }));
    });
    return {
      ...spec,
      params: spec.params.map((p) => ({ ...p, value: values[p.name] })),
      datasets: { ...chart.data, samples },
      autosize: { type: "fit-x", contains: "padding" },
    };
  }

  async function draw(plot) {
    if (views.has(plot)) return;
    const chart = charts[plot.closest("[data-chart]").dataset.chart];
    views.set(plot, null);
    const inner = plot.appendChild(document.createElement("div"));
    try {
      await drawIn(plot, inner, chart);
    } catch (error) { // one chart that can't be drawn must not cost the others
      inner.textContent = "This chart could not be drawn: " + error.message;
      console.error(error);
    }
  }

  async function drawIn(plot, inner, chart) {
    const { view } = await vegaEmbed(inner, specOf(chart), { actions: false, renderer: "svg", defaultStyle: false, tooltip: false, logLevel: 1 });
    views.set(plot, { view, chart });
    read(plot, view, chart);
  }

  // What lies at a moment: of each coloured line the sample nearest to it, none across a gap.
  function nearest(line, seconds) {
    let low = 0, high = line.t.length - 1;
    while (high - low > 1) {
      const mid = (low + high) >> 1;
      if (line.t[mid] <= seconds) low = mid; else high = mid;
    }
    return Math.abs(line.t[low] - seconds) <= Math.abs(line.t[high] - seconds) ? low : high;
  }

  function read(plot, view, chart) {
    const cross = plot.appendChild(Object.assign(document.createElement("i"), { className: "cross", hidden: true }));
    const tip = plot.appendChild(Object.assign(document.createElement("div"), { className: "tip", hidden: true }));
    const brush = plot.appendChild(Object.assign(document.createElement("i"), { className: "brush", hidden: true }));
    const left = () => view.origin()[0], width = () => view.width();
    const toTime = (x) => view.scale("x").invert(Math.min(width(), Math.max(0, x)));
    let at = null, from = null;

    function show(ms) {
      at = +ms;
      const x = left() + view.scale("x")(at);
      Object.assign(cross.style, { left: x + "px", top: view.origin()[1] + "px", height: view.height() + "px" });
      tip.replaceChildren(document.createTextNode(clock(at) + " · " + wall(at)));
      const table = tip.appendChild(document.createElement("table"));
      chart.lines.filter((l) => l.c < 6).forEach((line) => {
        const row = table.insertRow();
        const name = row.insertCell();
        const swatch = name.appendChild(document.createElement("i"));
        swatch.className = "swatch c" + line.c;
        name.append(chart.lines.length > 1 ? line.label : "");
        row.insertCell().textContent = figure(line.v[nearest(line, at / 1000)], chart.params);
      });
      chart.data.windows.filter((w) => w.x <= at && at <= w.x2).forEach((w) => tip.append("fault " + w.label + " is in. "));
      const close = (chart.params.x1 - chart.params.x0) / 100;
      chart.data.alerts.filter((a) => Math.abs(a.x - at) < close).forEach((a) => tip.append(a.name + " fires. "));
      cross.hidden = tip.hidden = false;
      const room = plot.clientWidth - tip.offsetWidth;
      Object.assign(tip.style, { left: Math.max(0, x + 14 > room ? x - tip.offsetWidth - 14 : x + 14) + "px", top: "8px" });
    }
    const hide = () => { cross.hidden = tip.hidden = true; at = null; };
    const place = (event) => event.clientX - plot.getBoundingClientRect().left - left();

    plot.addEventListener("pointermove", (event) => {
      show(toTime(place(event)));
      if (from === null) return;
      const [a, b] = [from, Math.min(width(), Math.max(0, place(event)))].sort((p, q) => p - q);
      brush.hidden = false;
      Object.assign(brush.style, { left: left() + a + "px", width: b - a + "px", top: view.origin()[1] + "px", height: view.height() + "px" });
    });
    plot.addEventListener("pointerleave", hide);
    plot.addEventListener("blur", hide);
    plot.addEventListener("pointerdown", (event) => {
      if (event.pointerType === "mouse" && event.button === 0) { from = Math.max(0, place(event)); plot.setPointerCapture(event.pointerId); event.preventDefault(); plot.focus({ preventScroll: true }); }
    });
    plot.addEventListener("pointerup", (event) => {
      const begun = from;
      from = null;
      brush.hidden = true;
      if (begun !== null && Math.abs(place(event) - begun) > 6) zoomTo([+toTime(begun), +toTime(place(event))].sort((a, b) => a - b));
    });
    plot.addEventListener("dblclick", () => zoomTo(null));
    plot.addEventListener("keydown", (event) => {
      const [a, b] = zoom || whole(chart.params);
      const step = (b - a) / 100;
      if (event.key === "ArrowRight" || event.key === "ArrowLeft") {
        const by = event.key === "ArrowRight" ? step : -step;
        show(Math.min(b, Math.max(a, at === null ? a : at + by)));
        event.preventDefault();
      }
    });
  }

  function zoomTo(range) {
    zoom = range;
    for (const known of views.values()) {
      if (!known) continue;
      const [x0, x1] = zoom || whole(known.chart.params);
      known.view.signal("x0", x0).signal("x1", x1).runAsync();
    }
  }
  addEventListener("keydown", (event) => event.key === "Escape" && zoom && zoomTo(null));

  const plots = [...document.querySelectorAll(".plot")];
  const seen = new IntersectionObserver((entries) => entries.forEach((e) => e.isIntersecting && draw(e.target)), { rootMargin: "600px" });
  plots.forEach((plot) => seen.observe(plot));
  addEventListener("beforeprint", () => plots.filter((p) => p.offsetParent).forEach(draw));
  // The rest is drawn while nobody waits, so that the page prints whole.
  const idle = window.requestIdleCallback || ((f) => setTimeout(f, 50));
  const rest = async () => {
    const next = plots.find((p) => p.offsetParent && !views.has(p));
    if (next) { await draw(next); idle(rest); } else document.documentElement.dataset.drawn = "all";
  };
  idle(rest);

  // Which sorts of lines the timeline shows.
  const table = document.querySelector(".events"), filter = document.querySelector(".filter");
  if (table && filter) {
    const kinds = [...new Set([...table.querySelectorAll("tbody tr[id] .what")].map((cell) => cell.textContent))];
    kinds.forEach((kind) => {
      const label = filter.appendChild(document.createElement("label"));
      const box = label.appendChild(Object.assign(document.createElement("input"), { type: "checkbox", checked: true }));
      label.append(kind);
      box.addEventListener("change", () => table.querySelectorAll(".k-" + kind).forEach((row) => { row.hidden = !box.checked; }));
    });
    filter.hidden = kinds.length < 2;
  }
})();
