// The logic of the list of films: filters and their address, which rows keep their places when the list is refreshed,
// which actions a film allows. No DOM.

import { actionsOf, isLive, listStatuses } from "../../statuses.js";

const PAGE = 25;

export const PRIORITY_STEP = 10;
const HIGHEST_PRIORITY = 100;

const NO_FILTERS = { status: [], tag: [], family: null, tenant: null };

/** The filters in an address such as "#/films?status=queued&tag=project=demo"; unknown ones are dropped. */
export function readFilters(hash) {
  const given = new URLSearchParams(hash.split("?")[1] || "");
  return {
    status: given.getAll("status").filter((state) => listStatuses().includes(state)),
    tag: given.getAll("tag").filter((tag) => tag.includes("=")),
    family: given.get("family"),
    tenant: given.get("tenant"),
  };
}

/** The address of these filters. */
export function writeFilters(filters) {
  const query = toQuery(filters).toString();
  return query ? `#/films?${query}` : "#/films";
}

/** The path of a page of the list. `after` is the last id of the page before, null for the first. */
export function listPath(filters, after) {
  const query = toQuery(filters);
  query.set("limit", PAGE);
  query.set("counts", "true");
  if (after) query.set("after", after);
  return `/v1/jobs?${query}`;
}

function toQuery({ status, tag, family, tenant }) {
  const query = new URLSearchParams();
  for (const state of status) query.append("status", state);
  for (const one of tag) query.append("tag", one);
  if (family) query.set("family", family);
  if (tenant) query.set("tenant", tenant);
  return query;
}

export const isFiltered = (filters) => writeFilters(filters) !== writeFilters(NO_FILTERS);

export const withoutFilters = () => NO_FILTERS;

/** The filters with a state or tag added, or removed if it was there. */
export function toggle(filters, kind, value) {
  const had = filters[kind];
  return { ...filters, [kind]: had.includes(value) ? had.filter((one) => one !== value) : [...had, value] };
}

/** The rows after the page was loaded again: {rows, fresh}. Rows keep their places. Rows that newer films have pushed off
 *  the page stay; rows that should still be on it and are not, go. `fresh` counts films that belong above or between the
 *  rows: they wait, so that nothing moves under a pointer. */
export function mergePage(shown, answer) {
  if (!shown.length) return { rows: answer.data, fresh: 0 };
  const latest = new Map(answer.data.map((job) => [job.id, job]));
  const known = new Set(shown.map((job) => job.id));
  const lastKnown = answer.data.findLastIndex((job) => known.has(job.id));
  if (lastKnown < 0 && !answer.has_more) return { rows: answer.data, fresh: 0 };
  const end = shown.findLastIndex((job) => latest.has(job.id));
  const kept = shown.filter((job, index) => latest.has(job.id) || (answer.has_more && index > end));
  const isPushed = kept.at(-1)?.id !== answer.data[lastKnown]?.id;
  const below = isPushed ? [] : answer.data.slice(lastKnown + 1);
  const rows = [...kept.map((job) => latest.get(job.id) || job), ...below];
  const present = new Set(rows.map((job) => job.id));
  return { rows, fresh: answer.data.filter((job) => !present.has(job.id)).length };
}

/** What a person may do with a film in its state. */
export const allowedActions = (job) => [
  ...(isLive(job) && job.priority < HIGHEST_PRIORITY ? ["raise"] : []),
  ...actionsOf(job),
];

export const raised = (priority) => Math.min(HIGHEST_PRIORITY, priority + PRIORITY_STEP);

/** How many takes can be watched, and how many there are. */
export function countTakes(takes) {
  return { ready: takes.filter((take) => take.status === "decoded").length, all: takes.length };
}
