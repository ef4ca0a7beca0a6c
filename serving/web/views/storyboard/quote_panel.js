// What the film costs, when it should be ready, its options, and the button that submits it.

import { html } from "../../vendor/htm-preact.js";
import { Button, Field, Progress, describeProblem } from "../../components.js";
import { clock, duration, fromNow, money, number, say, sayNumber } from "../../words.js";
import { setOption } from "./draft.js";
import { ChoiceField, NumberField } from "./fields.js";

/** `asked`: as useQuote gives it; `wrong`: how many problems are shown; `sending`: as useSending gives it; `version`:
 *  of the film to be made, from 1; `isUnchanged`: there is nothing to render. */
export function QuotePanel({ asked, draft, pools, at, fix, change, children, ...rest }) {
  const { wrong, sending, version, isUnchanged, onSend, onShowWrong } = rest;
  return html`<aside class="card quote" aria-labelledby="quote-heading">
    <div class="row apart">
      <h2 id="quote-heading">${say("sb.quote.heading")}</h2>
      <span class="hint">${quoteState(asked, wrong)}</span>
    </div>
    <div class="figures ${asked.isCurrent ? "" : "old"}"><${Figures} quote=${asked.quote} draft=${draft} /></div>
    ${children}
    <${Options} draft=${draft} pools=${pools} at=${at} fix=${fix} change=${change} />
    <${SendButton} sending=${sending} version=${version} onSend=${onSend} isUnchanged=${isUnchanged} />
    ${isUnchanged && html`<p class="hint">${say("sb.unchanged")}</p>`}
    <${SendState} sending=${sending} />
    ${wrong > 0 && html`<${WrongCount} wrong=${wrong} onShowWrong=${onShowWrong} />`}
  </aside>`;
}

/** The same in two lines, at the bottom of a phone's screen. */
export function QuoteBar({ asked: { quote, isCurrent }, wrong, sending, version, isUnchanged, onSend, onShowWrong }) {
  const figures = quote
    ? html`<strong>${duration(quote.seconds)}</strong> · ${costWords(quote)}<br />${readyWords(quote)}`
    : say("sb.quote.none");
  const said = html`<p class="numbers ${isCurrent ? "" : "old"}">${figures}</p>`;
  const mend = html`<${WrongCount} wrong=${wrong} onShowWrong=${onShowWrong} />`;
  return html`<div class="quote-bar">
    ${sending.state === "waiting" ? html`<${SendState} sending=${sending} />` : wrong > 0 ? mend : said}
    <${SendButton} sending=${sending} version=${version} onSend=${onSend} isUnchanged=${isUnchanged} />
  </div>`;
}

function WrongCount({ wrong, onShowWrong }) {
  return html`<p class="wrong-count"><span aria-hidden="true">▲</span> ${sayNumber("sb.wrong", wrong)}${" "}
    <button type="button" class="link" onClick=${onShowWrong}>${say("sb.wrong.show")}</button></p>`;
}

function quoteState(asked, wrong) {
  if (asked.trouble) return describeProblem(asked.trouble);
  if (asked.isPending) return say("sb.quote.pending");
  if (asked.isCurrent) return "";
  return say(wrong ? (asked.quote ? "sb.quote.wrong" : "sb.quote.mend") : "sb.quote.unknown");
}

const costWords = ({ usd, gpu_seconds }) =>
  usd || !gpu_seconds ? money(usd) : say("sb.quote.gpuTime", { time: duration(gpu_seconds) });

const priceWords = ({ usd, gpu_seconds }) => (usd || !gpu_seconds ? money(usd) : say("sb.quote.noPrice"));

const readyWords = ({ finishes_at: at }) =>
  at ? say("sb.quote.ready", { clock: clock(at), in: fromNow(at) }) : say("sb.quote.noTime");

function Figures({ quote, draft }) {
  const none = "–";
  return html`<dl>
      <${Figure} name="length" value=${quote ? duration(quote.seconds) : none} />
      <${Figure} name="frames" value=${quote ? number(quote.frames) : none} />
      <${Figure} name="calls" value=${quote ? number(quote.calls) : none} />
      <${Figure} name="gpu" value=${quote ? duration(quote.gpu_seconds) : none} />
      <${Figure} name="cost" value=${quote ? priceWords(quote) : none} />
      <${Figure} name="finish" value=${quote ? readyWords(quote) : none} />
    </dl>
    <${Warnings} quote=${quote} />
    <${Budget} quote=${quote} budgetUsd=${draft.options.budget} />
    <${Due} quote=${quote} isAsked=${Boolean(draft.options.due)} />
    <${Takes} quote=${quote} />`;
}

