// What differs between two storyboards, shot by shot. Pure.

import { isMapping, tidy } from "./draft.js";

/** [{path, before, after}]. Shots are matched by id, so that an inserted one does not change all after it. A default
 *  value equals a missing one; a value that is missing on one side is undefined there. */
export function changesBetween(before, after) {
  return [...differences(byId(before), byId(after), "")];
}

function byId(storyboard) {
  const { shots = [], ...film } = tidy(storyboard);
  const ids = shots.map((shot) => String(shot.id));
  return { ...film, shots: new Map(shots.map((shot) => [String(shot.id), shot])), order: ids };
}

function* differences(before, after, path) {
  const { shots: old, order: oldOrder, ...oldFilm } = before;
  const { shots: now, order: nowOrder, ...nowFilm } = after;
  yield* compare(oldFilm, nowFilm, path);
  for (const id of new Set([...nowOrder, ...oldOrder])) {
    if (!old.has(id)) yield { path: id, shot: id, before: undefined, after: now.get(id) };
    else if (!now.has(id)) yield { path: id, shot: id, before: old.get(id), after: undefined };
    else for (const one of compare(old.get(id), now.get(id), "")) yield { ...one, path: `${id}.${one.path}`, shot: id };
  }
  if (idsIn(now, oldOrder) !== idsIn(old, nowOrder)) yield { path: "order", before: oldOrder, after: nowOrder };
}

/** The ids in `order` that are among these shots, joined. */
const idsIn = (shots, order) => order.filter((id) => shots.has(id)).join("\n");

function* compare(before, after, path) {
  if (isMapping(before) && isMapping(after)) {
    for (const key of new Set([...Object.keys(before), ...Object.keys(after)])) {
      yield* compare(before[key], after[key], path ? `${path}.${key}` : key);
    }
  } else if (JSON.stringify(before) !== JSON.stringify(after)) {
    yield { path, before, after };
  }
}
