// The client of the farm's HTTP API. Keeps the API key (for this tab alone, never in a URL) and turns failures into errors
// that a view can show.

const KEY = "longtake.key";
const TIMEOUT_MS = 30_000;
const LINK_RENEWED_MS = 1_800_000; // half of the time for which the farm's links hold

/** A refusal of the API, or that it could not be reached (status 0). */
export class ApiProblem extends Error {
  constructor(status, document) {
    super(document.detail || document.title || String(status));
    this.status = status;
    this.code = document.code || "";
    /** [{path, message, value, nearest, line}] */
    this.problems = document.problems || [];
    /** Seconds after which the API asks to retry; 0 if it does not say. */
    this.retryAfterS = 0;
  }
  get isUnreachable() {
    return this.status === 0 || this.status >= 502;
  }
  get wantsKey() {
    return this.status === 401;
  }
}

export const keptKey = () => sessionStorage.getItem(KEY);

/** Keep a key while this tab is open; null forgets it. */
export function keepKey(key) {
  links.clear();
  if (key === null) sessionStorage.removeItem(KEY);
  else sessionStorage.setItem(KEY, key);
}

/** Headers of every request. */
export function headers(more = {}) {
  const key = keptKey();
  return key ? { ...more, Authorization: `Bearer ${key}` } : { ...more };
}

/** Send a request; resolves to the answer's JSON (null for 204). Throws ApiProblem.
 *  `body` is sent as JSON; `once` is an idempotency key; `signal` aborts (throws AbortError). */
export async function send(method, path, { body, once, signal } = {}) {
  const response = await open(method, path, { body, once, signal });
  return response.status === 204 ? null : response.json();
}

export const get = (path, options) => send("GET", path, options);
export const post = (path, body, options) => send("POST", path, { ...options, body });
export const patch = (path, body, options) => send("PATCH", path, { ...options, body });

/** An idempotency key: a request sent twice with it acts once. */
export const onceKey = () => `studio-${crypto.getRandomValues(new Uint32Array(4)).join("-")}`;

const PIECE_BYTES = 16 << 20; // what a farm takes at once

/** Send a file's bytes; a large one in pieces. Resolves to the answer's JSON. Throws ApiProblem. */
export async function sendFile(path, file) {
  if (file.size <= PIECE_BYTES) return (await open("POST", path, { content: file })).json();
  const digest = await crypto.subtle.digest("SHA-256", await file.arrayBuffer());
  const id = `sha256:${[...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
  let answer = null;
  for (let offset = 0; offset < file.size; offset += PIECE_BYTES) {
    const query = new URLSearchParams({ id, offset, total: file.size });
    answer = await open("POST", `${path}?${query}`, { content: file.slice(offset, offset + PIECE_BYTES) });
  }
  return answer.json();
}

const links = new Map(); // path -> {url: a promise, atMs: when it was asked for}

/** A URL by which an element of the page can load a film or picture. Behind a key that is a signed link, since an element
 *  cannot send the key; it holds long enough for what is loaded soon. Throws ApiProblem. */
export function mediaUrl(path) {
  if (!keptKey()) return Promise.resolve(path);
  const known = links.get(path);
  if (known && Date.now() - known.atMs < LINK_RENEWED_MS) return known.url;
  const url = get(`/v1/links?path=${encodeURIComponent(path)}`).then((link) => link.url);
  links.set(path, { url, atMs: Date.now() });
  url.catch(() => links.delete(path));
  return url;
}

/** The text of an answer. Throws ApiProblem. */
export async function fetchText(path, accept) {
  return (await open("GET", path, { accept })).text();
}

/** The bytes of an answer. Throws ApiProblem. */
export async function fetchBlob(path) {
  return (await open("GET", path, {})).blob();
}

async function open(method, path, { body, content, once, signal, accept }) {
  const more = {};
  if (content !== undefined) more["Content-Type"] = "application/octet-stream";
  if (body !== undefined) more["Content-Type"] = "application/json";
  if (once) more["Idempotency-Key"] = once;
  if (accept) more.Accept = accept;
  const limit = AbortSignal.timeout(TIMEOUT_MS);
  let response;
  try {
    response = await fetch(path, {
      method,
      headers: headers(more),
      body: content ?? JSON.stringify(body),
      signal: signal ? AbortSignal.any([signal, limit]) : limit,
      cache: "no-store",
      credentials: "omit",
      referrerPolicy: "no-referrer",
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiProblem(0, { detail: error.name === "TimeoutError" ? "timeout" : "unreachable" });
  }
  if (response.ok) return response;
  const document = await response.json().catch(() => ({ title: response.statusText }));
  const problem = new ApiProblem(response.status, document);
  problem.retryAfterS = Number(response.headers.get("Retry-After")) || 0;
  throw problem;
}
