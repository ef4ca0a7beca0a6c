// The actions on a job: pause, resume, cancel, retry, priority, due time, budget. Nothing is shown as done before the farm
// has answered; its refusals are shown beside the buttons.

import { html, useEffect, useRef, useState } from "../../vendor/htm-preact.js";
import { ApiProblem, onceKey, patch, post } from "../../api.js";
import { Button, Dialog, Field, announce, describeProblem, useRequest } from "../../components.js";
import { actionsOf, isOver } from "../../statuses.js";
import { clock, fromNow, money, number, say } from "../../words.js";
import { localTime } from "../storyboard/draft.js";

const PRIORITY_STEP = 10;

/** `onJob(job)`: the farm's answer; `isFinal`: whether it has the best quality already. */
export function Steering({ job, isFinal, onJob }) {
  const [asking, setAsking] = useState(null);
  const close = () => setAsking(null);
  const { busy, problem, run } = useRequests(onJob);
  const [bar, path] = [useRef(), `/v1/jobs/${encodeURIComponent(job.id)}`];
  useKeptFocus(bar, busy);
  const act = (name) => run(name, () => post(`${path}/${name}`, {}, { once: onceKey() }));
  const rate = (name, priority) => run(name, () => patch(path, { priority }));
  const button = (name, label, onClick, more = {}) =>
    html`<${Button} key=${name} data-action=${name} busy=${busy === name} disabled=${busy !== null && busy !== name}
      onClick=${onClick} ...${more}>${label}<//>`;
  const toPriority = (name, priority) =>
    button(name, say(`render.${name}`), () => rate(name, priority), {
      disabled: busy !== null || priority === job.priority,
      title: say("render.priorityTo", { n: number(priority) }),
    });
  return html`<div class="steering" ref=${bar} role="group" aria-label=${say("render.steering")}>
      ${actionsOf(job).map((name) =>
        button(name, say(`render.action.${name}`), name === "cancel" ? () => setAsking("cancel") : () => act(name), {
          kind: name === "cancel" ? "danger" : "primary",
        }),
      )}
      ${!isOver(job) &&
      html`${toPriority("lower", Math.max(0, job.priority - PRIORITY_STEP))}
      ${toPriority("raise", Math.min(100, job.priority + PRIORITY_STEP))}
      ${button("terms", say("render.terms"), () => setAsking("terms"))}`}
      <a class="button" href="#/jobs/${encodeURIComponent(job.id)}/revise">${say("render.refine")}</a>
      ${!isFinal && button("finalize", say("render.finalize"), () => setAsking("finalize"))}
      ${problem && html`<p class="wrong-words" role="alert">${describeProblem(problem)}</p>`}
    </div>
    ${asking === "cancel" && html`<${ConfirmCancel} onClose=${close} onYes=${() => (close(), act("cancel"))} />`}
    ${asking === "terms" && html`<${Terms} job=${job} path=${path} onJob=${onJob} onClose=${close} />`}
    ${asking === "finalize" && html`<${Finalize} path=${path} onClose=${close} />`}`;
}

/** Sends one request at a time: {busy: its name or null, problem, run(name, request)}. */
function useRequests(onJob) {
  const [busy, setBusy] = useState(null);
  const [problem, setProblem] = useState(null);
  const run = async (name, send) => {
    setBusy(name);
    setProblem(null);
    try {
      onJob(await send());
      announce(say(`render.didIt.${name}`));
    } catch (error) {
      if (!(error instanceof ApiProblem)) throw error;
      setProblem(error);
    } finally {
      setBusy(null);
    }
  };
  return { busy, problem, run };
}

/** A button that was used keeps the focus; if it is gone, a neighbour gets it, not the top of the page. */
function useKeptFocus(bar, busy) {
  const was = useRef(null);
  useEffect(() => {
    if (busy === null && was.current && document.activeElement === document.body) {
      const same = bar.current?.querySelector(`[data-action="${was.current}"]:not(:disabled)`);
      (same ?? bar.current?.querySelector("button:not(:disabled), a"))?.focus();
    }
    was.current = busy;
  }, [busy]);
}

function ConfirmCancel({ onClose, onYes }) {
  return html`<${Dialog} title=${say("render.cancelTitle")} onClose=${onClose}>
    <p>${say("render.cancelText")}</p>
    <div class="row end">
      <${Button} onClick=${onClose}>${say("render.cancelNo")}<//>
      <${Button} kind="danger" onClick=${onYes}>${say("render.cancelYes")}<//>
    </div>
  <//>`;
}

