// Why films wait: the Director's explanations of the first few films in the list, polled.

import { useState } from "../../vendor/htm-preact.js";
import { useEvery } from "../../components.js";
import { tryGet } from "./polling.js";

const EVERY_MS = 10_000;
const MOST = 8;
/** Films that are explained without being asked for: each is a question to the Director. */

export const explainPath = (id) => `/v1/jobs/${encodeURIComponent(id)}/explain`;

/** {job id: explanation}. */
export function usePlaces(jobs) {
  const [places, setPlaces] = useState({});
  const waiting = jobs.filter((job) => job.status === "queued").slice(0, MOST);
  const ids = waiting.map((job) => job.id);
  const explain = async () => {
    const found = await Promise.all(ids.map(async (id) => [id, (await tryGet(explainPath(id))).data]));
    setPlaces((old) => Object.fromEntries(found.map(([id, said]) => [id, said || old[id]])));
  };
  useEvery(EVERY_MS, explain, [ids.join()], ids.length > 0);
  return places;
}
