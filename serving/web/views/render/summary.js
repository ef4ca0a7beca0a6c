// The header of a job: its name, state, progress, when it should be ready, what it has cost, whether it will be late.

import { html } from "../../vendor/htm-preact.js";
import { Badge, Notice, Progress } from "../../components.js";
import { isLive, isOver } from "../../statuses.js";
import { clock, duration, fromNow, money, number, percent, say } from "../../words.js";

/** `live`: state of the connection; `now_s`: unix seconds. */
export function Summary({ job, live, now_s, children }) {
  return html`<header class="card render-head" aria-labelledby="job-title">
    <div class="row apart">
      <div class="head-title">
        <h1 id="job-title">${job.title}</h1>
        <p class="soft numbers head-sub">
          <span>${say("render.version", { n: number(job.version) })}</span>
          <span>${say("render.modelAndPool", { model: job.model, pool: job.pool })}</span>
          <span class="mono">${job.id}</span>
        </p>
      </div>
      <${Live} state=${live} />
    </div>
    <div class="head-state">
      <${Badge} state=${job.status} />
      <span class="soft head-reason">${job.reason}</span>
    </div>
    <${Bar} job=${job} />
    <dl class="job-facts numbers">
      <${Fact} name="ready">${describeReady(job, now_s)}<//>
      <${Fact} name="due"><${Due} job=${job} now_s=${now_s} /><//>
      <${Fact} name="money"><${Money} job=${job} /><//>
      <${Fact} name="priority">${say("render.priorityOf", { n: number(job.priority) })}<//>
      <${Fact} name="spent">${describeSpent(job, now_s)}<//>
    </dl>
    ${children}
    ${job.error &&
    html`<${Notice} kind="error">
      <p>${job.error.message}</p>
      ${job.error.code && html`<p class="soft mono">${job.error.code}</p>`}
    <//>`}
  </header>`;
}

function Fact({ name, children }) {
  return html`<div><dt>${say(`render.fact.${name}`)}</dt><dd>${children}</dd></div>`;
}

function Live({ state }) {
  const dot = html`<span class="dot" aria-hidden="true"></span>`;
  return html`<span class="connection ${state}">${dot}${say(`live.${state}`)}</span>`;
}

function Bar({ job }) {
  const share = job.progress / 100;
  return html`<div class="head-progress numbers">
    <${Progress} share=${share} label=${say("render.progress")} />
    <span>${percent(share)}</span>
  </div>`;
}

function describeReady(job, now_s) {
  if (job.status === "completed" && job.finished_at) return clock(job.finished_at, now_s * 1000);
  if (!isLive(job)) return say("render.notWhile");
  if (!job.eta) return say("render.notYet");
  return say("render.about", inTwoWays(Math.max(job.eta, now_s), now_s));
}

/** A time as a time of day and relative to now. */
const inTwoWays = (unixS, now_s) => ({ clock: clock(unixS, now_s * 1000), fromNow: fromNow(unixS, now_s * 1000) });

function Due({ job, now_s }) {
  if (!job.due_at) return say("render.noDue");
  const words = say("render.at", inTwoWays(job.due_at, now_s));
  const risk = riskOf(job, now_s);
  if (!risk) return words;
  const sign = html`<span class="sign" aria-hidden="true"></span>`;
  return html`${words} <span class="due-risk ${risk}">${sign}${say(`render.risk.${risk}`)}</span>`;
}

/** "late", "missed", "met", "intime", or "" if nothing is known. */
function riskOf(job, now_s) {
  if (job.status === "completed") return job.finished_at > job.due_at ? "missed" : "met";
  if (isOver(job)) return "";
  if (job.due_at < now_s) return "missed";
  if (job.at_risk) return "late";
  return job.eta && job.eta <= job.due_at ? "intime" : "";
}

function Money({ job }) {
  const { usd, gpu_seconds: useful, wasted_gpu_seconds: wasted } = job.cost;
  const lost = useful + wasted ? (usd * wasted) / (useful + wasted) : 0;
  const lostWords = wasted > 0 ? say("render.wasted", { usd: money(lost) }) : "";
  const loss = lostWords && html` <span class="soft">${lostWords}</span>`;
  if (!job.budget_usd) return html`${say("render.noBudget", { usd: money(usd) })}${loss}`;
  const share = Math.min(1, usd / job.budget_usd);
  const words = say("render.ofBudget", { usd: money(usd), budget: money(job.budget_usd) });
  const level = usd >= job.budget_usd ? "full" : usd >= 0.8 * job.budget_usd ? "near" : "";
  return html`<span>${words}</span>
    <span class="budget-bar ${level}" role="meter" aria-label=${say("render.budgetUsed")} aria-valuemin="0"
      aria-valuemax="1" aria-valuenow=${share} aria-valuetext="${words}. ${lostWords}">
      <span class="useful" style=${{ width: `${100 * share * (usd ? 1 - lost / usd : 1)}%` }}></span>
      <span class="lost" style=${{ width: `${usd ? (100 * share * lost) / usd : 0}%` }}></span>
    </span>
    ${loss}`;
}

function describeSpent(job, now_s) {
  const { gpu_seconds: useful, wasted_gpu_seconds: wasted } = job.cost;
  const gpu = say("render.gpuSeconds", { n: number(useful + wasted, 1) });
  if (!job.started_at) return gpu;
  const length = duration((job.finished_at ?? now_s) - job.started_at);
  return `${gpu} · ${say(job.finished_at ? "render.took" : "render.since", { length })}`;
}