function Terms({ job, path, onJob, onClose }) {
  const before = {
    priority: String(job.priority),
    due_at: job.due_at ? localTime(job.due_at) : "",
    budget_usd: job.budget_usd === null ? "" : String(job.budget_usd),
  };
  const [values, setValues] = useState(before);
  const { busy, problem, carryOut } = useRequest();
  const save = (event) => {
    event.preventDefault();
    const changes = changedTerms(before, values);
    if (Object.keys(changes).length === 0) return onClose();
    carryOut(async () => {
      onJob(await patch(path, changes));
      announce(say("render.didIt.terms"));
      onClose();
    });
  };
  const field = (name, more) => html`<${Field}
    label=${say(`render.term.${name}`)}
    hint=${say(`render.term.${name}.hint`)}
    problems=${(problem?.problems ?? []).filter((one) => one.path === name)}
    control=${(attributes) =>
      html`<input value=${values[name]} onInput=${(event) => setValues({ ...values, [name]: event.target.value })}
        ...${more} ...${attributes} />`}
  />`;
  const elsewhere = problem && !problem.problems.some((one) => one.path in values);
  return html`<${Dialog} title=${say("render.termsTitle")} onClose=${onClose}>
    <form class="stack" onSubmit=${save} novalidate>
      ${field("priority", { type: "number", min: 0, max: 100, step: 1, required: true })}
      ${field("due_at", { type: "datetime-local" })}
      ${field("budget_usd", { type: "number", min: 0, step: "any", inputmode: "decimal" })}
      ${elsewhere && html`<p class="wrong-words" role="alert">${describeProblem(problem)}</p>`}
      <div class="row end">
        <${Button} onClick=${onClose}>${say("action.back")}<//>
        <${Button} type="submit" kind="primary" busy=${busy}>${say("render.termsSave")}<//>
      </div>
    </form>
  <//>`;
}

/** What is sent for the fields that were changed; an empty one removes its limit. */
export function changedTerms(before, values) {
  const changes = {};
  for (const name of Object.keys(values)) {
    if (values[name] === before[name]) continue;
    if (values[name] === "") changes[name] = null;
    else changes[name] = name === "due_at" ? Math.floor(new Date(values[name]).getTime() / 1000) : Number(values[name]);
  }
  return changes;
}

/** Shows what the new version costs, and makes it once the person confirms. */
function Finalize({ path, onClose }) {
  const [quote, setQuote] = useState(null);
  const [problem, setProblem] = useState(null);
  const [busy, setBusy] = useState(false);
  const [once] = useState(onceKey);
  useEffect(() => void post(`${path}/finalize?dry_run=true`, {}).then(setQuote, setProblem), []);
  const doIt = async () => {
    setBusy(true);
    setProblem(null);
    try {
      const job = await post(`${path}/finalize`, {}, { once });
      onClose();
      location.hash = `#/jobs/${encodeURIComponent(job.id)}`;
    } catch (error) {
      setProblem(error);
      setBusy(false);
    }
  };
  return html`<${Dialog} title=${say("render.finalizeTitle")} onClose=${onClose}>
    <p>${say("render.finalizeText")}</p>
    <${QuoteWords} quote=${quote} waits=${!problem} />
    ${problem && html`<p class="wrong-words" role="alert">${describeProblem(problem)}</p>`}
    <div class="row end">
      <${Button} onClick=${onClose}>${say("action.back")}<//>
      <${Button} kind="primary" busy=${busy} disabled=${!quote} onClick=${doIt}>${say("render.finalizeYes")}<//>
    </div>
  <//>`;
}

function QuoteWords({ quote, waits }) {
  if (!quote) return html`<p class="quote-words">${waits ? say("loading") : ""}</p>`;
  const cached = quote.takes.filter((take) => take.cached).length;
  const values = {
    usd: money(quote.usd),
    gpu: number(quote.gpu_seconds, 1),
    takes: number(quote.takes.length - cached),
    all: number(quote.takes.length),
  };
  const at = quote.finishes_at;
  const ready = at ? say("render.quoteReady", { clock: clock(at), fromNow: fromNow(at) }) : "";
  return html`<p class="quote-words numbers"><strong>${say("render.quote", values)}</strong> ${ready}</p>`;
}
