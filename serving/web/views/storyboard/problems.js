// Which part of the draft a problem reported by the farm belongs to, and its one-click fixes. Pure.

import {
  FILM_KEYS, OPTION_KEYS, SHOT_KEYS, VIDEO_KEYS, isMapping, namesIn, personOf, setFilm, setShot, setTransition,
} from "./draft.js";

/** The parts of a path as the farm writes it: `shots[2].seconds` is ["shots", 2, "seconds"]; null if it cannot be
 *  read. */
export function parsePath(path) {
  const parts = [];
  const piece = /\.?([A-Za-z_]\w*)|\[(\d+)\]|\['((?:[^'\\]|\\.)*)'\]|\["((?:[^"\\]|\\.)*)"\]/y;
  while (piece.lastIndex < path.length) {
    const at = piece.lastIndex;
    const found = piece.exec(path);
    if (!found || found.index !== at) return null;
    const quoted = found[3] ?? found[4];
    if (quoted !== undefined) parts.push(unquote(quoted));
    else parts.push(found[2] === undefined ? found[1] : Number(found[2]));
  }
  return parts;
}

const ESCAPES = { n: "\n", r: "\r", t: "\t" };

function unquote(text) {
  return text.replace(/\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8})|(.))/g, (_, x, u, long, one) => {
    const code = x || u || long;
    return code ? String.fromCodePoint(parseInt(code, 16)) : (ESCAPES[one] ?? one);
  });
}

/** The place beside which a problem is shown: "title", "video.width", "shot.2.prompt", "shot.2" for the card as a
 *  whole, "person.hero"; "" is the top of the page. */
export function placeOf(path, { people, cards }) {
  const [first, second, third, ...more] = parsePath(path) || [];
  if (second === undefined) return isField(first) ? first : "";
  if (first === "video" && VIDEO_KEYS.includes(second)) return `video.${second}`;
  if (first === "characters") return people.some(({ name }) => name === second) ? `person.${second}` : "";
  if (first !== "shots" || typeof second !== "number" || !cards[second]) return "";
  if (third === "transition") return `shot.${second}.${more[0] === "dissolve" ? "dissolve" : "transition"}`;
  return SHOT_KEYS.includes(third) ? `shot.${second}.${third}` : `shot.${second}`;
}

const isField = (key) =>
  (FILM_KEYS.includes(key) && key !== "version" && key !== "video") || OPTION_KEYS.includes(key) || key === "characters";

/** The problems by place, as `placeOf` has it, but cards by their keys ("shot.KEY.seconds"), so that they stay with a
 *  card that is moved. `draft` is the one that the farm found them in; a card's problem carries the card's `key`. */
export function placeProblems(problems, draft) {
  const places = new Map();
  for (const problem of problems) {
    const [first, index, ...field] = placeOf(problem.path, draft).split(".");
    const key = first === "shot" ? draft.cards[index].key : undefined;
    const parts = [first, key ?? index, ...field].filter((part) => part !== undefined);
    const place = parts.join(".");
    places.set(place, [...(places.get(place) || []), { ...problem, key }]);
  }
  return places;
}

/** The draft after accepting the farm's suggestion; null if that is not possible. */
export function takeNearest(draft, problem) {
  const { path, nearest, message } = problem;
  const parts = parsePath(path);
  if (!parts || !nearest) return null;
  const [first, , key] = parts;
  if (isUnknownKey(parts)) return renameKey(draft, parts, nearest, problem.key);
  if (first !== "shots") return parts.length === 1 ? setFilm(draft, first, nearest) : null;
  const card = cardOf(draft, parts, problem.key);
  if (!card) return null;
  if (key === "transition") return setTransition(draft, card.key, readTransition(nearest));
  if (key === "prompt") return setShot(draft, card.key, { prompt: renameIn(card.shot.prompt, draft, nearest, message) });
  return parts.length === 3 ? setShot(draft, card.key, { [key]: nearest }) : null;
}

/** Whether the problem is an unknown key. */
export const canDrop = ({ path }) => isUnknownKey(parsePath(path) || []);

/** The draft without a key that the farm does not know; null if the problem is another one. */
export function dropUnknown(draft, { path, key }) {
  const parts = parsePath(path);
  return parts && isUnknownKey(parts) ? renameKey(draft, parts, null, key) : null;
}

/** Whether the farm knows no such key. */
function isUnknownKey(parts) {
  const last = parts.at(-1);
  if (typeof last !== "string") return false;
  if (parts.length === 1) return ![...FILM_KEYS, "characters", "shots", ...OPTION_KEYS].includes(last);
  if (parts[0] === "video" && parts.length === 2) return !VIDEO_KEYS.includes(last);
  if (parts[0] !== "shots") return false;
  if (parts[2] === "transition" && parts.length === 4) return last !== "dissolve";
  return parts.length === 3 && !SHOT_KEYS.includes(last);
}

/** The card of a problem, wherever it has been moved. */
const cardOf = ({ cards }, [, index], key) =>
  key === undefined ? cards[index] : cards.find((card) => card.key === key);

function renameKey(draft, parts, name, key) {
  const [first, index, third] = parts;
  if (parts.length === 1) return renameFilmKey(draft, first, name);
  if (first === "video") return setFilm(draft, "video", renamed(draft.film.video, index, name));
  const card = cardOf(draft, parts, key);
  if (!card) return null;
  const shot = third === "transition" ? null : renamed(card.shot, third, name);
  const made = shot || { ...card.shot, transition: renamed(card.shot.transition, parts[3], name) };
  return { ...draft, cards: draft.cards.map((one) => (one === card ? { ...card, shot: made } : one)) };
}

function renameFilmKey(draft, key, name) {
  const value = draft.film[key];
  const film = renamed(draft.film, key, name);
  if (name !== "characters" || !isMapping(value)) return { ...draft, film };
  const { characters: _, ...rest } = film;
  const people = Object.entries(value).map(([who, said], at) => personOf(draft.next + at, who, said));
  return { ...draft, film: rest, people: [...draft.people, ...people], next: draft.next + people.length };
}

/** The mapping with one key renamed; removed if `name` is null, or taken already. */
function renamed(mapping, key, name) {
  if (!isMapping(mapping)) return mapping;
  const entries = Object.entries(mapping).filter(([one]) => one !== key || (name !== null && !(name in mapping)));
  return Object.fromEntries(entries.map(([one, value]) => [one === key ? name : one, value]));
}

function readTransition(text) {
  const dissolve = /^\{dissolve: ([\d.]+)\}$/.exec(text);
  return dissolve ? { dissolve: Number(dissolve[1]) } : text;
}

/** The prompt with the unknown name replaced by `nearest`. */
function renameIn(prompt, { people }, nearest, message) {
  const known = new Set(people.map(({ name }) => name));
  const unknown = [...new Set(namesIn(prompt))].filter((name) => !known.has(name));
  const meant = unknown.find((name) => message.includes(`'${name}'`)) ?? unknown[0];
  if (meant === undefined) return prompt;
  return prompt.replace(/\{\{|\}\}|\{([^{}]*)\}/g, (piece, name) => (name?.trim() === meant ? `{${nearest}}` : piece));
}
