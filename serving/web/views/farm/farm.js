// The farm view: pools, gangs, nodes, recent faults, spending.

import { html } from "../../vendor/htm-preact.js";
import { Notice, describeProblem } from "../../components.js";
import { say } from "../../words.js";
import { Faults } from "./faults.js";
import { Gangs } from "./gangs.js";
import { healthOf } from "./health.js";
import { Nodes } from "./nodes.js";
import { Pools } from "./pools.js";
import { usePolled } from "./polling.js";
import { Spent } from "./spending.js";

const EVERY_MS = 5000;
const NODES_EVERY_MS = 10_000;

export function FarmView({ caller }) {
  const { data, problem, reload } = usePolled("/v1/pools", EVERY_MS);
  const nodes = usePolled("/v1/nodes", NODES_EVERY_MS, caller.is_admin);
  const pools = data?.data;
  const health = pools && healthOf(pools);
  return html`<div class="farm stack">
    <div class="row">
      <h1>${say("farm.title")}</h1>
      ${health && html`<span class="health ${health}"><span class="sign" aria-hidden="true"></span>${say(`farm.health.${health}`)}</span>`}
    </div>
    ${problem && html`<${Notice} kind="warning">${describeProblem(problem)}<//>`}
    ${health === "away" && html`<${Notice} kind="warning">${say("farm.away")}<//>`}
    ${!pools && !problem && html`<p class="soft">${say("loading")}</p>`}
    ${pools &&
    html`<${Pools} pools=${pools} caller=${caller} reload=${reload} />
      <${Gangs} pools=${pools} nodes=${nodes.data?.data ?? []} />
      ${caller.is_admin && html`<${Nodes} ...${nodes} /><${Faults} />`}
      <${Spent} />`}
  </div>`;
}