/** What the film will not show of the storyboard. */
function Warnings({ quote }) {
  if (!quote?.warnings?.length) return null;
  return html`<ul class="hint" aria-label=${say("sb.warnings")}>
    ${quote.warnings.map(({ path, message }) => html`<li key=${path}>${`⚠ ${path}: ${message}`}</li>`)}
  </ul>`;
}

function Figure({ name, value }) {
  return html`<div><dt>${say(`sb.quote.${name}`)}</dt><dd class="numbers">${value}</dd></div>`;
}

function Budget({ quote, budgetUsd }) {
  if (!quote || typeof budgetUsd !== "number" || !(budgetUsd > 0)) return null;
  const isOver = quote.usd > budgetUsd;
  const words = say(isOver ? "sb.budget.over" : "sb.budget.within", { cost: money(quote.usd), budget: money(budgetUsd) });
  return html`<div class="budget ${isOver ? "over" : ""}">
    <${Progress} share=${Math.min(1, quote.usd / budgetUsd)} label=${say("sb.budget.label")} />
    <p class="hint">${isOver && html`<span aria-hidden="true">⚠ </span>`}${words}</p>
  </div>`;
}

function Due({ quote, isAsked }) {
  if (!quote || !isAsked) return null;
  const feasible = quote.due_feasible;
  if (feasible === null) return html`<p class="hint">${say("sb.due.unknown")}</p>`;
  return html`<p class="due ${feasible ? "met" : "missed"}">
    <span aria-hidden="true">${feasible ? "✓" : "⚠"}</span> ${say(feasible ? "sb.due.met" : "sb.due.missed")}
  </p>`;
}

function Takes({ quote }) {
  if (!quote) return null;
  const kept = quote.takes.filter(({ cached }) => cached).length;
  return html`<details class="takes">
    <summary>
      ${sayNumber("sb.takes", quote.takes.length)}${kept > 0 && `, ${say("sb.takes.kept", { n: number(kept) })}`}
    </summary>
    <div class="scroll" tabindex="0" role="region" aria-label=${say("sb.takes.label")}><table>
      <thead><tr><th>${say("sb.takes.take")}</th><th class="number">${say("sb.takes.calls")}</th><th
        class="number">${say("sb.takes.cost")}</th></tr></thead>
      <tbody>
        ${quote.takes.map(
          (take) => html`<tr key=${take.key}>
            <th scope="row" class="mono">${take.key}${take.shots.length > 1 && ` +${number(take.shots.length - 1)}`}</th>
            <td class="number">${take.cached ? "" : number(take.calls)}</td>
            <td class="number">${take.cached
              ? html`<span class="fate kept"><span class="sign" aria-hidden="true"></span>${say("sb.take.kept")}</span>`
              : costWords(take)}</td>
          </tr>`,
        )}
      </tbody>
    </table></div>
  </details>`;
}

function Options({ draft: { options }, pools, at, fix, change }) {
  const set = (key) => (value) => change((now) => setOption(now, key, value), `option.${key}`);
  const dueControl = (attributes) =>
    html`<input type="datetime-local" value=${options.due}
      onInput=${(event) => set("due")(event.target.value)} ...${attributes} />`;
  return html`<fieldset class="options">
    <legend>${say("sb.options.heading")}</legend>
    <${NumberField} label=${say("sb.options.priority")} value=${options.priority} problems=${at("priority")} fix=${fix}
      placeholder="50" title=${say("sb.options.priority.hint")} onChange=${set("priority")} />
    <${NumberField} label=${say("sb.options.budget")} value=${options.budget} problems=${at("budget_usd")} fix=${fix}
      placeholder=${say("sb.options.noLimit")} onChange=${set("budget")} />
    <${Field} label=${say("sb.options.due")} problems=${at("due_at")} control=${dueControl} />
    ${pools.length > 1 &&
    html`<${ChoiceField} label=${say("sb.options.pool")} value=${options.pool} problems=${at("pool")}
      onChange=${set("pool")}
      choices=${[["", say("sb.options.anyPool")], ...pools.map((pool) => [pool, pool])]} />`}
  </fieldset>`;
}

function SendButton({ sending, version, isUnchanged, onSend }) {
  const words = version > 1 ? say("sb.send.version", { n: number(version) }) : say("sb.send");
  const isBusy = sending.state !== "idle";
  return html`<${Button} kind="primary" class="button primary send" busy=${isBusy} aria-disabled=${isUnchanged}
    onClick=${onSend}
    aria-keyshortcuts="Control+Enter" title=${say("sb.send.hint")}>${isBusy ? say("sb.send.busy") : words}<//>`;
}

function SendState({ sending }) {
  if (sending.state !== "waiting") return null;
  return html`<p class="hint send-state" role="status">${describeProblem(sending.problem)} ${say("sb.send.waiting")}${" "}
    <button type="button" class="link" onClick=${sending.stop}>${say("sb.send.stop")}</button></p>`;
}
