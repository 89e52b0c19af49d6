// The coverage page's charts: drawn by Chart.js from the data in the page, moved through by mouse
// and keyboard, said in words below each chart.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const count = (number) => Math.round(number).toLocaleString("en-US");
  const range = (start, stop) => stop === start + 1 ? count(start) : `${count(start)} to ${count(stop - 1)}`;
  const pad = (number) => String(number).padStart(2, "0");
  const charts = [];
  let ink = {};

  function readInk() {
    const style = getComputedStyle(document.documentElement);
    for (const name of ["paper", "ink", "quiet", "rule", "dense", "sparse", "partly", "failed", "beyond", "hollow", "line", "line2", "pause", "focus"]) {
      ink[name] = style.getPropertyValue(`--${name}`).trim();
    }
    Chart.defaults.color = ink.quiet;
    Chart.defaults.borderColor = ink.rule;
    const tooltip = Chart.defaults.plugins.tooltip;
    tooltip.backgroundColor = ink.ink;
    tooltip.titleColor = tooltip.bodyColor = tooltip.footerColor = ink.paper;
  }

  function mixed(share) {
    const part = (text, at) => parseInt(text.slice(at, at + 2), 16);
    const channels = [1, 3, 5].map((at) => {
      const dense = part(ink.dense, at);
      return Math.round(dense + (part(ink.sparse, at) - dense) * share);
    });
    return `rgb(${channels.join(",")})`;
  }

  // A chart that arrow keys move through, and that says below itself what they have come to.
  function alive(canvas, config, said, say, columns) {
    config.options = Object.assign({ animation: false, responsive: true, maintainAspectRatio: false }, config.options);
    const speak = (index) => { byId(said).textContent = say(index); };
    config.options.onHover = (_event, items) => { if (items.length) { at = items[0].index; speak(at); } };
    const chart = new Chart(canvas, config);
    const length = () => config.data.datasets[0].data.length;
    let at = -1;
    const go = (index) => {
      if (!length()) return;
      at = Math.max(0, Math.min(length() - 1, index));
      const items = columns ? [{ datasetIndex: 0, index: at }]
        : chart.data.datasets.map((_, datasetIndex) => ({ datasetIndex, index: at }));
      const element = chart.getDatasetMeta(0).data[at];
      chart.setActiveElements(items);
      chart.tooltip.setActiveElements(items, element.getCenterPoint());
      chart.render();
      speak(at);
    };
    canvas.addEventListener("focus", () => { if (canvas.matches(":focus-visible")) go(Math.max(0, at)); });
    canvas.addEventListener("blur", () => {
      chart.setActiveElements([]);
      chart.tooltip.setActiveElements([], { x: 0, y: 0 });
      chart.render();
    });
    canvas.addEventListener("keydown", (event) => {
      const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -(columns || 1), ArrowDown: columns || 1, Home: -1e9, End: 1e9 };
      if (!(event.key in steps) || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      go(at + steps[event.key]);
    });
    charts.push(chart);
    return chart;
  }

  function sayCell(index) {
    const [start, stop, found, missing, failed, state] = data.cells[index];
    const parts = [[found, "found"], [missing, "missing"], [failed, "failed"], [stop - start - found - missing - failed, "not asked"]];
    const words = { settled: "settled", partly: "partly settled", failed: "some failed", not_asked: "not asked", beyond: "beyond the end" };
    const counts = parts.filter(([number]) => number).map(([number, word]) => `${count(number)} ${word}`).join(", ");
    return `${data.noun} ${range(start, stop)}: ${counts} (${words[data.states[state]]})`;
  }

  function colourOf(index) {
    const [, , found, missing, , state] = data.cells[index];
    const name = data.states[state];
    if (name === "settled") return mixed(Math.min(1, missing / (found + missing) / data.densest));
    return ink[name === "not_asked" ? "hollow" : name];
  }

  function drawMap() {
    const columns = data.columns, rows = Math.ceil(data.cells.length / columns);
    byId("map-box").style.height = `${rows * Math.max(12, Math.min(30, 560 / rows)) + 30}px`;
    const gap = columns > 20 ? 1 : 2;
    const size = (side, cells) => ({ chart }) => chart.chartArea ? Math.max(1, chart.chartArea[side] / cells - gap) : 1;
    const middle = (lines) => ({ callback: (value) => Number.isInteger(value) ? lines(value) : null, stepSize: 1, font: { size: 11 } });
    alive(byId("map"), {
      type: "matrix",
      data: { datasets: [{
        data: data.cells.map((_, index) => ({ x: index % columns, y: Math.floor(index / columns) })),
        backgroundColor: ({ dataIndex }) => colourOf(dataIndex),
        borderColor: ({ dataIndex }) => data.states[data.cells[dataIndex][5]] === "not_asked" ? ink.rule : "transparent",
        borderWidth: 1,
        borderRadius: columns > 20 ? 1 : 3,
        hoverBorderColor: () => ink.ink,
        hoverBorderWidth: 2,
        hoverBackgroundColor: ({ dataIndex }) => colourOf(dataIndex),
        width: size("width", columns), height: size("height", rows),
      }] },
      options: {
        scales: {
          x: { type: "linear", offset: false, min: -0.5, max: columns - 0.5, grid: { display: false }, border: { display: false }, position: "top",
            ticks: { ...middle((value) => value % (columns / 5) ? null : `+${count(value * data.rowSize / columns)}`), autoSkip: false, maxRotation: 0 },
            afterBuildTicks: (axis) => { axis.ticks = (axis.width < 480 ? [0, 2, 4] : [0, 1, 2, 3, 4]).map((part) => ({ value: part * columns / 5 })); } },
          y: { type: "linear", offset: false, reverse: true, min: -0.5, max: rows - 0.5, grid: { display: false }, border: { display: false },
            ticks: { ...middle((value) => count(data.base + value * data.rowSize)), autoSkip: true },
            afterBuildTicks: (axis) => { axis.ticks = Array.from({ length: rows }, (_, row) => ({ value: row })); } },
        },
        plugins: { legend: { display: false }, tooltip: { displayColors: false, callbacks: {
          title: (items) => items.length ? `${data.noun} ${range(...data.cells[items[0].dataIndex])}` : "",
          label: (item) => sayCell(item.dataIndex).split(": ")[1],
        } } },
      },
    }, "map-said", sayCell, columns);
  }

  function fill(table, heads, lines) {
    const row = (parent, cells, heading) => {
      const line = parent.insertRow();
      cells.forEach((text, at) => {
        const cell = document.createElement(heading || at === 0 ? "th" : "td");
        if (cell.tagName === "TH") cell.scope = heading ? "col" : "row";
        cell.textContent = text;
        line.append(cell);
      });
    };
    table.replaceChildren();
    row(table.createTHead(), heads, true);
    const body = table.createTBody();
    for (const line of lines) row(body, line, false);
  }

  const line = (label, values, colour, more) => Object.assign({
    label, data: values, borderColor: () => ink[colour], backgroundColor: () => ink[colour], borderWidth: 1.8,
    pointRadius: 0, pointHoverRadius: 4, pointHitRadius: 8, tension: 0,
  }, more);

  const axes = (xTitle, yTitle, xTick) => ({
    x: { type: "linear", title: { display: Boolean(xTitle), text: xTitle }, grid: { display: false }, ticks: { callback: xTick, maxRotation: 0, maxTicksLimit: 7 } },
    y: { type: "linear", beginAtZero: true, grace: "5%", title: { display: Boolean(yTitle), text: yTitle }, ticks: { maxTicksLimit: 6 } },
  });
  const along = { interaction: { mode: "index", intersect: false } };

  function when(seconds, isShort) {
    const time = new Date(seconds * 1000);
    const day = `${time.getUTCFullYear()}-${pad(time.getUTCMonth() + 1)}-${pad(time.getUTCDate())}`;
    const clock = `${pad(time.getUTCHours())}:${pad(time.getUTCMinutes())}`;
    if (isShort === "second") return `${clock}:${pad(time.getUTCSeconds())}`;
    return isShort === "day" ? day.slice(5) : isShort === "clock" ? clock : `${day} ${clock} UTC`;
  }

  function drawProgress() {
    const points = data.progress.map(([x, y]) => ({ x, y }));
    const now = points[points.length - 1];
    const span = now.x - points[0].x;
    const shown = data.end !== null && data.end - now.x < 20 * Math.max(span, 3600);
    const last = shown ? data.end : now.x;
    const long = last - points[0].x > 36 * 3600;
    const say = (index) => `${when(points[index].x)}: ${count(points[index].y)} settled`;
    const datasets = [line("settled", points, "line", { fill: { target: "origin", above: "transparent" }, pointRadius: 2 })];
    if (shown) datasets.push(line("forecast", [now, { x: data.end, y: data.wanted }], "line", { borderDash: [6, 5], pointRadius: 3 }));
    datasets.push(line("all", [{ x: points[0].x, y: data.wanted }, { x: last, y: data.wanted }], "beyond", { borderWidth: 1, borderDash: [2, 3], pointHitRadius: 0, pointHoverRadius: 0 }));
    alive(byId("progress"), { type: "line", data: { datasets }, options: {
      parsing: false, interaction: { mode: "nearest", axis: "x", intersect: false },
      scales: (() => {
        const both = axes("", "numbers settled", (value) => when(value, long ? "day" : last - points[0].x > 600 ? "clock" : "second"));
        both.x.min = points[0].x;
        both.x.max = last;
        both.y.max = 1.05 * Math.max(data.wanted, ...points.map((point) => point.y));
        both.y.ticks.includeBounds = false;
        if (long) both.x.afterBuildTicks = (axis) => {
          const step = 86400 * Math.max(1, Math.ceil((last - points[0].x) / 86400 / 8));
          axis.ticks = [];
          for (let day = Math.ceil(points[0].x / step) * step; day <= last; day += step) axis.ticks.push({ value: day });
        };
        return both;
      })(),
      plugins: { legend: { position: "bottom", labels: { boxHeight: 1, boxWidth: 24 } }, tooltip: { filter: (item) => item.dataset.label !== "all", callbacks: {
        title: (items) => items.length ? when(items[0].parsed.x) : "",
        label: (item) => `${count(item.parsed.y)} ${item.dataset.label}`,
      } } },
    } }, "progress-said", say);
    fill(byId("progress-table"), ["When", "Settled"], data.progress.map(([x, y]) => [when(x), count(y)]));
  }

  const limits = (limited) => limited === 1 ? "paused" : limited ? "slowed by the site" : "no";

  function drawRun(points) {
    const at = (column) => points.map((point) => ({ x: point[0], y: point[column] }));
    const say = (index) => {
      const [seconds, requests, found, missing, failed, retries, latency, limited] = points[index];
      const answer = latency === null ? "no answers" : `${latency} ms to an answer`;
      return `After ${seconds} s: ${requests} requests/s, ${found} found/s, ${missing} missing/s, ${failed} failed/s, ${retries} retries/s, ${answer}${limited ? `, ${limits(limited)}` : ""}`;
    };
    const seconds = (value) => `${value} s`;
    const title = { callbacks: { title: (items) => items.length ? `after ${items[0].parsed.x} s` : "" } };
    const base = () => ({ parsing: false, ...along, scales: axes("", "", seconds) });
    const last = points.length ? points[points.length - 1][0] : 1;
    const bounded = (options) => { options.scales.x.min = 0; options.scales.x.max = last; return options; };

    const rate = bounded(base());
    rate.scales.pause = { display: false, min: 0, max: 1 };
    rate.plugins = { legend: { display: false }, tooltip: { ...title, filter: (item) => item.datasetIndex < 1 } };
    const pauses = points.flatMap((point, index) => [{ x: index ? points[index - 1][0] : 0, y: point[7] }, { x: point[0], y: point[7] }]);
    alive(byId("rate"), { type: "line", data: { datasets: [
      line("requests/s", at(1), "line"),
      line("paused", pauses, "pause", { yAxisID: "pause", fill: "origin", borderWidth: 0, pointHitRadius: 0, pointHoverRadius: 0 }),
    ] }, options: rate }, "run-said", say);

    const latency = bounded(base());
    latency.plugins = { legend: { display: false }, tooltip: title };
    alive(byId("latency"), { type: "line", data: { datasets: [line("ms", at(6), "line2", { spanGaps: false })] }, options: latency }, "run-said", say);

    const outcomes = bounded(base());
    outcomes.scales.y.stacked = true;
    outcomes.plugins = { legend: { position: "bottom", labels: { boxWidth: 12, boxHeight: 12 } }, tooltip: title };
    alive(byId("outcomes"), { type: "line", data: { datasets: [
      line("found", at(2), "dense", { fill: "origin", borderWidth: 0 }), line("missing", at(3), "beyond", { fill: "-1", borderWidth: 0 }),
      line("failed", at(4), "failed", { fill: "-1", borderWidth: 0 }),
    ] }, options: outcomes }, "run-said", say);

    fill(byId("run-table"), ["Seconds", "Requests/s", "Found/s", "Missing/s", "Failed/s", "Retries/s", "ms to an answer", "Limited"],
      points.map((point) => point.map((value, at) => at === 7 ? limits(value) : value === null ? "none" : String(value))));
  }

  function showRun(index) {
    for (const id of ["rate", "latency", "outcomes"]) {
      const old = Chart.getChart(byId(id));
      if (!old) continue;
      charts.splice(charts.indexOf(old), 1);
      old.destroy();
      const canvas = byId(id);  // a new one: the old one's listeners belong to the old run
      canvas.replaceWith(canvas.cloneNode(false));
    }
    byId("run-said").textContent = "\u00a0";
    drawRun(data.runs[index]);
  }

  readInk();
  if (data.cells.length) drawMap();
  if (data.progress.length) drawProgress();
  if (data.runs.length) {
    showRun(Number(byId("which").value));
    byId("which").addEventListener("change", (event) => showRun(Number(event.target.value)));
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    readInk();
    for (const chart of charts) chart.update("none");
  });
  requestAnimationFrame(() => requestAnimationFrame(() => performance.mark("drawn")));
})();
