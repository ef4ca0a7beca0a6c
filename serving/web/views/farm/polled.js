// Asks the farm the same thing again and again while the page is seen. What was there last stays while the farm is away.

import { useRef, useState } from "../../vendor/htm-preact.js";
import { ApiProblem, get } from "../../api.js";
import { useEvery } from "../../parts.js";

/** {data, problem, reload}: the last answer of `path`, and what was wrong with the last request, if anything. */
export function usePolled(path, everyMs, on = true) {
  const [state, setState] = useState({ data: null, problem: null });
  const asked = useRef(0);
  const load = async () => {
    const mine = ++asked.current;
    const found = await tryGet(path);
    if (mine === asked.current) setState(({ data }) => ({ data: found.data ?? data, problem: found.problem }));
  };
  useEvery(everyMs, load, [path], on);
  return { ...state, reload: load };
}

/** {data, problem}, one of them null. */
export async function tryGet(path) {
  try {
    return { data: await get(path), problem: null };
  } catch (problem) {
    if (!(problem instanceof ApiProblem)) throw problem;
    return { data: null, problem };
  }
}
