// Submits a film so that it is made only once: the same request with the same idempotency key until the farm has
// answered, across lost connections, double clicks and reloads.

import { useEffect, useRef, useState } from "../../vendor/htm-preact.js";
import { onceKey, post } from "../../api.js";
import { dropRequest, keepRequest, keptRequest } from "./browser_storage.js";

const FIRST_WAIT_S = 1;
const LONGEST_WAIT_S = 20;

/** How a film is submitted: {state, problem, send, stop, unanswered, ask, forget, recall}. `state` is "idle", "sending" or
 *  "waiting" (to try again, because of `problem`); `unanswered` is a request of an earlier visit, which `recall` looks up
 *  again. `onDone(job)`; `onRefused(ApiProblem)`. */
export function useSending({ name, path, onDone, onRefused }) {
  const [state, setState] = useState("idle");
  const [problem, setProblem] = useState(null);
  const [unanswered, setUnanswered] = useState(() => keptRequest(name));
  const under = useRef(null);
  useEffect(() => () => under.current?.abort(), []);

  const deliver = async (request) => {
    if (under.current) return;
    const ending = (under.current = new AbortController());
    keepRequest(name, request);
    setUnanswered(null);
    try {
      const job = await untilAnswered(request, ending.signal, (now, why) => (setState(now), setProblem(why)));
      dropRequest(name);
      onDone(job);
    } catch (refusal) {
      if (ending.signal.aborted) return;
      if (refusal.status < 500) dropRequest(name); // else it may have been made: a second try carries the same key
      onRefused(refusal);
    } finally {
      under.current = null;
      setState("idle");
      setProblem(null);
    }
  };
  return {
    state,
    problem,
    unanswered,
    send: (body) => deliver(asBefore(keptRequest(name), path, body) || { once: onceKey(), path, body }),
    ask: () => unanswered && deliver(unanswered),
    stop: () => (under.current?.abort(), setUnanswered(keptRequest(name))),
    forget: () => (dropRequest(name), setUnanswered(null)),
    recall: () => setUnanswered(keptRequest(name)),
  };
}

/** The unanswered request, if this is the same again. */
function asBefore(kept, path, body) {
  return kept && kept.path === path && JSON.stringify(kept.body) === JSON.stringify(body) ? kept : null;
}

async function untilAnswered({ once, path, body }, signal, tell) {
  for (let waitS = FIRST_WAIT_S; ; waitS = Math.min(2 * waitS, LONGEST_WAIT_S)) {
    tell("sending", null);
    try {
      return await post(path, body, { once, signal });
    } catch (problem) {
      if (signal.aborted || !mayPass(problem)) throw problem;
      tell("waiting", problem);
      await pause(1000 * Math.max(waitS, problem.retryAfterS), signal);
    }
  }
}

/** Whether the same request may be answered differently a little later. */
const mayPass = (problem) => problem.isUnreachable || problem.status === 429 || problem.code === "idempotency_busy";

function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => (clearTimeout(timer), reject(signal.reason)), { once: true });
  });
}
