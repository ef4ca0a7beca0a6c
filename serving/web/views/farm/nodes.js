// The nodes of the farm, for administrators: what runs on each, and draining one before it goes.

import { html, useState } from "../../vendor/htm-preact.js";
import { post } from "../../api.js";
import { Button, Dialog, Field, Notice, announce, describeProblem, useRequest } from "../../components.js";
import { number, say, sayNumber } from "../../words.js";
import { nameOf } from "./health.js";

const MINUTES = 10;
const MINUTE_S = 60;

/** `data`, `problem` and `reload` of GET /v1/nodes. */
export function Nodes({ data, problem, reload }) {
  const [open, setOpen] = useState(null);
  return html`<section aria-labelledby="nodes-title">
    <h2 id="nodes-title">${say("farm.nodes")}</h2>
    ${problem && html`<p class="soft">${problem.status === 503 ? say("farm.nodes.away") : describeProblem(problem)}</p>`}
    ${data &&
    html`<div class="scroll-x card flat" tabindex="0" role="group" aria-labelledby="nodes-title">
      <table>
        <thead>
          <tr>
            <th scope="col">${say("farm.node")}</th>
            <th scope="col">${say("farm.node.state")}</th>
            <th scope="col" class="number">${say("farm.node.gangs")}</th>
            <th scope="col" class="number">${say("farm.node.hosts")}</th>
            <th scope="col" class="number">${say("farm.gang.calls")}</th>
            <th scope="col"><span class="unseen">${say("films.actions")}</span></th>
          </tr>
        </thead>
        <tbody>${data.data.map((node) => html`<${Row} key=${node.id} node=${node} drain=${() => setOpen(node)} />`)}</tbody>
      </table>
    </div>`}
    ${open && html`<${Drain} node=${open} close=${() => setOpen(null)} reload=${reload} />`}
  </section>`;
}

function Row({ node, drain }) {
  return html`<tr class=${node.state}>
    <td><span class="mono">${nameOf(node)}</span> <small class="soft mono">${node.address}</small></td>
    <td><span class="part ${node.state}">${say(`farm.node.${node.state}`)}</span></td>
    <td class="number">${number(node.gangs.length)}</td>
    <td class="number">${number(node.timeline_hosts.length)}</td>
    <td class="number">${number(node.calls)}</td>
    <td class="actions">
      ${node.state === "alive" &&
      html`<${Button} kind="quiet" aria-label=${say("farm.drain.of", { node: nameOf(node) })} onClick=${drain}>${say("farm.drain")}<//>`}
    </td>
  </tr>`;
}

function Drain({ node, close, reload }) {
  const [reason, setReason] = useState("");
  const [minutes, setMinutes] = useState(String(MINUTES));
  const { busy, problem, carryOut } = useRequest();
  const drain = (event) => {
    event.preventDefault();
    carryOut(async () => {
      const body = { cause: "operator", reason, deadline_s: Number(minutes) * MINUTE_S };
      await post(`/v1/nodes/${encodeURIComponent(node.id)}/drain`, body);
      announce(say("farm.drain.done", { node: nameOf(node) }));
      await reload();
      close();
    });
  };
  return html`<${Dialog} title=${say("farm.drain.title", { node: nameOf(node) })} onClose=${close}>
    <form class="stack" onSubmit=${drain}>
      <p>${say("farm.drain.text")}</p>
      <p>${sayNumber("farm.drain.gangs", node.gangs.length)}</p>
      ${problem && html`<${Notice} kind="error">${describeProblem(problem)}<//>`}
      <${Field} label=${say("farm.drain.reason")} control=${(attributes) =>
        html`<input required maxlength="1000" value=${reason} onInput=${(e) => setReason(e.target.value)} ...${attributes} />`} />
      <${Field} label=${say("farm.drain.minutes")} control=${(attributes) =>
        html`<input type="number" min="1" max="1440" required value=${minutes} onInput=${(e) => setMinutes(e.target.value)} ...${attributes} />`} />
      <div class="row end">
        <${Button} onClick=${close}>${say("farm.drain.keep")}<//>
        <${Button} type="submit" kind="danger" busy=${busy}>${say("farm.drain.do")}<//>
      </div>
    </form>
  <//>`;
}
