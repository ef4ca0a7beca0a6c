// Plays the film or, while it renders, the finished beginning of a take (its head). A newer head replaces the one that
// plays at the same moment, without a black frame.

import { html, useEffect, useRef, useState } from "../../vendor/htm-preact.js";
import { Button, useMedia } from "../../components.js";
import { isOver } from "../../statuses.js";
import { duration, say } from "../../words.js";

const RETRY_MS = 3000;
const MOST_FAILURES = 5; // in a row

/** `onTime(seconds of the film)` is called with the playback position. */
export function Player({ job, layout, aspect, onTime }) {
  const heads = layout.takes
    .map((placed) => ({ placed, take: job.takes.find((one) => one.key === placed.key) }))
    .filter(({ take }) => take?.head);
  let shown = html`<${Empty} job=${job} aspect=${aspect} />`;
  if (job.film) shown = html`<${FilmPlayer} job=${job} aspect=${aspect} onTime=${onTime} />`;
  else if (heads.length) shown = html`<${HeadPlayer} heads=${heads} fps=${layout.fps} aspect=${aspect} onTime=${onTime} />`;
  return html`<section class="card render-player" aria-labelledby="player-title">
    <h2 id="player-title" class="unseen">${say("render.player")}</h2>
    ${shown}
  </section>`;
}

const shape = (aspect) => ({ aspectRatio: String(aspect) });

function Empty({ job, aspect }) {
  const key = isOver(job) ? "render.noFrames" : "render.noFramesYet";
  return html`<div class="screen empty" style=${shape(aspect)}><p>${say(key)}</p></div>
    <p class="screen-words soft"> </p>`;
}

function FilmPlayer({ job, aspect, onTime }) {
  const version = job.film.sha256.slice(0, 12);
  const [attempt, setAttempt] = useState(0);
  const film = useMedia(job.film.url, attempt ? `${version}-${attempt}` : version);
  const poster = useMedia(`/v1/jobs/${encodeURIComponent(job.id)}/thumbnail`, version);
  const failures = useRef(0);
  const place = useRef({ seconds: 0, plays: false }); // where to continue after a failure, such as a link that has expired
  const follow = ({ currentTarget: { currentTime, paused, readyState } }) => {
    if (readyState === HTMLMediaElement.HAVE_NOTHING) return; // a new address begins with a jump to 0
    place.current = { seconds: currentTime, plays: !paused };
    onTime(currentTime);
  };
  const resume = ({ currentTarget: video }) => {
    failures.current = 0;
    if (!attempt) return;
    video.currentTime = place.current.seconds;
    if (place.current.plays) video.play().catch(() => {});
  };
  const retry = () => ++failures.current <= MOST_FAILURES && setTimeout(() => setAttempt(attempt + 1), RETRY_MS);
  return html`<div class="screen" style=${shape(aspect)}>
      ${film && html`<video class="front" src=${film} poster=${poster} controls playsinline preload="metadata"
        aria-label=${say("render.filmOf", { title: job.title })} onTimeUpdate=${follow} onLoadedMetadata=${resume}
        onError=${retry}></video>`}
    </div>
    <p class="screen-words soft">${say("render.isFinished", { length: duration(job.film.seconds) })}</p>`;
}

function HeadPlayer({ heads, fps, aspect, onTime }) {
  const [key, setKey] = useState(heads[0].take.key);
  const index = Math.max(0, heads.findIndex(({ take }) => take.key === key));
  const { take, placed } = heads[index];
  const [loaded, setLoaded] = useState(take); // as it was when its head was loaded: a longer head has another address
  const [attempt, setAttempt] = useState(0);
  const [isAtEnd, setAtEnd] = useState(false);
  const fresh = take.head === loaded.head ? 0 : take.frames_decoded - loaded.frames_decoded;
  const url = useMedia(loaded.head, attempt ? `${attempt}` : "");
  const choose = (one) => (setKey(one.take.key), setLoaded(one.take), setAtEnd(false));
  const pick = (event) => choose(heads.find((one) => one.take.key === event.target.value));
  const again = () => void setTimeout(() => (setLoaded(take), setAttempt(attempt + 1)), RETRY_MS); // it may have been removed
  const update = () => (setLoaded(take), setAtEnd(false));
  useEffect(() => {
    if (!isAtEnd) return;
    const next = heads[index + 1];
    if (fresh > 0) update();
    else if (take.frames_decoded >= take.frames && next) choose(next);
  }, [isAtEnd, fresh, heads.length, take.frames_decoded]);
  const length = { length: duration(take.frames_decoded / fps), all: duration(take.frames / fps), take: take.key };
  return html`<div class="screen" style=${shape(aspect)}>
      <${SwappingVideo} url=${url} of=${take.key} label=${say("render.headOf", length)} onEnd=${setAtEnd}
        onBroken=${again} onTime=${(s) => onTime(placed.from_s + s)} />
    </div>
    <div class="screen-words row">
      <label class="row">${say("render.heads")}
        <select value=${take.key} onChange=${pick}>
          ${heads.map(
            (one) => html`<option key=${one.take.key} value=${one.take.key} selected=${one.take.key === take.key}>
              ${one.take.key}
            </option>`,
          )}
        </select>
      </label>
      <span class="soft numbers">${say(isAtEnd ? "render.headWaits" : "render.headOf", length)}</span>
      ${fresh > 0 &&
      !isAtEnd &&
      html`<${Button} kind="quiet" onClick=${update}>${say("render.newFrames", { length: duration(fresh / fps) })}<//>`}
    </div>`;
}

/** A muted video whose address may change: the new one is loaded behind the old one and takes over, at the same moment
 *  if it is `of` the same take, else at its beginning. */
function SwappingVideo({ url, of, label, onEnd, onBroken, onTime }) {
  const [front, setFront] = useState(null);
  const [videos, takes] = [useRef(new Map()), useRef(new Map())];
  const isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  if (url && !takes.current.has(url)) takes.current.set(url, of);
  const urls = [front, url].filter((one, place, all) => one && all.indexOf(one) === place);
  const arrive = async (event) => {
    const video = event.currentTarget;
    const before = videos.current.get(front);
    const plays = before ? !before.paused || before.ended : !isCalm;
    if (before && takes.current.get(front) === of) await moveTo(video, before.currentTime);
    if (plays) video.play().catch(() => {});
    setFront(url);
  };
  return html`<div>
    ${urls.map(
      (one) => html`<video key=${one} src=${one} class=${one === front ? "front" : "back"} aria-label=${label}
        ref=${(video) => (video ? videos.current.set(one, video) : videos.current.delete(one))}
        aria-hidden=${one !== front} controls=${one === front} muted playsinline
        preload="auto" tabindex=${one === front ? 0 : -1} onLoadedData=${one === front ? undefined : arrive}
        onTimeUpdate=${(event) => one === front && onTime(event.currentTarget.currentTime)}
        onPlay=${() => onEnd(false)} onEnded=${() => onEnd(true)} onError=${() => one === url && onBroken()}></video>`,
    )}
  </div>`;
}

function moveTo(video, seconds) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, 2000);
    video.addEventListener("seeked", () => (clearTimeout(timer), resolve()), { once: true });
    video.currentTime = Math.min(seconds, Math.max(0, video.duration - 0.01));
  });
}
