// Takes in words: what their heat maps show, for those who cannot see them, and what a heat map cannot show.

import { html, useState } from "../../vendor/htm-preact.js";
import { duration, money, number, percent, say, sayNumber, sayState } from "../../words.js";
import { stateOf, sumUp } from "./heat_map.js";

const MOST_FLIGHTS = 5; // told in words; the timeline shows all

/** The take that is chosen: what there is of it, and its chunks that are with gangs. */
export function TakeDetails({ job, take, entry, at }) {
  if (!take || !entry) return null;
  const more = entry.in_flight.length - MOST_FLIGHTS;
  return html`<div class="take-details" id="take-details">
    <p>${describeTake(job, take, entry)}</p>
    <ul class="flights numbers">
      ${entry.in_flight
        .slice(0, MOST_FLIGHTS)
        .map((call) => html`<li key="${call.start}-${call.step}">${describeCall(call, entry, at)}</li>`)}
      ${more > 0 && html`<li class="soft">${say("render.moreFlights", { n: number(more) })}</li>`}
      ${entry.in_flight.length === 0 && html`<li class="soft">${say(`render.noFlight.${take.status}`)}</li>`}
    </ul>
    ${!entry.exact && html`<p class="soft">${say("render.inexact")}</p>`}
  </div>`;
}

/** A take in a sentence. */
export function describeTake(job, take, entry) {
  if (!entry) return say("render.takeName", { take: take.key });
  const sum = sumUp(entry);
  const values = { take: take.key, shots: take.shots.join(", "), state: stateWords(job, take), ...spoken(sum) };
  const parts = [say("render.takeSays", values)];
  if (take.cached) parts.push(say("render.takeCached"));
  else if (sum.finished < sum.latents) parts.push(say("render.takeSteps", spoken(sum)));
  if (take.retries) parts.push(sayNumber("render.retries", take.retries));
  return `${parts.join(" · ")}.`;
}

function stateWords(job, take) {
  const [, words] = stateOf(job, take);
  return sayState(words);
}

const speak = ([name, value]) => [name, name === "share" ? percent(value) : number(value)];
const spoken = (sum) => Object.fromEntries(Object.entries(sum).map(speak));

/** A call that a gang has, in a sentence. `at`: unix seconds now. */
export function describeCall(call, entry, at) {
  const values = {
    first: number(call.start + 1),
    last: number(call.stop),
    step: number(call.step + 1),
    steps: number(entry.steps),
    gang: call.gang,
    age: duration(at - call.since),
  };
  const words = say("render.flight", values);
  return call.try > 1 ? `${words} · ${say("render.flightTry", { n: number(call.try) })}` : words;
}

/** The same as the heat maps, as a table; made when it is opened. */
export function TakeTable({ job, entries }) {
  const [open, setOpen] = useState(false);
  const columns = ["take", "shots", "state", "finished", "steps", "flight", "retries", "cost"];
  return html`<details class="take-table" onToggle=${(event) => setOpen(event.currentTarget.open)}>
    <summary>${say("render.asTable")}</summary>
    ${open &&
    html`<div class="scroll-x" tabindex="0" role="region" aria-label=${say("render.asTable")}>
      <table class="numbers">
        <thead><tr>${columns.map((name) => html`<th scope="col">${say(`render.column.${name}`)}</th>`)}</tr></thead>
        <tbody>
          ${job.takes.map(
            (take) => html`<${TakeRow} key=${take.key} job=${job} take=${take} sum=${sumUp(entries.get(take.key))} />`,
          )}
        </tbody>
      </table>
    </div>`}
  </details>`;
}

function TakeRow({ job, take, sum }) {
  const cells = [
    take.shots.join(", "),
    stateWords(job, take),
    say("render.ofAll", { n: number(sum.finished), all: number(sum.latents) }),
    sum.least === sum.most ? number(sum.most) : say("render.fromTo", { from: number(sum.least), to: number(sum.most) }),
    number(sum.inFlight),
    number(take.retries),
    money(take.cost.usd),
  ];
  return html`<tr><th scope="row">${take.key}</th>${cells.map((cell) => html`<td>${cell}</td>`)}</tr>`;
}
