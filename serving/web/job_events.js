// Follows a job by server-sent events without losing any: it reconnects with the id of the last event that it saw.
// EventSource cannot send a key in a header, so the stream is read with fetch.

import { createParser } from "./vendor/eventsource-parser.js";
import { ApiProblem, get, headers } from "./api.js";
import { isOver } from "./statuses.js";

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 15_000;
const SILENCE_MS = 60_000; // the API sends something every 15 s

/** Follow a job until it is over or `stop` is called, which this returns. `after`: the id of the last entry of its log that was
 *  seen; 0 asks for all of them, null only for those to come.
 *  onJob(job): the whole job, first and after every change; onChange(event): an entry of its log, each once, in order;
 *  onState("connecting" | "live" | "lost" | "over"): how the connection is; onProblem(ApiProblem): it will not be tried again. */
export function followJob(id, { after = null, onJob, onChange = () => {}, onState = () => {}, onProblem = () => {} }) {
  const ending = new AbortController();
  const seen = { lastId: after === null ? null : String(after) };
  follow(id, seen, { onJob, onChange, onState, onProblem }, ending.signal);
  return () => ending.abort();
}

async function follow(id, seen, handlers, signal) {
  let waitMs = FIRST_WAIT_MS;
  handlers.onState("connecting");
  while (!signal.aborted) {
    const began = Date.now();
    try {
      if (await readOnce(id, seen, handlers, signal)) {
        handlers.onState("over");
        return;
      }
      waitMs = FIRST_WAIT_MS; // the API ends long streams; that is not a failure
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof ApiProblem && error.status >= 400 && error.status < 500 && error.status !== 429) {
        handlers.onProblem(error);
        return;
      }
      if (Date.now() - began > SILENCE_MS) waitMs = FIRST_WAIT_MS;
      handlers.onState("lost");
    }
    await pause(waitMs * (0.7 + 0.6 * Math.random()), signal);
    waitMs = Math.min(2 * waitMs, LONGEST_WAIT_MS);
  }
}

/** Reads one stream to its end; true if nothing more will happen to the job. */
async function readOnce(id, seen, { onJob, onChange, onState }, signal) {
  const more = { Accept: "text/event-stream" };
  if (seen.lastId !== null) more["Last-Event-ID"] = seen.lastId;
  const silence = new AbortController();
  let timer = setTimeout(() => silence.abort(), SILENCE_MS);
  const cut = () => silence.abort(); // a browser that goes offline may leave an open stream silent
  addEventListener("offline", cut);
  try {
    const response = await fetch(`/v1/jobs/${encodeURIComponent(id)}/events`, {
      headers: headers(more),
      signal: AbortSignal.any([signal, silence.signal]),
      cache: "no-store",
      credentials: "omit",
    });
    if (response.status === 204) {
      onJob(await get(`/v1/jobs/${encodeURIComponent(id)}`, { signal }));
      return true;
    }
    if (!response.ok) throw new ApiProblem(response.status, await response.json().catch(() => ({})));
    onState("live");
    let last = null;
    const parser = createParser({
      onEvent(event) {
        const value = JSON.parse(event.data);
        if (event.event === "change") onChange(value);
        else onJob((last = value));
        if (event.id) seen.lastId = event.id;
      },
    });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { value, done } = await reader.read();
      clearTimeout(timer);
      if (done) break;
      timer = setTimeout(() => silence.abort(), SILENCE_MS);
      parser.feed(value);
    }
    return last !== null && isOver(last);
  } finally {
    clearTimeout(timer);
    removeEventListener("offline", cut);
  }
}

/** Wait; less if the browser comes online again before that. */
function pause(ms, signal) {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      removeEventListener("online", done);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    addEventListener("online", done);
    signal.addEventListener("abort", done);
  });
}
