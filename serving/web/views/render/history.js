// What has happened to a job, why it waits, and its log lines.

import { html, useState } from "../../vendor/htm-preact.js";
import { get } from "../../api.js";
import { describeProblem, useEvery } from "../../components.js";
import { isLive } from "../../statuses.js";
import { clock, money, number, say, sayState, timeOfDay } from "../../words.js";

const EXPLAIN_EVERY_MS = 4000;
const LOGS_EVERY_MS = 4000;
const SHOWN_AT_FIRST = 40;

/** Why the job is in its state; polled while it waits or renders. */
export function Explain({ job }) {
  const [told, setTold] = useState(null);
  const isAsked = isLive(job);
  const ask = () => get(`/v1/jobs/${encodeURIComponent(job.id)}/explain`).then(setTold, () => {});
  useEvery(EXPLAIN_EVERY_MS, ask, [job.id, job.status, job.priority], isAsked);
  const words = isAsked ? told?.words : sayState(`render.explain.${job.status}`);
  return html`<section class="card render-explain" aria-labelledby="explain-title">
    <h2 id="explain-title">${say(job.status === "queued" ? "render.whyWaiting" : "render.whatNow")}</h2>
    ${job.status === "queued" &&
    told?.position &&
    html`<p class="place numbers"><strong>${say("render.place", { n: number(told.position) })}</strong></p>`}
    <p>${words ?? say("loading")}</p>
    ${isAsked && html`<p class="soft">${say("render.explainWhy")}</p>`}
  </section>`;
}

/** Every entry of the job's log, newest first. */
export function Changes({ changes }) {
  const [all, setAll] = useState(false);
  const newest = changes.toReversed();
  const shown = all ? newest : newest.slice(0, SHOWN_AT_FIRST);
  return html`<section class="card render-changes" aria-labelledby="changes-title">
    <h2 id="changes-title">${say("render.changes")}</h2>
    <ol class="log-list" tabindex="0" aria-labelledby="changes-title">
      ${shown.map(
        (change) => html`<li key=${change.id} data-event=${change.id}>
          <time class="soft numbers" datetime=${new Date(change.at * 1000).toISOString()}>${timeOfDay(change.at)}</time>
          <span><strong>${sayState(`render.event.${change.kind}`)}</strong><span class="soft">${reasonOf(change)}</span></span>
        </li>`,
      )}
    </ol>
    ${newest.length > shown.length &&
    html`<button type="button" class="link" onClick=${() => setAll(true)}>
      ${say("render.showAll", { n: number(newest.length) })}
    </button>`}
    ${newest.length === 0 && html`<p class="soft">${say("loading")}</p>`}
  </section>`;
}

const TERMS = {
  priority: (value) => number(value),
  due_at: (value) => clock(value),
  budget_usd: (value) => money(value),
};

/** The farm's reason; for changed terms, their new values. */
function reasonOf({ kind, reason, data }) {
  const terms = kind === "changed" ? Object.keys(TERMS).filter((name) => name in (data ?? {})) : [];
  if (!terms.length) return reason ? ` ${reason}` : "";
  const words = terms.map((name) =>
    data[name] === null ? say(`render.set.${name}.none`) : say(`render.set.${name}`, { value: TERMS[name](data[name]) }),
  );
  return ` ${words.join(", ")}`;
}


/** Log lines of the job; loaded while the section is open. */
export function Logs({ job }) {
  const [open, setOpen] = useState(false);
  const [lines, setLines] = useState(null);
  const [problem, setProblem] = useState(null);
  const ask = () =>
    get(`/v1/jobs/${encodeURIComponent(job.id)}/logs`).then(
      (page) => (setLines(page.data), setProblem(null)),
      (error) => setProblem(error),
    );
  useEvery(isLive(job) ? LOGS_EVERY_MS : 10 * LOGS_EVERY_MS, ask, [job.id, isLive(job)], open);
  return html`<details class="card render-logs" onToggle=${(event) => setOpen(event.currentTarget.open)}>
    <summary>${say("render.logs")}</summary>
    ${problem && html`<p class="soft">${problem.status === 404 ? say("render.noLogs") : describeProblem(problem)}</p>`}
    ${lines?.length === 0 && html`<p class="soft">${say("render.noLogs")}</p>`}
    ${lines?.length > 0 &&
    html`<ol class="log-list mono" tabindex="0" aria-label=${say("render.logs")}>
      ${lines.toReversed().map(
        (line) => html`<li key=${line.id}>
          <time class="soft numbers">${timeOfDay(line.at)}</time>
          <span><strong class="log-level ${line.level}">${line.level}</strong> ${line.message}</span>
        </li>`,
      )}
    </ol>`}
  </details>`;
}
