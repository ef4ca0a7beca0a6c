// Draws the visible part of the film's timeline on a canvas: ruler, a heat map for each take, chunks in flight,
// dissolves. It is given numbers and colours and keeps no state.

import { chunkBox, toColumns } from "./heat_map.js";
import { rulerStep, timecode } from "./layout.js";

export const RULER = 24;
export const LANE = 76;
const LANE_GAP = 8;
const CELL_LINES_FROM = 5; // pixels of a row or column above which lines between cells help

/** Colours that `paint` needs, by name; each is a token of render.css. */
export const TONES = ["heat-0", "heat-1", "heat-2", "heat-3", "heat-4", "heat-5", "done", "failed", "ink", "soft", "edge", "card"];

/** CSS pixels from the top of the canvas to the top of a lane. */
export const laneTop = (lane) => RULER + lane * (LANE + LANE_GAP);

/** Height of the canvas in CSS pixels. */
export const canvasHeight = (lanes) => laneTop(lanes - 1) + LANE + 2;

/** Draw the part of the film that begins `scroll` CSS pixels from its beginning and is `width` wide. scene:
 *  {layout, entries: Map(key -> timeline entry), scale: pixels per second, scroll, width, tones: {name: colour}}. */
export function paint(canvas, scene) {
  const ratio = globalThis.devicePixelRatio || 1;
  const height = canvasHeight(scene.layout.lanes);
  const [w, h] = [Math.round(scene.width * ratio), Math.round(height * ratio)];
  if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
  const pen = canvas.getContext("2d");
  pen.setTransform(1, 0, 0, 1, 0, 0);
  pen.clearRect(0, 0, w, h);
  const view = { ...scene, pen, ratio, right: w, toX: (s) => (s * scene.scale - scene.scroll) * ratio };
  paintRuler(view, height);
  for (const take of scene.layout.takes) {
    const [left, right] = [view.toX(take.from_s), view.toX(take.to_s)];
    if (right > 0 && left < w) paintTake(view, take, scene.entries.get(take.key), left, right);
  }
  scene.layout.takes.forEach((take, index) => paintDissolve(view, scene.layout.takes[index - 1], take));
}

function paintRuler({ pen, ratio, right, scale, scroll, width, layout, tones, toX }, height) {
  const step = rulerStep(scale);
  pen.fillStyle = tones.soft;
  pen.font = `${11 * ratio}px system-ui, sans-serif`;
  pen.textBaseline = "top";
  const first = Math.max(0, Math.floor(scroll / scale / step) * step);
  for (let at = first; at <= Math.min(layout.seconds, (scroll + width) / scale); at += step) {
    const x = Math.round(toX(at));
    const text = timecode(at, step < 1);
    pen.globalAlpha = 0.35;
    pen.fillRect(x, 0, Math.max(1, Math.round(ratio)), height * ratio);
    pen.globalAlpha = 1;
    if (x + pen.measureText(text).width + 5 * ratio < right) pen.fillText(text, x + 5 * ratio, 3 * ratio);
  }
}

function paintTake(view, take, entry, left, right) {
  const { pen, ratio, tones } = view;
  const [top, height] = [Math.round(laneTop(take.lane) * ratio), Math.round(LANE * ratio)];
  const [from, to] = [Math.round(left), Math.round(right)];
  pen.fillStyle = tones["heat-0"];
  pen.fillRect(from, top, to - from, height);
  if (entry) {
    const each = (right - left) / entry.latents;
    const place = { left, each, top, height, steps: entry.steps };
    paintCells(view, entry, place);
    paintLines(view, entry, place, to);
    for (const call of entry.in_flight) paintChunk(view, call, place);
  }
  for (const shot of take.shots.slice(1)) paintJoin(view, view.toX(shot.start_s), top, height);
  pen.strokeStyle = tones.card;
  pen.lineWidth = ratio;
  pen.strokeRect(from + ratio / 2, top, to - from - ratio, height);
}

