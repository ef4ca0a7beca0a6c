// The health of a farm and its pools, derived from GET /v1/pools. No DOM.

const SHORT_ID = 12;

/** In one word: "away" (no Director), "rendering", "short" (work and no gang), "asleep" (no gang, nothing to do), "idle". */
export function healthOf(pools) {
  if (!pools.some((pool) => pool.live)) return "away";
  const sum = (part, name) => pools.reduce((total, pool) => total + (pool[part]?.[name] ?? 0), 0);
  if (sum("demand", "calls_running")) return "rendering";
  const hasWork = sum("demand", "backlog_gpu_s") > 0 || sum("demand", "calls_ready") > 0;
  if (sum("supply", "ready")) return hasWork ? "rendering" : "idle";
  return hasWork || sum("supply", "starting") ? "short" : "asleep";
}

/** The gangs of a pool: {wanted, parts: [{name, count}], total}; `missing` fills up to what is wanted. */
export function gangsOf(pool) {
  const { ready = 0, idle = 0, starting = 0, draining = 0 } = pool.supply ?? {};
  const wanted = pool.live?.gangs_wanted ?? pool.decision?.gangs ?? pool.terms.min_gangs;
  const missing = Math.max(0, wanted - ready - starting);
  const counts = { busy: ready - idle, idle, starting, draining, missing };
  const parts = Object.entries(counts).map(([name, count]) => ({ name, count }));
  return { wanted, parts, total: parts.reduce((sum, part) => sum + part.count, 0) };
}

/** All gangs of all pools, with the pool of each. */
export const listGangs = (pools) =>
  pools.flatMap((pool) => (pool.live?.gangs ?? []).map((gang) => ({ ...gang, pool: pool.name })));

export const nameOf = (node) => node.name || node.address || node.id;

/** The name of the node with this id, or the beginning of the id if its name is not known. */
export function nodeName(id, nodes) {
  const node = nodes.find((one) => one.id === id);
  return node ? nameOf(node) : id.slice(0, SHORT_ID);
}

/** The terms to send: all of them, since whatever is left out would be reset to its default. */
export function changedTerms(terms, { min_gangs, max_gangs, spot }) {
  return { ...terms, min_gangs: Number(min_gangs), max_gangs: Number(max_gangs), spot };
}
