// The timeline of the film: takes to scale, each a heat map of latents and denoising steps, with its shots beneath. Display
// only; take_words.js says the same in words.

import { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "../../vendor/htm-preact.js";
import { Button } from "../../components.js";
import { number, say, sayNumber } from "../../words.js";
import { stepOf } from "./heat_map.js";
import { fittingScale, placeNames } from "./layout.js";
import { LANE, RULER, TONES, canvasHeight, laneTop, paint } from "./paint.js";
import { TakeDetails, TakeTable, describeCall, describeTake } from "./take_words.js";

const ZOOM = 1.6;
const MOST_PIXELS_PER_SECOND = 400;

/** `entries`: Map of take key to timeline entry; `at`: their time in Unix seconds. The function put into `onTime.current`
 *  moves the playhead, to seconds of the film. */
export function Timeline({ job, layout, entries, at, onTime }) {
  const [chosen, setChosen] = useState(null);
  const shown = chosen ?? firstOfInterest(job);
  return html`<section class="card render-timeline" aria-labelledby="timeline-title">
    <${Reel} ...${{ job, layout, entries, at, onTime, shown }} onChoose=${setChosen} />
    <${TakeDetails} job=${job} take=${job.takes.find((take) => take.key === shown)} entry=${entries.get(shown)} at=${at} />
    <${TakeTable} job=${job} entries=${entries} />
  </section>`;
}

function firstOfInterest(job) {
  return (job.takes.find((take) => take.status === "rendering") ?? job.takes[0])?.key;
}

function Reel({ job, layout, entries, at, onTime, shown, onChoose }) {
  const [box, canvas, probes, mark] = [useRef(), useRef(), useRef(), useRef()];
  const width = useWidth(box);
  const [zoom, setZoom] = useState(1);
  const fit = fittingScale(layout, width);
  const scale = Math.min(fit * zoom, Math.max(fit, MOST_PIXELS_PER_SECOND));
  const [pointer, setPointer] = useState(null);
  const tones = useTones(probes);
  useKeptCentre(box, scale, width);
  usePlayhead(mark, onTime, scale);
  usePainting(box, canvas, { layout, entries, scale, width, tones });
  const inner = Math.max(width, Math.ceil(layout.seconds * scale));
  const point = (event) => {
    const place = box.current.getBoundingClientRect();
    setPointer({ x: event.clientX - place.left, y: event.clientY - place.top, scroll: box.current.scrollLeft });
  };
  const tip = pointer && describePoint(pointer, { layout, entries, scale, at });
  return html`<div class="row apart timeline-head">
      <h2 id="timeline-title">${say("render.timeline")}</h2>
      <${Legend} hasDraft=${[...entries.values()].some((entry) => entry.draft_steps)} />
      <div class="row zoom" role="group" aria-label=${say("render.zoom")}>
        <${Button} kind="icon" aria-label=${say("render.zoomOut")} disabled=${zoom <= 1}
          onClick=${() => setZoom(Math.max(1, zoom / ZOOM))}>−<//>
        <${Button} kind="icon" aria-label=${say("render.zoomIn")} disabled=${fit * zoom >= MOST_PIXELS_PER_SECOND}
          onClick=${() => setZoom(zoom * ZOOM)}>+<//>
        <${Button} disabled=${zoom === 1} onClick=${() => setZoom(1)}>${say("render.zoomFit")}<//>
      </div>
    </div>
    <div class="reel-frame">
      <div class="reel" ref=${box} onPointerMove=${point} onPointerLeave=${() => setPointer(null)}>
        <div class="reel-inner" style=${{ width: `${inner}px` }}>
          <canvas ref=${canvas} aria-hidden="true"
            style=${{ width: `${width}px`, height: `${canvasHeight(layout.lanes)}px` }}></canvas>
          <${TakeButtons} ...${{ job, layout, entries, scale, shown, onChoose }} />
          <${ShotMarks} layout=${layout} scale=${scale} />
          <div class="playhead" ref=${mark} hidden></div>
        </div>
      </div>
      ${tip &&
      html`<div class="reel-tip" aria-hidden="true" style=${tipPlace(pointer, width)}>
        ${tip.map((line) => html`<div>${line}</div>`)}
      </div>`}
      <span ref=${probes} hidden>${TONES.map((tone) => html`<i style=${{ color: `var(--${tone})` }}></i>`)}</span>
    </div>`;
}

function Legend({ hasDraft }) {
  return html`<ul class="legend soft">
    <li><span class="swatch ramp" aria-hidden="true"></span>${say("render.legend.steps")}</li>
    <li><span class="swatch done" aria-hidden="true"></span>${say("render.legend.done")}</li>
    ${hasDraft && html`<li><span class="swatch draft" aria-hidden="true"></span>${say("render.legend.draft")}</li>`}
    <li><span class="swatch chunk" aria-hidden="true"></span>${say("render.legend.chunk")}</li>
    <li><span class="swatch chunk again" aria-hidden="true"></span>${say("render.legend.again")}</li>
  </ul>`;
}

/** One tab stop; arrow keys move from take to take. */
function TakeButtons({ job, layout, entries, scale, shown, onChoose }) {
  const group = useRef();
  const move = (event) => {
    const keys = layout.takes.map((take) => take.key);
    const here = keys.indexOf(shown);
    const [before, after] = [here - 1, here + 1];
    const ways = { ArrowRight: after, ArrowDown: after, ArrowLeft: before, ArrowUp: before, Home: 0, End: keys.length - 1 };
    const to = ways[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const next = Math.min(Math.max(to, 0), keys.length - 1);
    onChoose(keys[next]);
    group.current.children[next].focus();
  };
  return html`<div class="reel-takes" ref=${group} role="group" aria-label=${say("render.takes")} onKeyDown=${move}>
    ${layout.takes.map((take) => {
      const style = {
        left: `${take.from_s * scale}px`,
        width: `${(take.to_s - take.from_s) * scale}px`,
        top: `${laneTop(take.lane)}px`,
        height: `${LANE}px`,
      };
      const told = job.takes.find((one) => one.key === take.key);
      const isShown = take.key === shown;
      return html`<button type="button" key=${take.key} class="reel-take" style=${style} tabindex=${isShown ? 0 : -1}
        aria-pressed=${isShown} aria-label=${told && describeTake(job, told, entries.get(take.key))}
        onClick=${() => onChoose(take.key)}>
        ${told?.retries > 0 &&
        html`<span class="retries" title=${sayNumber("render.retries", told.retries)}>↻ ${number(told.retries)}</span>`}
      </button>`;
    })}
  </div>`;
}

/** Shot ids to scale beneath the takes. Hidden from screen readers: shot cards and takes say the same. */
function ShotMarks({ layout, scale }) {
  const names = placeNames(layout.shots, scale);
  const signs = { cut: "", continue: "→ ", dissolve: "⤫ " };
  return html`<div class="reel-shots" aria-hidden="true">
    ${layout.shots.map((shot) => {
      const width = names.get(shot.id);
      const style = { left: `${shot.start_s * scale}px`, width: `${width ?? 0}px` };
      const name = width && `${signs[shot.transition]}${shot.id}`;
      return html`<span key=${shot.id} class="reel-shot ${shot.transition}" style=${style} title=${shot.id}>${name}</span>`;
    })}
  </div>`;
}

// ------------------------------------------------------------------------------------------------ what is under the pointer

function describePoint(pointer, { layout, entries, scale, at }) {
  const seconds = (pointer.x + pointer.scroll) / scale;
  const take = layout.takes.find((one) => {
    const y = pointer.y - laneTop(one.lane);
    return seconds >= one.from_s && seconds < one.to_s && y >= 0 && y < LANE;
  });
  const entry = take && entries.get(take.key);
  if (!entry) return null;
  const latent = Math.min(entry.latents - 1, Math.floor(((seconds - take.from_s) / (take.to_s - take.from_s)) * entry.latents));
  const values = {
    take: take.key,
    latent: number(latent + 1),
    latents: number(entry.latents),
    step: number(stepOf(entry, latent)),
    steps: number(entry.steps),
  };
  const calls = entry.in_flight.filter((call) => latent >= call.start && latent < call.stop);
  return [say("render.point", values), ...calls.map((call) => describeCall(call, entry, at))];
}

function tipPlace({ x, y }, width) {
  const right = x > width / 2;
  return { top: `${Math.max(RULER, y + 16)}px`, left: right ? "auto" : `${x + 12}px`, right: right ? `${width - x + 12}px` : "auto" };
}

// ------------------------------------------------------------------------------------------------ measuring and painting

function useWidth(box) {
  const [width, setWidth] = useState(640);
  useLayoutEffect(() => {
    const watch = new ResizeObserver(() => setWidth(box.current.clientWidth));
    watch.observe(box.current);
    setWidth(box.current.clientWidth);
    return () => watch.disconnect();
  }, []);
  return width;
}

/** The current colours of TONES. A canvas cannot read CSS variables, so they are read from elements that use them. */
function useTones(probes) {
  const [tones, setTones] = useState(null);
  useLayoutEffect(() => {
    const read = () => {
      const colours = [...probes.current.children].map((probe) => getComputedStyle(probe).color);
      setTones(Object.fromEntries(TONES.map((tone, index) => [tone, colours[index]])));
    };
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    const watch = new MutationObserver(read);
    watch.observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
    scheme.addEventListener("change", read);
    read();
    return () => (watch.disconnect(), scheme.removeEventListener("change", read));
  }, []);
  return tones;
}

function usePainting(box, canvas, scene) {
  const latest = useRef();
  latest.current = scene;
  const draw = useMemo(() => {
    let asked = 0;
    return () => {
      if (asked) return;
      asked = requestAnimationFrame(() => {
        asked = 0;
        if (!canvas.current || !latest.current.tones) return;
        paint(canvas.current, { ...latest.current, scroll: box.current.scrollLeft });
      });
    };
  }, []);
  useEffect(draw, [scene.layout, scene.entries, scene.scale, scene.width, scene.tones]);
  useEffect(() => {
    const reel = box.current;
    reel.addEventListener("scroll", draw, { passive: true });
    return () => reel.removeEventListener("scroll", draw);
  }, []);
}

/** Keeps the middle in the middle when the scale changes. */
function useKeptCentre(box, scale, width) {
  const before = useRef(scale);
  useLayoutEffect(() => {
    const middle = (box.current.scrollLeft + width / 2) / before.current;
    box.current.scrollLeft = middle * scale - width / 2;
    before.current = scale;
  }, [scale]);
}

/** Moved without rendering the page again: a video reports its position several times a second. */
function usePlayhead(mark, onTime, scale) {
  const seconds = useRef(null);
  useLayoutEffect(() => {
    const move = (at) => {
      seconds.current = at;
      mark.current.hidden = at === null;
      mark.current.style.transform = `translateX(${at * scale}px)`;
    };
    onTime.current = move;
    move(seconds.current);
    return () => (onTime.current = null);
  }, [scale]);
}
