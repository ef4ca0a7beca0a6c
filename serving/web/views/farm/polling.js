// Polls a path of the API while the page is visible. The last answer stays while the farm cannot be reached.

import { useRef, useState } from "../../vendor/htm-preact.js";
import { ApiProblem, get } from "../../api.js";
import { useEvery } from "../../components.js";

/** {data, problem, reload}: the last answer of `path`, and the problem of the last request, if any. */
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