function paintCells({ pen, ratio, tones, right }, entry, { left, each, top, height }) {
  const ramp = pen.createLinearGradient(0, top + height, 0, top);
  for (let stop = 1; stop <= 5; stop += 1) ramp.addColorStop((stop - 1) / 4, tones[`heat-${stop}`]);
  for (const column of toColumns(entry.reached, { left, each, clipLeft: 0, clipRight: right })) {
    const tall = Math.round((height * column.step) / entry.steps);
    pen.fillStyle = ramp;
    pen.fillRect(column.x, top + height - tall, column.width, tall);
    if (column.step < entry.steps) continue;
    pen.fillStyle = tones.done;
    pen.fillRect(column.x, top, column.width, Math.round(4 * ratio));
  }
}

/** Lines between cells, if cells are large enough to be told apart. */
function paintLines({ pen, ratio, tones, right }, entry, { left, each, top, height }, to) {
  const thin = Math.max(1, Math.round(ratio / 2));
  const row = height / entry.steps;
  pen.fillStyle = tones.card;
  pen.globalAlpha = 0.28;
  const [from, until] = [Math.max(0, Math.round(left)), Math.min(to, right)];
  if (row >= CELL_LINES_FROM * ratio) {
    for (let step = 1; step < entry.steps; step += 1) pen.fillRect(from, Math.round(top + step * row), until - from, thin);
  }
  pen.globalAlpha = 1;
  if (entry.draft_steps) { // what is below was the draft, what is above refines it
    pen.fillStyle = tones.soft;
    pen.fillRect(from, Math.round(top + height - entry.draft_steps * row), until - from, Math.round(2 * ratio));
    pen.fillStyle = tones.card;
  }
  pen.globalAlpha = 0.28;
  if (each >= CELL_LINES_FROM * ratio) {
    const first = Math.max(1, Math.floor(-left / each));
    for (let n = first; n < entry.latents && left + n * each < right; n += 1) {
      pen.fillRect(Math.round(left + n * each), top, thin, height);
    }
  }
  pen.globalAlpha = 1;
}

function paintChunk({ pen, ratio, tones }, call, place) {
  const box = chunkBox(call, { ...place, leastHeight: 7 * ratio });
  const border = 1.5 * ratio;
  pen.lineWidth = border + 2 * ratio;
  pen.strokeStyle = tones.card;
  pen.strokeRect(box.x, box.y, box.width, box.height);
  pen.lineWidth = border;
  pen.strokeStyle = call.try > 1 ? tones.failed : tones.ink;
  if (call.try > 1) pen.setLineDash([4 * ratio, 2 * ratio]);
  pen.strokeRect(box.x, box.y, box.width, box.height);
  pen.setLineDash([]);
}

/** A mark where one shot continues into the next without a cut. */
function paintJoin({ pen, ratio, tones }, x, top, height) {
  pen.setLineDash([3 * ratio, 3 * ratio]);
  pen.lineWidth = 1.5 * ratio;
  pen.strokeStyle = tones.ink;
  pen.globalAlpha = 0.6;
  line(pen, x, top, x, top + height);
  pen.setLineDash([]);
  pen.globalAlpha = 1;
}

/** One take fades out while the next fades in: a slope in each. */
function paintDissolve({ pen, ratio, tones, toX }, before, take) {
  if (!before || take.shots[0].transition !== "dissolve") return;
  const [from, to] = [toX(take.from_s), toX(before.to_s)];
  const height = LANE * ratio;
  for (const [colour, width] of [[tones.card, 4], [tones.ink, 1.75]]) {
    pen.strokeStyle = colour;
    pen.lineWidth = width * ratio;
    const [out, into] = [laneTop(before.lane) * ratio, laneTop(take.lane) * ratio];
    line(pen, from, out, to, out + height);
    line(pen, from, into + height, to, into);
  }
}

function line(pen, x0, y0, x1, y1) {
  pen.beginPath();
  pen.moveTo(x0, y0);
  pen.lineTo(x1, y1);
  pen.stroke();
}
