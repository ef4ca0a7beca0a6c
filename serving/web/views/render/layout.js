// Positions of a film's shots and takes on its time axis, as the farm's compiler computes them. Pure: no DOM, no clock.

/** Frames per second if neither storyboard nor model says. */
const USUAL_FPS = 16;

/** The film on one axis, in seconds. `storyboard` as the API has it, `fps` of the model if the storyboard names
 *  none. Shots: {id, prompt, start_s, stop_s, transition, dissolve_s, take}. Takes: {key, shots, start_s, stop_s,
 *  from_s, to_s, lane}: from cut to cut, and as rendered, with the handles that only dissolves show. Takes that
 *  overlap have lanes of their own. */
export function layOut(storyboard, fps) {
  const rate = storyboard.video?.fps || fps || USUAL_FPS;
  const shots = placeShots(storyboard.shots, rate);
  const takes = groupShots(shots).map((group, index, groups) =>
    placeTake(group, groups[index + 1]?.[0].dissolveFrames ?? 0, rate),
  );
  return { fps: rate, seconds: shots.length ? shots.at(-1).stop_s : 0, shots, takes, lanes: assignLanes(takes) };
}

/** Whole frames nearest to a length, halves up, at least one. */
const toFrames = (seconds, fps) => Math.max(1, Math.floor(seconds * fps + 0.5));

function placeShots(shots, fps) {
  let frame = 0;
  return shots.map((shot, index) => {
    const dissolve = shot.transition?.dissolve ?? 0;
    const start = frame;
    frame += toFrames(shot.seconds, fps);
    return {
      id: shot.id,
      prompt: shot.prompt,
      index,
      start_s: start / fps,
      stop_s: frame / fps,
      transition: dissolve ? "dissolve" : shot.transition || "cut",
      dissolve_s: dissolve,
      dissolveFrames: dissolve ? toFrames(dissolve, fps) : 0,
      take: "",
    };
  });
}

function groupShots(shots) {
  const groups = [];
  for (const shot of shots) {
    if (shot.transition === "continue" && groups.length) groups.at(-1).push(shot);
    else groups.push([shot]);
    shot.take = groups.at(-1)[0].id;
  }
  return groups;
}

/** A take with its handles: half of the dissolve that it begins with lies before its cut, half of the next one's
 *  after. */
function placeTake(group, dissolveAfter, fps) {
  const [start_s, stop_s] = [group[0].start_s, group.at(-1).stop_s];
  const from_s = start_s - Math.floor(group[0].dissolveFrames / 2) / fps;
  const to_s = stop_s + (dissolveAfter - Math.floor(dissolveAfter / 2)) / fps;
  return { key: group[0].id, shots: group, start_s, stop_s, from_s, to_s, lane: 0 };
}

/** Gives each take the first lane in which it overlaps no other; returns how many lanes there are. */
function assignLanes(takes) {
  const ends = [];
  for (const take of takes) {
    const free = ends.findIndex((end) => end <= take.from_s + 1e-6);
    take.lane = free < 0 ? ends.length : free;
    ends[take.lane] = take.to_s;
  }
  return Math.max(1, ends.length);
}

const STEPS_S = [0.25, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600];

/** Seconds between two marks of the ruler, so that they are at least `least` pixels apart. */
export const rulerStep = (pixelsPerSecond, least = 70) =>
  STEPS_S.find((step) => step * pixelsPerSecond >= least) ?? STEPS_S.at(-1);

/** Seconds of a film as "0:07" or "1:02:30"; with a tenth if marks are closer than a second. */
export function timecode(seconds, fine = false) {
  const whole = Math.floor(seconds + 1e-6);
  const parts = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60), whole % 60];
  const shown = parts[0] ? parts : parts.slice(1);
  const text = shown.map((part, index) => (index ? String(part).padStart(2, "0") : part)).join(":");
  return fine ? `${text}.${String(Math.floor((seconds - whole) * 100 + 0.5)).padStart(2, "0")}` : text;
}

/** Pixels per second at which the whole film fits, but no shot of usual length gets narrower than `leastShot`
 *  pixels. */
export function fittingScale(layout, width, leastShot = 26) {
  if (!layout.seconds) return 1;
  const lengths = layout.shots.map((shot) => shot.stop_s - shot.start_s).toSorted((a, b) => a - b);
  const middle = lengths[Math.floor(lengths.length / 2)];
  return Math.max(width / layout.seconds, leastShot / middle);
}

/** Which shots have room for their name: Map of id to the pixels it may take. A name may extend over shots without
 *  one. */
export function placeNames(shots, scale, pixelsPerLetter = 8) {
  const named = [];
  let until = 0;
  for (const shot of shots) {
    const start = shot.start_s * scale;
    if (start < until) continue;
    until = start + Math.min(160, 22 + shot.id.length * pixelsPerLetter);
    named.push(shot);
  }
  const end = shots.length ? shots.at(-1).stop_s : 0;
  return new Map(named.map((shot, index) => [shot.id, ((named[index + 1]?.start_s ?? end) - shot.start_s) * scale]));
}
