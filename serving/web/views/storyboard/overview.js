// The whole film to scale above the strip: shots, ends of takes, lengths of dissolves. A click leads to the card. It is
// hidden from screen readers, since the cards say the same.

import { html } from "../../vendor/htm-preact.js";
import { dissolveFrames, framesOf, transitionKind } from "./draft.js";

export function Overview({ cards, fps, shots, onPick }) {
  const frames = cards.map(({ shot }) => framesOf(shot.seconds, fps) || 0);
  const total = frames.reduce((sum, one) => sum + one, 0);
  if (cards.length < 2 || !total) return null;
  return html`<div class="overview" aria-hidden="true">
    ${cards.map(({ key, shot }, index) => {
      const fade = index ? Math.min(1, dissolveFrames(shot, fps) / (frames[index] || 1)) : 0;
      const kind = index ? transitionKind(shot) : "first";
      const fate = shots[index].take?.cached ? "kept" : "";
      const style = { flexGrow: frames[index], "--fade": `${Math.round(fade * 100)}%` };
      return html`<div key=${key} class="bit ${kind} ${fate} ${shots[index].hasWrong ? "is-wrong" : ""}" style=${style}
        title=${String(shot.id)} onClick=${() => onPick(key)}><span>${String(shot.id)}</span></div>`;
    })}
  </div>`;
}
