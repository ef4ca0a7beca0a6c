// What stays in this browser: drafts, and a film that was sent but not answered yet. Storage may be full or
// forbidden: then nothing stays, and all else works.

const DRAFTS = "longtake.draft.";
const SENT = "longtake.sent.";
const OLDEST_DRAFT_MS = 60 * 86_400_000;
const OLDEST_SENT_MS = 23 * 3_600_000; // the farm remembers a request for a day

/** The draft under a name ("new", or the id of the job that it comes after); null where there is none. */
export function keptDraft(name) {
  const draft = read(DRAFTS + name)?.draft;
  const hasLists = Array.isArray(draft?.people) && Array.isArray(draft.cards);
  const isWhole = hasLists && draft.film && draft.options && draft.next >= 0;
  return isWhole ? draft : null; // an older page may have kept something else
}

export const keepDraft = (name, draft) => write(DRAFTS + name, { draft, atMs: Date.now() });

export const dropDraft = (name) => remove(DRAFTS + name);

/** A request {once, path, body} that was not answered; null where there is none that the farm still knows. */
export function keptRequest(name) {
  const kept = read(SENT + name);
  return kept && Date.now() - kept.atMs < OLDEST_SENT_MS ? kept : null;
}

export const keepRequest = (name, request) => write(SENT + name, { ...request, atMs: Date.now() });

export const dropRequest = (name) => remove(SENT + name);

/** Forget drafts that nobody came back to. */
export function dropOldDrafts() {
  for (const key of keys()) {
    if (key.startsWith(DRAFTS) && !(Date.now() - (read(key)?.atMs ?? 0) < OLDEST_DRAFT_MS)) remove(key);
  }
}

function keys() {
  try {
    return Object.keys(localStorage);
  } catch {
    return [];
  }
}

function read(key) {
  try {
    return JSON.parse(localStorage.getItem(key));
  } catch {
    return null;
  }
}

function write(key, value) {
  try {
    localStorage.setItem(key, JSON.stringify(value));
  } catch {
    // full, or forbidden
  }
}

function remove(key) {
  try {
    localStorage.removeItem(key);
  } catch {
    // forbidden
  }
}
