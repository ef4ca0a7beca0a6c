// What each card shows beside its shot: the problems that the farm found in it, and what its take costs.

import { useCallback, useMemo, useRef, useState } from "../../vendor/htm-preact.js";
import { takeStarts } from "./draft.js";
import { placeProblems } from "./problems.js";
import { takesOfCards } from "./quote.js";

const NONE = [];

/** {at, shots, wrong, touch, touchAll}. `problems` were found in the draft `of`. `at(place)`: the problems of a
 *  place; `shots`: for each card {problems, hasWrong, take, takeNumber, isStart, isCached}, the same object while its
 *  content is the same; `wrong`: how many problems are shown. An empty prompt is no problem before its field was left
 *  once (`touch(key)`) or the film was submitted (`touchAll`). */
export function useShots(draft, problems, of, quote) {
  const [touched, setTouched] = useState({ all: false, keys: new Set() });
  const touch = useCallback((key) => setTouched((now) => ({ ...now, keys: new Set([...now.keys, key]) })), []);
  const touchAll = useCallback(() => setTouched((now) => ({ ...now, all: true })), []);
  const isFair = (problem) => !isTooSoon(problem, of, draft, touched);
  const shown = useMemo(() => problems.filter(isFair), [problems, of, draft.cards, touched]);
  const places = useMemo(() => placeProblems(shown, of), [shown, of]);
  const kept = useRef(new Map());
  const shots = useMemo(() => describeShots(draft.cards, places, quote, kept), [draft.cards, places, quote]);
  return { at: (place) => places.get(place) || NONE, shots, wrong: shown.length, touch, touchAll };
}

function isTooSoon({ path }, of, { cards }, { all, keys }) {
  const index = /^shots\[(\d+)\]\.prompt$/.exec(path)?.[1];
  if (all || index === undefined) return false;
  const card = cards.find(({ key }) => key === of.cards[index]?.key);
  return Boolean(card) && !keys.has(card.key) && String(card.shot.prompt ?? "").trim() === "";
}

function describeShots(cards, places, quote, kept) {
  const starts = takeStarts(cards);
  const takes = takesOfCards(quote, cards);
  const problems = byCard(places);
  const made = new Map();
  let takeNumber = 0;
  const shots = cards.map(({ key }, index) => {
    const isStart = starts[index] === index;
    if (isStart) takeNumber++;
    const own = problems.get(key) || new Map();
    const take = takes[index];
    const now = { problems: own, hasWrong: own.size > 0, take, takeNumber, isStart, isCached: Boolean(take?.cached) };
    const text = JSON.stringify([[...own], take, takeNumber, isStart]);
    const before = kept.current.get(key);
    const entry = before?.text === text ? before : { text, now };
    made.set(key, entry);
    return entry.now;
  });
  kept.current = made;
  return shots;
}

/** Key of a card -> field -> problems; "" for the card as a whole. */
function byCard(places) {
  const cards = new Map();
  for (const [place, problems] of places) {
    const [first, key, field = ""] = place.split(".");
    if (first !== "shot") continue;
    const own = cards.get(Number(key)) || new Map();
    cards.set(Number(key), own.set(field, problems));
  }
  return cards;
}
