// What this browser keeps: drafts, and submitted films that the farm has not answered yet. Every tab has its own, so that
// two tabs never overwrite each other. If storage is full or forbidden nothing is kept, and everything else works.

const DRAFTS = "longtake.draft.";
const SENT = "longtake.sent.";
const TAB = "longtake.tab";
const OLDEST_DRAFT_MS = 60 * 86_400_000;
const OLDEST_SENT_MS = 23 * 3_600_000; // the farm remembers a request for a day

let tab = null;

/** The id of this tab, the same after a reload. While the page is open it is not in sessionStorage, because a tab that is
 *  duplicated gets a copy of that. */
function tabId() {
  if (tab === null) {
    tab = attempt(() => sessionStorage.getItem(TAB)) ?? crypto.getRandomValues(new Uint32Array(2)).join("-");
    const hide = () => attempt(() => sessionStorage.removeItem(TAB));
    hide();
    addEventListener("pagehide", () => attempt(() => sessionStorage.setItem(TAB, tab)));
    addEventListener("pageshow", hide); // also if the page comes back from the cache of the browser
  }
  return tab;
}

const ofThisTab = (name) => `${name}.${tabId()}`;

/** This tab's draft of a film ("new", or the id of the job that it comes after); null if there is none. */
export const keptDraft = (name) => wholeDraft(read(DRAFTS + ofThisTab(name)));

export const keepDraft = (name, draft) => write(DRAFTS + ofThisTab(name), { draft, atMs: Date.now() });

export const dropDraft = (name) => remove(DRAFTS + ofThisTab(name));

/** Drafts of the same film that other tabs have left or have open: [{place, draft, atMs}], newest first. */
export function otherDrafts(name) {
  const places = keys().filter((key) => key === DRAFTS + name || key.startsWith(`${DRAFTS}${name}.`));
  return places
    .filter((place) => place !== DRAFTS + ofThisTab(name))
    .map((place) => ({ place, draft: wholeDraft(read(place)), atMs: read(place)?.atMs ?? 0 }))
    .filter(({ draft }) => draft)
    .toSorted((a, b) => b.atMs - a.atMs);
}

/** Make such a draft this tab's own, with a request of it that was not answered. */
export function takeDraft(name, { place, draft }) {
  const sentPlace = SENT + place.slice(DRAFTS.length);
  keepDraft(name, draft);
  if (read(sentPlace)) write(SENT + ofThisTab(name), read(sentPlace));
  remove(sentPlace);
  remove(place);
}

export const discardOtherDraft = ({ place }) => remove(place);

export const restoreOtherDraft = ({ place, draft, atMs }) => write(place, { draft, atMs });

/** A request {once, path, body} of this tab that was not answered; null if there is none that the farm still knows. */
export function keptRequest(name) {
  const kept = read(SENT + ofThisTab(name));
  return kept && Date.now() - kept.atMs < OLDEST_SENT_MS ? kept : null;
}

export const keepRequest = (name, request) => write(SENT + ofThisTab(name), { ...request, atMs: Date.now() });

export const dropRequest = (name) => remove(SENT + ofThisTab(name));

/** Drop what nobody has come back to. */
export function dropOldDrafts() {
  dropOlderThan(DRAFTS, OLDEST_DRAFT_MS);
  dropOlderThan(SENT, OLDEST_SENT_MS);
}

function dropOlderThan(prefix, oldestMs) {
  for (const key of keys()) {
    if (key.startsWith(prefix) && !(Date.now() - (read(key)?.atMs ?? 0) < oldestMs)) remove(key);
  }
}

/** The draft of a record; null for anything else, since an older page may have kept something else. */
function wholeDraft(record) {
  const draft = record?.draft;
  const hasLists = Array.isArray(draft?.people) && Array.isArray(draft.cards);
  return hasLists && draft.film && draft.options && draft.next >= 0 ? draft : null;
}

const keys = () => attempt(() => Object.keys(localStorage)) ?? [];

const read = (key) => attempt(() => JSON.parse(localStorage.getItem(key)));

const write = (key, value) => attempt(() => localStorage.setItem(key, JSON.stringify(value)));

const remove = (key) => attempt(() => localStorage.removeItem(key));

/** What `act` returns; null if storage is full or forbidden, or holds no JSON. */
function attempt(act) {
  try {
    return act();
  } catch {
    return null;
  }
}
