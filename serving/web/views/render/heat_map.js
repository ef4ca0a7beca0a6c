// The heat map of a take as numbers: which latents have reached which step, in columns of whole pixels, and its sums.
// Pure: no DOM, no clock.

import { isLive } from "../../statuses.js";

/** Timeline entries of a job's takes: those that the farm reports, else derived from the job's counts. */
export function timelineOf(timeline, job, steps) {
  const told = new Map((timeline?.takes ?? []).map((take) => [take.key, take]));
  return new Map(job.takes.map((take) => [take.key, newer(told.get(take.key), take, steps)]));
}

/** A take that is done has all its steps, whatever was reported a moment before. */
function newer(told, take, steps) {
  const isDone = take.status === "decoded" || take.status === "rendered";
  if (told && !isDone) return told;
  const counted = take.step_counts.length - 1; // below 1 before the take was opened
  const all = told?.steps ?? (counted > 0 ? counted : steps);
  if (!isDone) return fromCounts(take, all);
  const reached = [[all, take.latents]];
  const { key, latents, retries } = take;
  return { key, latents, steps: all, reached, exact: true, in_flight: [], retries };
}

/** An entry from counts alone: the furthest latents first, since takes are rendered from their beginning. */
export function fromCounts(take, steps) {
  const counts = take.step_counts;
  const reached = counts.map((count, step) => [step, count]).filter(([, count]) => count > 0).toReversed();
  return {
    key: take.key,
    latents: take.latents,
    steps,
    reached: reached.length ? reached : [[0, take.latents]],
    exact: reached.length < 2,
    in_flight: [],
    retries: take.retries,
  };
}

/** Columns [{x, width, step}] of whole pixels for runs [[step, length], ...], where latent n begins at left + n * each.
 *  Latents that share a pixel show the lowest step. Only columns in [clipLeft, clipRight) are made. */
export function toColumns(runs, { left, each, clipLeft, clipRight }) {
  const columns = [];
  const add = (from, to, step) => {
    const last = columns.at(-1);
    if (to <= from) return;
    if (last?.step === step && last.x + last.width === from) last.width += to - from;
    else columns.push({ x: from, width: to - from, step });
  };
  const clip = (x) => Math.min(Math.max(Math.round(x), Math.floor(clipLeft)), Math.ceil(clipRight));
  if (each >= 1) addRuns(runs, (latent) => clip(left + latent * each), add);
  else addPixels(runs, { left, each, from: clip(left), to: clip(left + countLatents(runs) * each) }, add);
  return columns;
}

const countLatents = (runs) => runs.reduce((sum, [, length]) => sum + length, 0);

function addRuns(runs, toX, add) {
  let latent = 0;
  for (const [step, length] of runs) {
    add(toX(latent), toX(latent + length), step);
    latent += length;
  }
}

/** If several latents share a pixel: pixel by pixel, walking along the runs. */
function addPixels(runs, { left, each, from, to }, add) {
  const last = countLatents(runs) - 1;
  let [run, begin] = [0, 0]; // the run that the pixel begins in, and its first latent
  for (let x = from; x < to; x += 1) {
    const first = Math.min(Math.max(Math.floor((x - left) / each), 0), last);
    const stop = Math.min(Math.max(Math.ceil((x + 1 - left) / each), first + 1), last + 1);
    while (begin + runs[run][1] <= first) begin += runs[run++][1];
    let step = runs[run][0];
    for (let [at, r] = [begin + runs[run][1], run + 1]; at < stop; at += runs[r++][1]) step = Math.min(step, runs[r][0]);
    add(x, x + 1, step);
  }
}

/** Where a chunk in flight is drawn, in pixels: its latents, and the row of its step, the first step at the bottom. */
export function chunkBox(call, { left, each, top, height, steps, leastHeight = 5 }) {
  const row = height / steps;
  const tall = Math.max(row, leastHeight);
  const middle = top + height - (call.step + 0.5) * row;
  const y = Math.min(Math.max(middle - tall / 2, top), top + height - tall);
  return { x: left + call.start * each, y, width: (call.stop - call.start) * each, height: tall };
}

/** Sums over a take's latents. */
export function sumUp(entry) {
  let [finished, done, least, most] = [0, 0, entry.steps, 0];
  for (const [step, length] of entry.reached) {
    if (step >= entry.steps) finished += length;
    done += step * length;
    least = Math.min(least, step);
    most = Math.max(most, step);
  }
  const all = entry.latents * entry.steps;
  const { latents, steps } = entry;
  return { finished, latents, steps, least, most, share: all ? done / all : 0, inFlight: entry.in_flight.length };
}

/** Finished latents, and all latents, of the part [start, stop) of a take; both are shares from 0 to 1. */
export function sumUpPart(entry, start, stop) {
  const [first, last] = [Math.floor(start * entry.latents), Math.max(Math.ceil(stop * entry.latents), 1)];
  let [at, finished] = [0, 0];
  for (const [step, length] of entry.reached) {
    const [from, to] = [Math.max(at, first), Math.min(at + length, last)];
    if (step >= entry.steps && to > from) finished += to - from;
    at += length;
  }
  return { finished, latents: Math.min(last, entry.latents) - first };
}

/** The step that a latent has reached. */
export function stepOf(entry, latent) {
  let at = 0;
  for (const [step, length] of entry.reached) {
    at += length;
    if (latent < at) return step;
  }
  return 0;
}

/** The state that a take is shown in, and the key of its words: if its job has stopped, so has an unfinished take. */
export function stateOf(job, take) {
  const hasStopped = !isLive(job) && ["waiting", "rendering"].includes(take.status);
  return hasStopped ? [job.status, `status.${job.status}`] : [take.status, `take.${take.status}`];
}
