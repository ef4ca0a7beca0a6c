// A storyboard that is being written, and every edit of it as a pure function. Knows nothing of the page or the farm.
//
// A draft is {film, people, cards, options, next}. `film` is the storyboard without shots and characters, and may
// hold unknown keys, as they were imported. A person is {key, name, text, more}, a card {key, shot}: their keys never
// change. `more` holds what a character has beside its text: {images, as}.
// What cannot be read as a number is kept as it was typed, so that the farm can say what is wrong.

export const FILM_KEYS = ["version", "title", "model", "seed", "video", "quality", "style", "negative", "stitching", "identity"];
export const SHOT_KEYS = [
  "id", "prompt", "seconds", "transition", "image", "last_image", "keyframes", "seed", "negative",
];
export const VIDEO_KEYS = ["width", "height", "fps", "fit", "background"];
export const OPTION_KEYS = ["priority", "due_at", "budget_usd", "pool"];

const MAX_ID_CHARS = 64;
const DEFAULTS = {
  title: "Untitled", model: "pocket", seed: 0, quality: "standard", style: "", negative: "", identity: 0,
};
const NO_OPTIONS = { priority: undefined, due: "", budget: undefined, pool: "" };

export const isMapping = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

/** A new film: one shot with an empty prompt. */
export function blankDraft() {
  return draftOf({ version: 1, title: "", model: "pocket", shots: [{ id: "shot-1", prompt: "", seconds: 4 }] });
}

/** The draft of a storyboard, whatever is wrong with it. `shots` must be a list of mappings: see `shapeProblem`. Keys
 *  count from `first`, so that none repeats one of the previous draft. */
export function draftOf(storyboard, options = {}, first = 0) {
  const { shots = [], characters, ...film } = storyboard;
  const people = isMapping(characters) ? Object.entries(characters) : [];
  if (characters !== undefined && !isMapping(characters)) film.characters = characters;
  const names = people.map(([name, value], index) => personOf(first + index, name, value));
  const second = first + people.length;
  const cards = shots.map((shot, index) => ({ key: second + index, shot: named(shot, index) }));
  return { film, people: names, cards, options: { ...NO_OPTIONS, ...options }, next: second + cards.length };
}

/** A character as it is edited. */
export function personOf(key, name, value) {
  if (!isMapping(value)) return { key, name, text: value };
  const { text = "", ...more } = value;
  return { key, name, text, more };
}

/** What keeps a value from being a storyboard that can be edited as cards: "root", "shots", "shot" with its place, or
 *  null. */
export function shapeProblem(value) {
  if (!isMapping(value)) return { kind: "root" };
  if (value.shots !== undefined && !Array.isArray(value.shots)) return { kind: "shots" };
  const wrong = (value.shots || []).findIndex((shot) => !isMapping(shot));
  return wrong < 0 ? null : { kind: "shot", index: wrong };
}

/** The storyboard as the API takes it. */
export function storyboardOf({ film, people, cards }) {
  const described = people.filter(({ name, text, more }) => name !== "" || text !== "" || more);
  const characters = Object.fromEntries(described.map(({ name, text, more }) => [name, more ? { text, ...more } : text]));
  return {
    ...film,
    ...(described.length ? { characters } : {}),
    shots: cards.map(({ shot }) => shot),
  };
}

const list = (value, change) => (Array.isArray(value) ? value.map(change) : value);

/** The same storyboard with each of its pictures replaced by what `change` makes of it. */
export function mapPictures(storyboard, change) {
  const each = (mapping, key) => (mapping[key] === undefined || mapping[key] === null ? {} : { [key]: change(mapping[key]) });
  const shot = (one) => {
    if (!isMapping(one)) return one;
    const keyframes = list(one.keyframes, (frame) => (isMapping(frame) ? { ...frame, ...each(frame, "image") } : frame));
    return { ...one, ...each(one, "image"), ...each(one, "last_image"), ...(keyframes === undefined ? {} : { keyframes }) };
  };
  const person = (one) => (isMapping(one) && one.images ? { ...one, images: list(one.images, change) } : one);
  const { characters, shots } = storyboard;
  const people = isMapping(characters)
    ? { characters: Object.fromEntries(Object.entries(characters).map(([name, one]) => [name, person(one)])) }
    : {};
  return { ...storyboard, ...people, ...(shots === undefined ? {} : { shots: list(shots, shot) }) };
}

