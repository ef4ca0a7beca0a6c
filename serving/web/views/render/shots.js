// The strip of shots: a card for each, with its picture as it emerges from the noise, its state and its cost.

import { html, useEffect, useRef, useState } from "../../vendor/htm-preact.js";
import { Badge, useMedia } from "../../components.js";
import { duration, money, number, say, sayNumber } from "../../words.js";
import { stateOf, sumUpPart } from "./heat_map.js";

/** The farm's picture of a take is a strip of this many of its latents, evenly spaced, or of all if it has fewer. */
const TILES = 12;
const PICTURE_EVERY_MS = 2000;

/** `costs`: Map of shot id to {usd}; `aspect`: width over height of the film. */
export function ShotStrip({ job, layout, entries, costs, aspect }) {
  return html`<section class="render-shots" aria-labelledby="shots-title">
    <h2 id="shots-title">${say("render.shots")}</h2>
    <ol class="shot-strip" tabindex="0" aria-labelledby="shots-title">
      ${layout.takes.map((placed) => {
        const take = job.takes.find((one) => one.key === placed.key);
        const entry = entries.get(placed.key);
        return take && html`<${TakeCards} key=${take.key} ...${{ job, placed, take, entry, costs, aspect }} />`;
      })}
    </ol>
  </section>`;
}

function TakeCards({ job, placed, take, entry, costs, aspect }) {
  const picture = usePicture(take.preview, take.preview && `${take.calls_done}`);
  return placed.shots.map(
    (shot) => html`<${ShotCard} key=${shot.id} cost=${costs.get(shot.id)}
      ...${{ job, shot, placed, take, entry, picture, aspect }} />`,
  );
}

function ShotCard({ job, shot, placed, take, entry, picture, cost, aspect }) {
  const span = placed.to_s - placed.from_s;
  const [start, stop] = [(shot.start_s - placed.from_s) / span, (shot.stop_s - placed.from_s) / span];
  const part = entry ? sumUpPart(entry, start, stop) : { finished: 0, latents: 0 };
  const begins = shot.index === 0 ? "" : say(`render.begins.${shot.transition}`, { seconds: number(shot.dissolve_s, 2) });
  const [state, words] = stateOf(job, take);
  const lines = [duration(shot.stop_s - shot.start_s), begins].filter(Boolean).join(" · ");
  return html`<li class="shot-card" data-shot=${shot.id}>
    <${Picture} picture=${picture} latents=${take.latents} share=${(start + stop) / 2} aspect=${aspect} id=${shot.id} />
    <div class="shot-body">
      <h3 class="shot-id">${shot.id}</h3>
      <${Badge} state=${state} words=${words} />
      <p class="soft numbers">${lines}</p>
      <p class="shot-prompt" title=${shot.prompt}>${shot.prompt}</p>
      <p class="soft numbers shot-numbers">
        <span>${say("render.latents", { n: number(part.finished), all: number(part.latents) })}</span>
        <span>${take.cached ? say("render.cached") : money(cost?.usd ?? 0)}</span>
        ${take.retries > 0 && shot.id === take.key && html`<span>↻ ${sayNumber("render.retries", take.retries)}</span>`}
      </p>
    </div>
  </li>`;
}

/** One picture of a take's strip: the box has the shape of one, so `object-fit: cover` and a position show just that. */
function Picture({ picture, latents, share, aspect, id }) {
  const tiles = Math.min(TILES, latents);
  const tile = Math.min(tiles - 1, Math.floor(share * tiles));
  const place = `${tiles > 1 ? (100 * tile) / (tiles - 1) : 50}% 50%`;
  const shape = { aspectRatio: String(aspect), [aspect > 16 / 10 ? "width" : "height"]: "100%" };
  return html`<div class="shot-picture ${picture ? "" : "empty"}">
    ${picture &&
    html`<img src=${picture} alt=${say("render.picture", { shot: id })} style=${{ ...shape, objectPosition: place }} />`}
    ${!picture && html`<span class="soft">${say("render.noPicture")}</span>`}
  </div>`;
}

/** The address of the newest decoded picture. The one before stays until then. */
function usePicture(path, stamp) {
  const paced = usePaced(stamp, PICTURE_EVERY_MS);
  const url = useMedia(paced ? path : null, paced);
  const [shown, setShown] = useState(null);
  useEffect(() => {
    if (!url) return undefined;
    let over = false;
    const image = new Image();
    image.src = url;
    image.decode().then(() => !over && setShown(url), () => {});
    return () => (over = true);
  }, [url]);
  return shown;
}

/** A value that changes at most once every `everyMs`; the last value is never dropped. */
function usePaced(value, everyMs) {
  const [paced, setPaced] = useState(value);
  const last = useRef(0);
  useEffect(() => {
    if (value === paced) return undefined;
    const wait = Math.max(0, last.current + everyMs - Date.now());
    const timer = setTimeout(() => {
      last.current = Date.now();
      setPaced(value);
    }, wait);
    return () => clearTimeout(timer);
  }, [value, paced]);
  return paced;
}
