// Every gang of the farm: its node, state and calls.

import { html } from "../../vendor/htm-preact.js";
import { number, say, sayNumber } from "../../words.js";
import { listGangs, nodeName } from "./health.js";

/** `nodes`: those of GET /v1/nodes, if they are known. */
export function Gangs({ pools, nodes }) {
  const gangs = listGangs(pools);
  return html`<section aria-labelledby="gangs-title">
    <h2 id="gangs-title">${say("farm.gangs")}</h2>
    ${gangs.length === 0
      ? html`<p class="soft">${say("farm.gangs.none")}</p>`
      : html`<div class="scroll-x card flat" tabindex="0" role="group" aria-labelledby="gangs-title">
          <table>
            <thead>
              <tr>
                <th scope="col">${say("farm.gang")}</th>
                <th scope="col">${say("farm.gang.state")}</th>
                <th scope="col">${say("farm.gang.pool")}</th>
                <th scope="col">${say("farm.gang.node")}</th>
                <th scope="col" class="number">${say("farm.gang.calls")}</th>
              </tr>
            </thead>
            <tbody>${gangs.map((gang) => html`<${Row} key=${gang.gang} gang=${gang} nodes=${nodes} />`)}</tbody>
          </table>
        </div>`}
  </section>`;
}

function Row({ gang, nodes }) {
  const state = gang.draining ? "draining" : gang.calls ? "busy" : "idle";
  return html`<tr>
    <td class="mono">${gang.gang}</td>
    <td><span class="part ${state}">${say(`farm.gang.${state}`)}</span></td>
    <td>${gang.pool}</td>
    <td class="mono" title=${gang.node}>${nodeName(gang.node, nodes)}${gang.nodes?.length > 1 && html` <span class="soft">${sayNumber("farm.gang.nodes", gang.nodes.length)}</span>`}</td>
    <td class="number">${number(gang.calls)}</td>
  </tr>`;
}
