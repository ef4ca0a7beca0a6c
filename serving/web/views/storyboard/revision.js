// Refining a film: what has changed since the version before, and how much of it is rendered again.

import { html } from "../../vendor/htm-preact.js";
import { number, say, sayNumber } from "../../words.js";

const MOST_CHARS = 160;

/** `changes` as changesBetween makes them; `quote` of the new version, or null. */
export function Changes({ changes, quote }) {
  const anew = quote?.takes.filter(({ cached }) => !cached).length;
  const fate = quote ? say("sb.changes.anew", { n: number(anew), all: number(quote.takes.length) }) : "";
  return html`<section class="changes" aria-labelledby="changes-heading">
    <h3 id="changes-heading">${say("sb.changes.heading")}</h3>
    <p class="hint" role="status">${fate}</p>
    ${changes.length
      ? html`<details open>
          <summary>${sayNumber("sb.changes", changes.length)}</summary>
          <ul class="plain">${changes.map((one) => html`<li key=${one.path}><${Change} ...${one} /></li>`)}</ul>
        </details>`
      : html`<p class="hint">${say("sb.changes.none")}</p>`}
  </section>`;
}

function Change({ path, shot, before, after }) {
  if (path === "order") return html`<span>${say("sb.changes.order")}</span>`;
  if (shot !== undefined && path === shot) {
    return html`<code>${path}</code> ${say(before === undefined ? "sb.changes.added" : "sb.changes.removed")}`;
  }
  return html`<code>${path}</code>
    <del><span class="unseen">${say("sb.changes.was")} </span>${shown(before)}</del>
    <ins><span class="unseen">${say("sb.changes.is")} </span>${shown(after)}</ins>`;
}

function shown(value) {
  if (value === undefined) return say("sb.changes.usual");
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return text.length > MOST_CHARS ? `${text.slice(0, MOST_CHARS)}…` : text;
}
