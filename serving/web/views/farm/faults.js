// Recent faults, for administrators: the latest warnings and errors of the farm's log, newest first.

import { html } from "../../vendor/htm-preact.js";
import { describeProblem } from "../../components.js";
import { clock, fromNow, say } from "../../words.js";
import { usePolled } from "./polling.js";

const EVERY_MS = 10_000;
const MOST = 30;

export function Faults() {
  const { data, problem } = usePolled(`/v1/logs?level=warning&limit=${MOST}`, EVERY_MS);
  const entries = data?.data.toReversed();
  return html`<section aria-labelledby="faults-title">
    <h2 id="faults-title">${say("farm.faults")}</h2>
    ${problem && html`<p class="soft">${describeProblem(problem)}</p>`}
    ${entries?.length === 0 && html`<p class="soft">${say("farm.faults.none")}</p>`}
    ${entries?.length > 0 &&
    html`<ol class="faults card flat">
      ${entries.map((entry) => html`<${Fault} key=${entry.id} entry=${entry} />`)}
    </ol>`}
  </section>`;
}

function Fault({ entry }) {
  const level = entry.level.toLowerCase() === "warning" ? "warning" : "error";
  return html`<li class=${level}>
    <time class="soft numbers" title=${clock(entry.at)}>${fromNow(entry.at)}</time>
    <strong class="level">${say(`farm.level.${level}`)}</strong>
    <span>${entry.message}</span>
    ${entry.job && html`<a href="#/jobs/${encodeURIComponent(entry.job)}">${say("farm.faults.film")}</a>`}
  </li>`;
}
