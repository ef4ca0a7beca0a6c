// The versions of a film, and what differs between two of them, in words.

import { html, useEffect, useState } from "../../vendor/htm-preact.js";
import { get } from "../../api.js";
import { Badge, describeProblem } from "../../components.js";
import { clock, duration, money, number, say, sayNumber } from "../../words.js";

const LONGEST = 160;

export function Versions({ job }) {
  const [versions, setVersions] = useState([]);
  const [against, setAgainst] = useState(job.parent);
  const path = `/v1/jobs/${encodeURIComponent(job.id)}`;
  useEffect(() => {
    let over = false;
    get(`${path}/versions`).then((page) => !over && setVersions(page.data), () => {});
    return () => (over = true);
  }, [job.id, job.status]);
  const newest = versions.at(-1);
  return html`<section class="card render-versions" aria-labelledby="versions-title">
    <h2 id="versions-title">${say("render.versions")}</h2>
    ${newest &&
    newest.version > job.version &&
    html`<p>${say("render.newer")} <a href=${linkTo(newest)}>${nameOf(newest)}</a></p>`}
    <div class="version-halves">
    <div class="scroll-x" tabindex="0" role="region" aria-label=${say("render.versionTable")}>
      <table class="numbers">
        <thead><tr>${COLUMNS.map((name) => html`<th scope="col">${say(`render.column.${name}`)}</th>`)}</tr></thead>
        <tbody>
          ${versions.toReversed().map((one) => html`<${Row} key=${one.id} one=${one} isThis=${one.id === job.id} />`)}
        </tbody>
      </table>
    </div>
    ${versions.length > 1 && html`<${Compare} ...${{ job, path, versions, against }} onAgainst=${setAgainst} />`}
    ${versions.length === 1 && html`<p class="soft">${say("render.onlyVersion")}</p>`}
    </div>
  </section>`;
}

const COLUMNS = ["version", "state", "made", "cost"];
const CHANGES = ["changed", "added", "removed", "same"];

const nameOf = (job) => say("render.version", { n: number(job.version) });

const linkTo = (job) => `#/jobs/${encodeURIComponent(job.id)}`;

function Row({ one, isThis }) {
  const here = html`<span aria-current="page">${nameOf(one)} · ${say("render.thisOne")}</span>`;
  return html`<tr>
    <th scope="row">${isThis ? here : html`<a href=${linkTo(one)}>${nameOf(one)}</a>`}</th>
    <td><${Badge} state=${one.status} /></td>
    <td>${clock(one.created_at)}</td>
    <td>${money(one.cost.usd)}</td>
  </tr>`;
}

function Compare({ job, path, versions, against, onAgainst }) {
  const others = versions.filter((one) => one.id !== job.id);
  const other = others.some((one) => one.id === against) ? against : others.at(-1).id;
  const [diff, setDiff] = useState(null);
  const [problem, setProblem] = useState(null);
  useEffect(() => {
    let over = false;
    get(`${path}/diff?against=${encodeURIComponent(other)}`).then(
      (found) => !over && (setDiff(found), setProblem(null)),
      (error) => !over && (setDiff(null), setProblem(error)),
    );
    return () => (over = true);
  }, [other, job.id]);
  return html`<div class="compare">
    <label>${say("render.compareWith")}
      <select value=${other} onChange=${(event) => onAgainst(event.target.value)}>
        ${others.map((one) => html`<option value=${one.id} selected=${one.id === other}>${nameOf(one)}</option>`)}
      </select>
    </label>
    ${problem && html`<p class="wrong-words" role="alert">${describeProblem(problem)}</p>`}
    ${diff && html`<${Differences} diff=${diff} />`}
  </div>`;
}

function Differences({ diff }) {
  const tell = (change) => {
    const keys = diff.takes.filter((take) => take.change === change).map((take) => take.key);
    return keys.length && `${sayNumber(`render.takes.${change}`, keys.length)}: ${keys.join(", ")}`;
  };
  return html`<ul class="board-changes">
      ${diff.changes.map(
        (change) => html`<li>
          <code>${change.path}</code> <span class="soft">${say("render.was")}</span> ${show(change.before)}${" "}
          <span class="soft">${say("render.isNow")}</span> ${show(change.after)}
        </li>`,
      )}
      ${diff.changes.length === 0 && html`<li>${say("render.sameBoard")}</li>`}
    </ul>
    <p class="soft">${CHANGES.map(tell).filter(Boolean).join(" · ")}</p>`;
}

/** A value of a storyboard for a person: text as it is, a shot as its prompt, anything else as JSON. */
function show(value) {
  if (value === null || value === undefined) return html`<em>${say("render.nothing")}</em>`;
  const text = toText(value);
  return html`<span>${text.length > LONGEST ? `${text.slice(0, LONGEST)}…` : text}</span>`;
}

function toText(value) {
  if (typeof value === "string") return `“${value}”`;
  if (Array.isArray(value)) return value.join(", ");
  if (value.prompt) return `“${value.prompt}”, ${duration(value.seconds)}`;
  if (value.dissolve) return say("render.begins.dissolve", { seconds: number(value.dissolve, 2) });
  return JSON.stringify(value);
}