/** The same storyboard without its default values, in the order in which people write it. Ids are always written. */
export function tidy(storyboard) {
  const { shots = [], characters, video, ...film } = storyboard;
  const kept = {};
  for (const key of FILM_KEYS) {
    if (key === "video") {
      const said = isMapping(video) ? withoutEmpty(video) : video;
      if (said !== undefined && !(isMapping(said) && !Object.keys(said).length)) kept.video = said;
    } else if (film[key] !== undefined && film[key] !== DEFAULTS[key]) {
      kept[key] = film[key];
    }
  }
  for (const key of Object.keys(film)) if (!FILM_KEYS.includes(key)) kept[key] = film[key];
  const isEmpty = isMapping(characters) && !Object.keys(characters).length;
  if (characters !== undefined && !isEmpty) kept.characters = characters;
  return { ...kept, shots: shots.map(tidyShot) };
}

function tidyShot(shot) {
  if (!isMapping(shot)) return shot;
  const { transition, ...rest } = withoutEmpty(shot);
  const known = SHOT_KEYS.filter((key) => key in rest || (key === "transition" && transition !== undefined));
  const keys = [...known, ...Object.keys(rest).filter((key) => !SHOT_KEYS.includes(key))];
  const kept = keys.map((key) => [key, key === "transition" ? transition : rest[key]]);
  return Object.fromEntries(kept.filter(([key, value]) => !(key === "transition" && value === "cut")));
}

const withoutEmpty = (mapping) =>
  Object.fromEntries(Object.entries(mapping).filter(([, value]) => value !== undefined && value !== null));

/** Whether it holds nothing that a person would miss. */
export function isBlank({ film, people, cards }) {
  return !film.title && !people.length && !film.style && cards.every(({ shot }) => !String(shot.prompt ?? "").trim());
}

// ---- the film

export const setFilm = (draft, key, value) => ({ ...draft, film: withValue(draft.film, key, value) });

export function setVideo(draft, key, value) {
  const video = withValue(isMapping(draft.film.video) ? draft.film.video : {}, key, value);
  return setFilm(draft, "video", Object.keys(video).length ? video : undefined);
}

export const setOption = (draft, key, value) => ({ ...draft, options: { ...draft.options, [key]: value } });

function withValue(mapping, key, value) {
  if (value !== undefined) return { ...mapping, [key]: value };
  const { [key]: _, ...rest } = mapping;
  return rest;
}

/** What is sent beside the storyboard. A new version sends null for what it does not want, since whatever is left out
 *  is inherited. */
export function optionsOf({ options }, isVersion = false) {
  const due = options.due ? new Date(options.due).getTime() / 1000 : undefined;
  const told = { priority: options.priority, due_at: due, budget_usd: options.budget };
  const said = Object.entries(told).filter(([, value]) => value !== undefined);
  const silent = isVersion ? Object.keys(told).map((key) => [key, null]) : [];
  return { ...Object.fromEntries([...silent, ...said]), ...(options.pool ? { pool: options.pool } : {}) };
}

/** Unix seconds as the value of a datetime-local field: local time, to the minute. */
export function localTime(unixS) {
  const date = new Date(unixS * 1000 - new Date(unixS * 1000).getTimezoneOffset() * 60_000);
  return date.toISOString().slice(0, 16);
}

// ---- characters

export const addPerson = (draft) => ({
  ...draft,
  people: [...draft.people, { key: draft.next, name: "", text: "" }],
  film: withValue(draft.film, "characters", undefined),
  next: draft.next + 1,
});

export const setPerson = (draft, key, change) => ({
  ...draft,
  people: draft.people.map((person) => (person.key === key ? { ...person, ...change } : person)),
});

export const deletePerson = (draft, key) => ({ ...draft, people: draft.people.filter((person) => person.key !== key) });

/** Names that two characters share; the later one would silently win. */
export function sharedNames(people) {
  const names = people.map(({ name }) => name).filter(Boolean);
  return new Set(names.filter((name, index) => names.indexOf(name) !== index));
}

// ---- shots

/** A shot without an id gets the one that the farm would give it by its position, so that its noise is the same. */
function named(shot, index) {
  const hasId = shot.id !== undefined && shot.id !== null && shot.id !== "";
  return hasId ? shot : { ...shot, id: `shot-${index + 1}` };
}

