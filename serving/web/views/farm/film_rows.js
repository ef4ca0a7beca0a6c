// The list of films as a table, or as cards if there is no room for one. Display only.

import { html } from "../../vendor/htm-preact.js";
import { Badge, Button, Progress } from "../../components.js";
import { clock, fromNow, money, number, percent, say, sayNumber } from "../../words.js";
import { actionId } from "./actions.js";
import { allowedActions, countTakes } from "./film_list.js";

const SIGNS = { raise: "▲", pause: "❚❚", resume: "▶", cancel: "✕", retry: "↻", explain: "?" };

export function FilmTable({ jobs, places, actions, caller, ...choosing }) {
  return html`<div class="scroll-x">
    <table class="film-table">
      <caption class="unseen">${say("films.caption")}</caption>
      <thead>
        <tr>
          <th scope="col">${say("films.film")}</th>
          <th scope="col">${say("films.state")}</th>
          <th scope="col">${say("films.takes")}</th>
          <th scope="col">${say("films.pool")}</th>
          ${showsTenant(caller) && html`<th scope="col">${say("films.tenant")}</th>`}
          <th scope="col" class="number">${say("films.priority")}</th>
          <th scope="col">${say("films.finish")}</th>
          <th scope="col" class="number">${say("films.cost")}</th>
          <th scope="col">${say("films.age")}</th>
          <th scope="col"><span class="unseen">${say("films.actions")}</span></th>
        </tr>
      </thead>
      <tbody>
        ${jobs.map((job) => html`<${Row} key=${job.id} ...${{ job, place: places[job.id], actions, caller, ...choosing }} />`)}
      </tbody>
    </table>
  </div>`;
}

/** Without keys all films are one tenant's. */
const showsTenant = (caller) => caller.is_admin && caller.needs_keys;

function Row({ job, place, actions, caller, filters, choose }) {
  return html`<tr>
    <td class="what">
      <${Title} job=${job} />
      <${Marks} ...${{ job, filters, choose }} />
      <${Why} job=${job} place=${place} />
    </td>
    <td class="state"><${State} job=${job} /></td>
    <td class="numbers">${takes(job)}</td>
    <td>${job.pool}</td>
    ${showsTenant(caller) && html`<td><${Tenant} ...${{ job, filters, choose }} /></td>`}
    <td class="number">${number(job.priority)}</td>
    <td class="numbers"><${Finish} job=${job} place=${place} /></td>
    <td class="number"><${Cost} job=${job} /></td>
    <td class="numbers age">${fromNow(job.created_at)}</td>
    <td><${Actions} job=${job} actions=${actions} kind="quiet icon" /></td>
  </tr>`;
}

export function FilmCards({ jobs, places, actions, caller, filters, choose }) {
  const facts = (job) => [
    ["films.takes", takes(job)],
    ["films.finish", html`<${Finish} job=${job} place=${places[job.id]} />`],
    ["films.cost", html`<${Cost} job=${job} />`],
    ["films.pool", job.pool],
    ["films.priority", number(job.priority)],
    ["films.age", fromNow(job.created_at)],
    ...(showsTenant(caller) ? [["films.tenant", html`<${Tenant} ...${{ job, filters, choose }} />`]] : []),
  ];
  return html`<ul class="film-cards">
    ${jobs.map(
      (job) => html`<li key=${job.id} class="card ${job.status}">
        <${Title} job=${job} />
        <${Marks} ...${{ job, filters, choose }} />
        <${State} job=${job} />
        <${Why} job=${job} place=${places[job.id]} />
        <dl class="facts">${facts(job).map(([key, value]) => html`<div><dt>${say(key)}</dt><dd>${value}</dd></div>`)}</dl>
        <${Actions} job=${job} actions=${actions} kind="" />
      </li>`,
    )}
  </ul>`;
}

function Title({ job }) {
  return html`<a class="title" id="film-${job.id}" href="#/jobs/${encodeURIComponent(job.id)}">${job.title}</a>`;
}

/** Its version and tags; each is a filter for films like it. */
function Marks({ job, filters, choose }) {
  const tags = Object.entries(job.tags).map(([key, value]) => `${key}=${value}`);
  const addTag = (tag) => choose({ ...filters, tag: [...new Set([...filters.tag, tag])] });
  return html`<div class="marks">
    <button type="button" class="mark" aria-label=${say("films.versions", { n: number(job.version), title: job.title })}
      onClick=${() => choose({ ...filters, family: job.family })}>${say("films.version", { n: number(job.version) })}</button>
    ${tags.map(
      (tag) => html`<button type="button" class="mark" aria-label=${say("films.filterBy", { text: tag })} onClick=${() => addTag(tag)}>${tag}</button>`,
    )}
  </div>`;
}

/** The reason for its state in a line: what it waits for, what went wrong. */
function Why({ job, place }) {
  const words = job.error?.message || (job.status === "queued" && place?.words) || job.reason;
  return html`<p class="why ${job.status === "failed" ? "wrong" : "soft"}">${words}</p>`;
}

function State({ job }) {
  const share = job.progress / 100;
  return html`<div class="row apart">
      <${Badge} state=${job.status} />
      <span class="numbers soft">${percent(share)}</span>
    </div>
    <${Progress} share=${share} label=${say("films.progress", { title: job.title })} />`;
}

const takes = (job) => {
  const { ready, all } = countTakes(job.takes);
  return sayNumber("films.takesReady", all, { ready: number(ready) });
};

function Tenant({ job, filters, choose }) {
  return html`<button type="button" class="mark" aria-label=${say("films.filterBy", { text: job.tenant })}
    onClick=${() => choose({ ...filters, tenant: job.tenant })}>${job.tenant}</button>`;
}

/** When it was or should be done, and its place in line. */
function Finish({ job, place }) {
  const at = job.finished_at || job.eta || (job.status === "queued" && place?.finishes_at);
  const isOver = Boolean(job.finished_at);
  return html`${at ? html`<span title=${clock(at)}>${isOver ? clock(at) : soon(at)}</span>` : html`<span class="soft">${say("films.unknown")}</span>`}
    ${job.status === "queued" && place?.position && html`<small class="soft">${say("films.place", { n: number(place.position) })}</small>`}
    ${!isOver && job.due_at && html`<small class=${job.at_risk ? "risk" : "soft"}>${say(job.at_risk ? "films.late" : "films.due", { at: clock(job.due_at) })}</small>`}`;
}

/** An estimate that has passed was a little short. */
const soon = (at) => (at * 1000 > Date.now() + 1000 ? fromNow(at) : say("films.soon"));

function Cost({ job }) {
  return html`${money(job.cost.usd)}
    ${job.budget_usd !== null && html`<small class="soft">${say("films.ofBudget", { budget: money(job.budget_usd) })}</small>`}`;
}

function Actions({ job, actions, kind }) {
  const names = [...(job.status === "queued" ? ["explain"] : []), ...allowedActions(job)];
  return html`<div class="actions">
    ${names.map(
      (name) => html`<${Button} key=${name} id=${actionId(job, name)} kind=${kind} busy=${actions.isBusy(job, name)} title=${say(`films.act.${name}`)}
        aria-label=${say("films.act.of", { action: say(`films.act.${name}`), title: job.title })} onClick=${() => actions.act(job, name)}>
        <span class="sign" aria-hidden="true">${SIGNS[name]}</span> <span class="word">${say(`films.act.${name}`)}</span>
      <//>`,
    )}
  </div>`;
}
