// What was spent: GPU-seconds and money of each tenant over a period.

import { html, useState } from "../../vendor/htm-preact.js";
import { describeProblem } from "../../components.js";
import { money, number, percent, say } from "../../words.js";
import { usePolled } from "./polling.js";

const EVERY_MS = 30_000;
const DAY_S = 86_400;
const SPANS = { day: DAY_S, week: 7 * DAY_S, month: 30 * DAY_S, ever: null };

export function Spent() {
  const [span, setSpan] = useState("day");
  const [since, setSince] = useState(() => sinceOf("day"));
  const { data, problem } = usePolled(`/v1/usage?since=${since}`, EVERY_MS);
  const choose = (next) => (setSpan(next), setSince(sinceOf(next)));
  return html`<section aria-labelledby="spent-title">
    <div class="row apart">
      <h2 id="spent-title">${say("farm.spent")}</h2>
      <div class="chips" role="group" aria-label=${say("farm.spent.span")}>
        ${Object.keys(SPANS).map(
          (name) => html`<button type="button" class="chip" aria-pressed=${span === name} onClick=${() => choose(name)}>${say(`farm.spent.${name}`)}</button>`,
        )}
      </div>
    </div>
    ${problem && html`<p class="soft">${describeProblem(problem)}</p>`}
    ${data?.data.length === 0 && html`<p class="soft">${say("farm.spent.nothing")}</p>`}
    ${data?.data.length > 0 && html`<${Sums} rows=${data.data} />`}
  </section>`;
}

/** The beginning of the period, in Unix seconds. */
const sinceOf = (span) => (SPANS[span] === null ? 0 : Math.floor(Date.now() / 1000 - SPANS[span]));

function Sums({ rows }) {
  return html`<div class="scroll-x card flat" tabindex="0" role="group" aria-labelledby="spent-title">
    <table>
      <thead>
        <tr>
          <th scope="col">${say("films.tenant")}</th>
          <th scope="col" class="number">${say("farm.spent.useful")}</th>
          <th scope="col" class="number">${say("farm.spent.wasted")}</th>
          <th scope="col" class="number">${say("films.cost")}</th>
        </tr>
      </thead>
      <tbody>
        ${rows.map(
          (row) => html`<tr key=${row.tenant}>
            <td>${row.tenant}</td>
            <td class="number">${number(row.gpu_seconds)}</td>
            <td class="number">${number(row.wasted_gpu_seconds)} <span class="soft">${wasted(row)}</span></td>
            <td class="number">${money(row.usd)}</td>
          </tr>`,
        )}
      </tbody>
    </table>
  </div>`;
}

function wasted({ gpu_seconds, wasted_gpu_seconds }) {
  const all = gpu_seconds + wasted_gpu_seconds;
  return all ? say("farm.spent.share", { share: percent(wasted_gpu_seconds / all) }) : "";
}
