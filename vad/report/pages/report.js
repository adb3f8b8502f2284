"use strict";
const { times, scores, weights, threshold, events } = JSON.parse(document.getElementById("data").textContent);
const chart = document.getElementById("chart");
const status = document.getElementById("status");
const video = document.querySelector("video");
const end = times[times.length - 1];
let now = 0;

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
const clock = (time) => `${Math.floor(time / 60)}:${String(Math.floor(time % 60)).padStart(2, "0")}`;
const steps = (values) => [...values, values[values.length - 1]]; // the last step has a width too

function trace(name, values, axis, style) {
  return { name, x: times, y: steps(values), yaxis: axis, mode: "lines",
    line: { shape: "hv", width: 2, ...style }, hovertemplate: "%{y:.3f}" };
}

function traces() {
  const drawn = [trace("anomaly score", scores, "y", { color: colour("fusion") })];
  for (const [stream, dash] of [["image", "solid"], ["event", "dash"]]) {
    if (weights[stream]) {
      drawn.push(trace("weight of " + stream, weights[stream], "y2", { color: colour(stream), dash }));
    }
  }
  return drawn;
}

function shapes() {
  const cursor = { type: "line", x0: now, x1: now, y0: 0, y1: 1, yref: "paper",
    line: { color: colour("text"), width: 2 } };
  const limit = { type: "line", x0: 0, x1: end, y0: threshold, y1: threshold,
    line: { color: colour("alarm"), width: 1, dash: "dot" } };
  const spans = events.map((event) => ({ type: "rect", x0: event.start, x1: event.end, y0: 0, y1: 1,
    yref: "paper", fillcolor: colour("alarm-fill"), line: { width: 0 }, layer: "below" }));
  return [cursor, limit, ...spans];
}

function layout() {
  const both = Object.keys(weights).length > 0;
  chart.classList.toggle("single", !both);
  const axis = { gridcolor: colour("line"), zeroline: false, linecolor: colour("line") };
  return {
    paper_bgcolor: colour("page"), plot_bgcolor: colour("page"), font: { color: colour("text"), size: 13 },
    margin: { l: 60, r: 15, t: 30, b: 45 }, hovermode: "x", hoverdistance: -1, dragmode: "zoom",
    legend: { orientation: "h", x: 0, y: 1.12 },
    xaxis: { ...axis, range: [0, end], title: { text: "time (s)" }, anchor: both ? "y2" : "y" },
    yaxis: { ...axis, domain: both ? [0.45, 1] : [0, 1], range: [-0.02, 1.02], title: { text: "score" },
      fixedrange: true },
    yaxis2: { ...axis, domain: [0, 0.35], title: { text: "weight" }, fixedrange: true },
    shapes: shapes(),
  };
}

function snippetAt(time) {
  const after = times.findIndex((start) => start > time);
  return Math.max(0, (after < 0 ? times.length - 1 : after) - 1);
}

function show(time) {
  now = time;
  const k = snippetAt(time);
  const shown = Object.entries(weights).map(([stream, values]) => `weight of ${stream} ${values[k].toFixed(3)}`);
  const minutes = end < 60 ? "" : ` (${clock(time)})`; // as the player counts
  status.textContent = [`${time.toFixed(1)} s${minutes}`, `score ${scores[k].toFixed(3)}`, ...shown].join(" · ");
  chart.setAttribute("aria-valuenow", time.toFixed(1));
  chart.setAttribute("aria-valuetext", status.textContent);
  Plotly.relayout(chart, { "shapes[0].x0": time, "shapes[0].x1": time });
  for (const button of document.querySelectorAll("#events button")) {
    button.setAttribute("aria-current", time >= +button.dataset.time && time < +button.dataset.end);
  }
}

function seek(time) {
  const target = Math.min(Math.max(time, 0), end);
  if (video) {
    video.currentTime = target;
  }
  show(target);
}

function seekEvent(direction) {
  const starts = events.map((event) => event.start);
  const next = direction > 0 ? starts.find((start) => start > now + 0.01)
    : starts.reverse().find((start) => start < now - 0.01);
  if (next !== undefined) {
    seek(next);
  }
}

const keys = {
  ArrowLeft: () => seek(times[Math.max(snippetAt(now) - 1, 0)]),
  ArrowRight: () => seek(times[Math.min(snippetAt(now) + 1, times.length - 2)]),
  PageUp: () => seekEvent(-1),
  PageDown: () => seekEvent(1),
  Home: () => seek(0),
  End: () => seek(times[times.length - 2]),
  " ": () => video && (video.paused ? video.play() : video.pause()),
};

Plotly.newPlot(chart, traces(), layout(), { responsive: true, displaylogo: false, displayModeBar: false });
chart.setAttribute("aria-valuemax", end.toFixed(1));
chart.on("plotly_click", (click) => seek(Math.min(click.points[0].x, times[times.length - 2])));
chart.addEventListener("keydown", (press) => {
  if (keys[press.key]) {
    press.preventDefault();
    keys[press.key]();
  }
});
for (const button of document.querySelectorAll("button[data-time]")) {
  button.addEventListener("click", () => seek(+button.dataset.time));
}
if (video) {
  for (const change of ["timeupdate", "seeked"]) {
    video.addEventListener(change, () => show(video.currentTime));
  }
}
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => Plotly.react(chart, traces(), layout()));
show(0);
