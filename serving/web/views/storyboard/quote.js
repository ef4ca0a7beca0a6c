// The quote of a storyboard while it is written: requested a moment after each edit, refreshed periodically, and never
// more often than the farm allows.

import { useEffect, useRef, useState } from "../../vendor/htm-preact.js";
import { post } from "../../api.js";
import { takeStarts } from "./draft.js";

const CALM_MS = 400; // since the last edit
const REFRESH_MS = 30_000; // finish times move while others render
const RETRY_MS = 3000;

/** {quote, problems, of, isPending, isCurrent, trouble}: the last quote and whether it is of the current draft, the
 *  problems that the farm found and the draft `of` which, and why the farm could not be asked. `path` is a check of the
 *  API, `body` is made of `draft`. */
export function useQuote(path, body, draft) {
  const unknown = { quote: null, problems: [], of: draft, isPending: true, isCurrent: false, trouble: null };
  const [state, setState] = useState(unknown);
  const notBeforeMs = useRef(0);
  const text = JSON.stringify(body);
  useEffect(() => {
    const ending = new AbortController();
    let timer = null;
    const later = (ms) => (timer = setTimeout(ask, Math.max(ms, notBeforeMs.current - Date.now())));
    async function ask() {
      if (document.hidden) return later(RETRY_MS);
      try {
        const answer = await post(path, JSON.parse(text), { signal: ending.signal });
        if (ending.signal.aborted) return undefined;
        setState((before) => afterAnswer(before, answer, draft));
        return answer.quote ? later(REFRESH_MS) : undefined;
      } catch (problem) {
        if (ending.signal.aborted) return undefined;
        setState((before) => ({ ...before, isPending: false, isCurrent: false, trouble: problem }));
        notBeforeMs.current = Date.now() + 1000 * (problem.retryAfterS || 0);
        return problem.isUnreachable || problem.status === 429 ? later(RETRY_MS) : undefined;
      }
    }
    setState((before) => ({ ...before, isPending: true, isCurrent: false }));
    later(CALM_MS);
    return () => (clearTimeout(timer), ending.abort());
  }, [path, text]);
  return state;
}

/** The quote stays until there is a newer one. */
function afterAnswer(before, { quote, problems }, draft) {
  const isCurrent = quote !== null;
  return { quote: quote ?? before.quote, problems, of: draft, isPending: false, isCurrent, trouble: null };
}

/** For each card, its take in the quote; null if the quote is of another storyboard. */
export function takesOfCards(quote, cards) {
  const starts = takeStarts(cards);
  const ids = new Map();
  starts.forEach((start, index) => ids.set(start, [...(ids.get(start) || []), cards[index].shot.id]));
  const byShots = new Map((quote?.takes || []).map((take) => [take.shots.join("\n"), take]));
  const takes = new Map([...ids].map(([start, names]) => [start, byShots.get(names.join("\n")) || null]));
  return starts.map((start) => takes.get(start));
}
