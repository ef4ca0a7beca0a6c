// What a person can do with a film in the list. Each request is sent once, after a confirmation if it ends something, and
// the row shows the answer at once.

import { html, useState } from "../../vendor/htm-preact.js";
import { ApiProblem, onceKey, patch, post } from "../../api.js";
import { Button, Dialog, Notice, announce, describeProblem } from "../../components.js";
import { clock, fromNow, number, say, sayNumber } from "../../words.js";
import { raised } from "./film_list.js";
import { explainPath } from "./explanations.js";
import { usePolled } from "./polling.js";

const EXPLAIN_EVERY_MS = 5000;

/** {act(job, action), isBusy(job, action), problem, dialog}. `replace(job)` is called with the job's new state. */
export function useActions(replace) {
  const [busy, setBusy] = useState(null);
  const [problem, setProblem] = useState(null);
  const [open, setOpen] = useState(null); // {job, action} of a dialog
  const carryOut = async (job, action) => {
    setBusy(`${job.id} ${action}`);
    setProblem(null);
    try {
      replace(await ask(job, action));
      announce(say(`films.did.${action}`, { title: job.title }));
    } catch (error) {
      if (!(error instanceof ApiProblem)) throw error;
      setProblem(error);
    } finally {
      setBusy(null);
      keepFocus(job, action);
    }
  };
  const act = (job, action) => (action === "cancel" || action === "explain" ? setOpen({ job, action }) : carryOut(job, action));
  const close = () => setOpen(null);
  const dialog =
    open?.action === "cancel"
      ? html`<${ConfirmCancel} job=${open.job} close=${close} confirm=${() => (close(), carryOut(open.job, "cancel"))} />`
      : open && html`<${Explanation} job=${open.job} close=${close} />`;
  return { act, isBusy: (job, action) => busy === `${job.id} ${action}`, problem, dialog };
}

function ask(job, action) {
  const path = `/v1/jobs/${encodeURIComponent(job.id)}`;
  if (action === "raise") return patch(path, { priority: raised(job.priority) });
  return post(`${path}/${action}`, {}, { once: onceKey() });
}

/** A button loses the focus while it is busy. It gets it back or, if the action has removed it, the film's title does. */
function keepFocus(job, action) {
  setTimeout(() => {
    const active = document.activeElement;
    if (active && active !== document.body && !active.disabled) return;
    const button = document.getElementById(actionId(job, action));
    (button && !button.disabled ? button : document.getElementById(`film-${job.id}`))?.focus();
  });
}

export const actionId = (job, action) => `film-${job.id}-${action}`;

function ConfirmCancel({ job, close, confirm }) {
  return html`<${Dialog} title=${say("films.cancel.title")} onClose=${close}>
    <p>${say("films.cancel.text", { title: job.title })}</p>
    <div class="row end">
      <${Button} onClick=${close}>${say("films.cancel.keep")}<//>
      <${Button} kind="danger" onClick=${confirm}>${say("films.cancel.do")}<//>
    </div>
  <//>`;
}

function Explanation({ job, close }) {
  const { data, problem } = usePolled(explainPath(job.id), EXPLAIN_EVERY_MS);
  return html`<${Dialog} title=${say("films.explain.title", { title: job.title })} onClose=${close}>
    <div class="explanation">
      ${problem && html`<${Notice} kind="warning">${problem.status === 503 ? say("farm.away") : describeProblem(problem)}<//>`}
      ${!data && !problem && html`<p class="soft">${say("loading")}</p>`}
      ${data && html`<p>${data.words}</p><${Numbers} said=${data} />`}
    </div>
    <div class="row end"><${Button} onClick=${close}>${say("action.close")}<//></div>
  <//>`;
}

function Numbers({ said }) {
  const facts = [
    ["films.explain.place", said.position && number(said.position)],
    ["films.explain.ahead", said.ahead_gpu_seconds > 0 && sayNumber("gpuSeconds", Math.round(said.ahead_gpu_seconds))],
    ["films.explain.starts", said.starts_at && clock(said.starts_at)],
    ["films.explain.finishes", said.finishes_at && `${clock(said.finishes_at)} (${fromNow(said.finishes_at)})`],
  ];
  return html`<dl class="facts">
    ${facts.filter(([, value]) => value).map(([key, value]) => html`<div><dt>${say(key)}</dt><dd>${value}</dd></div>`)}
  </dl>`;
}
