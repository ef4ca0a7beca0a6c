// Drafts of the same film that other tabs have left in this browser: each can be continued here or discarded.

import { html, useState } from "../../vendor/htm-preact.js";
import { Button } from "../../components.js";
import { fromNow, say, sayNumber } from "../../words.js";
import { discardOtherDraft, otherDrafts, restoreOtherDraft } from "./browser_storage.js";

const MOST = 5;

/** `onTake({place, draft})`: one is to be continued in this tab. */
export function OtherDrafts({ name, onTake }) {
  const [drafts] = useState(() => otherDrafts(name).slice(0, MOST));
  if (!drafts.length) return null;
  return html`<section class="card other-drafts" aria-labelledby="other-drafts-heading">
    <h2 id="other-drafts-heading">${say("sb.drafts")}</h2>
    <ul class="plain">
      ${drafts.map((kept) => html`<${OtherDraft} key=${kept.place} kept=${kept} onTake=${onTake} />`)}
    </ul>
  </section>`;
}

function OtherDraft({ kept, onTake }) {
  const [isGone, setIsGone] = useState(false);
  const { film, cards } = kept.draft;
  const title = String(film.title || say("sb.untitled"));
  const discard = () => (discardOtherDraft(kept), setIsGone(true));
  const restore = () => (restoreOtherDraft(kept), setIsGone(false));
  const about = `${sayNumber("sb.shots", cards.length)} · ${fromNow(kept.atMs / 1000)}`;
  return html`<li class="row apart">
    <span><strong dir="auto">${title}</strong> <span class="hint">${isGone ? say("sb.drafts.gone") : about}</span></span>
    <span class="row">
      ${isGone && html`<${Button} kind="quiet" onClick=${restore}>${say("sb.undo")}<//>`}
      ${!isGone &&
      html`<${Button} aria-label=${say("sb.drafts.continueOf", { title })}
          onClick=${() => onTake(kept)}>${say("sb.drafts.continue")}<//>
        <${Button} kind="quiet" aria-label=${say("sb.drafts.discardOf", { title })}
          onClick=${discard}>${say("sb.drafts.discard")}<//>`}
    </span>
  </li>`;
}