/** An id that no shot has: `shot-7`, or `wanted-2` if a shot is copied. */
function freshId(cards, wanted = "shot") {
  const taken = new Set(cards.map(({ shot }) => shot.id));
  const stem = String(wanted).replace(/-\d+$/, "").slice(0, MAX_ID_CHARS - 6) || "shot";
  let n = wanted === "shot" ? Math.max(1, cards.length) : 2;
  while (taken.has(`${stem}-${n}`)) n++;
  return `${stem}-${n}`;
}

export function setShot(draft, key, change) {
  const changed = (shot) => Object.entries(change).reduce((made, [name, value]) => withValue(made, name, value), shot);
  const cards = draft.cards.map((card) => (card.key === key ? { ...card, shot: changed(card.shot) } : card));
  return { ...draft, cards };
}

/** How a shot begins. One that continues shares the noise of the shot before, so it has no seed. */
export function setTransition(draft, key, transition) {
  const change = { transition: transition === "cut" ? undefined : transition };
  return setShot(draft, key, transition === "continue" ? { ...change, seed: undefined } : change);
}

/** Adds a shot with an empty prompt after the one at `index`; -1 puts it first. */
export function addShot(draft, index) {
  const shot = { id: freshId(draft.cards), prompt: "", seconds: 4 };
  return insert(draft, index + 1, shot);
}

/** Duplicates a shot, right after itself. */
export function copyShot(draft, index) {
  const { shot } = draft.cards[index];
  return insert(draft, index + 1, { ...shot, id: freshId(draft.cards, shot.id) });
}

export const deleteShot = (draft, index) =>
  startsWithCut({ ...draft, cards: draft.cards.filter((_, at) => at !== index) });

/** Moves the shot at `from` to `to`. */
export function moveShot(draft, from, to) {
  const cards = [...draft.cards];
  const [card] = cards.splice(from, 1);
  cards.splice(Math.max(0, Math.min(to, cards.length)), 0, card);
  return startsWithCut({ ...draft, cards });
}

function insert(draft, at, shot) {
  const cards = [...draft.cards];
  cards.splice(at, 0, { key: draft.next, shot });
  return startsWithCut({ ...draft, cards, next: draft.next + 1 });
}

/** The first shot has nothing to continue or dissolve from. */
function startsWithCut(draft) {
  const first = draft.cards[0];
  return first && first.shot.transition ? setTransition(draft, first.key, "cut") : draft;
}

/** "cut", "continue", "dissolve", or "other" for what is none of them. */
export function transitionKind(shot) {
  const value = shot.transition ?? "cut";
  if (value === "cut" || value === "continue") return value;
  return isMapping(value) && "dissolve" in value ? "dissolve" : "other";
}

/** For each card, the index of the first card of its take. */
export function takeStarts(cards) {
  let start = 0;
  return cards.map(({ shot }, index) => (start = index > 0 && transitionKind(shot) === "continue" ? start : index));
}

/** Whole frames nearest to a length, rounded as the farm does; null if it is no length. */
export function framesOf(seconds, fps) {
  const isLength = typeof seconds === "number" && seconds > 0 && Number.isFinite(seconds);
  return isLength && fps ? Math.max(1, Math.floor(seconds * fps + 0.5)) : null;
}

/** Frames over which the shot fades in; 0 if it does not. */
export const dissolveFrames = (shot, fps) =>
  transitionKind(shot) === "dissolve" ? framesOf(shot.transition.dissolve, fps) || 0 : 0;

/** Names in braces that a prompt uses, ignoring doubled braces. */
export function namesIn(prompt) {
  const pieces = String(prompt ?? "").matchAll(/\{\{|\}\}|\{([^{}]*)\}/g);
  return [...pieces].filter((piece) => piece[1] !== undefined).map((piece) => piece[1].trim());
}

/** The text with `{name}` in place of the selection, and the new position of the caret. */
export function insertName(text, name, start, end) {
  const before = text.slice(0, start);
  const after = text.slice(end);
  const gap = before && !/[\s({"'-]$/.test(before) ? " " : "";
  const put = `${gap}{${name}}`;
  return { text: before + put + after, caret: before.length + put.length };
}
