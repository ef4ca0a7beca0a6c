// Facts of a finished film: files to download, its hash, its seams.

import { html, useEffect, useState } from "../../vendor/htm-preact.js";
import { fetchText, keptKey, mediaUrl } from "../../api.js";
import { Button, describeProblem } from "../../components.js";
import { duration, number, say } from "../../words.js";

/** A seam may be visible if its frames differ this many times more than the rest of the take. */
const SEEN = 1.5;

export function FilmFacts({ job }) {
  const { film } = job;
  const manifest = useManifest(job.links.manifest);
  const size = [
    film.width && `${film.width} × ${film.height}`,
    film.fps && say("render.fps", { n: number(film.fps) }),
    film.bytes && bytes(film.bytes),
  ];
  const facts = [
    ["length", `${duration(film.seconds)} · ${say("render.frames", { n: number(film.frames) })}`],
    ["size", size.filter(Boolean).join(" · ")],
    ["seams", manifest ? describeSeams(manifest.seams ?? []) : ""],
    ["hash", html`<code class="hash">${film.sha256}</code>`],
  ];
  return html`<section class="card render-film" aria-labelledby="film-title">
    <h2 id="film-title">${say("render.film")}</h2>
    <div class="row">
      <${Download} path=${job.links.film} kind="primary">${say("render.saveFilm")}<//>
      <${Download} path=${job.links.manifest}>${say("render.saveManifest")}<//>
    </div>
    <dl class="job-facts numbers">
      ${facts
        .filter(([, text]) => text)
        .map(
          ([name, text]) => html`<div class="fact-${name}">
            <dt>${say(`render.fact.${name}`)}</dt>
            <dd>${text}</dd>
          </div>`,
        )}
    </dl>
  </section>`;
}

/** A link; behind a key a button, which asks for a signed link first. The farm names the file. */
function Download({ path, kind = "plain", children }) {
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState(null);
  if (!keptKey()) return html`<a class="button ${kind}" href=${path} download="">${children}</a>`;
  const save = async () => {
    setBusy(true);
    setProblem(null);
    try {
      Object.assign(document.createElement("a"), { href: await mediaUrl(path), download: "" }).click();
    } catch (error) {
      setProblem(error);
    } finally {
      setBusy(false);
    }
  };
  return html`<${Button} kind=${kind} busy=${busy} onClick=${save}>${children}<//>
    ${problem && html`<span role="alert" class="wrong-words">${describeProblem(problem)}</span>`}`;
}

function useManifest(path) {
  const [manifest, setManifest] = useState(null);
  useEffect(() => {
    let over = false;
    if (path) fetchText(path).then((text) => !over && setManifest(JSON.parse(text))).catch(() => {});
    return () => (over = true);
  }, [path]);
  return manifest;
}

/** How many seams between chunks there are, and how much the worst stands out. */
function describeSeams(seams) {
  const chunks = seams.filter((seam) => seam.kind === "chunk");
  if (!chunks.length) return say("render.seamless");
  const ratios = chunks.map((seam) => seam.jump_ratio).filter((ratio) => ratio !== null);
  const worst = Math.max(0, ...ratios);
  const seen = ratios.filter((ratio) => ratio >= SEEN).length;
  return say("render.seams", { n: number(chunks.length), seen: number(seen), worst: number(worst, 2) });
}

function bytes(count) {
  const units = ["byte", "kilobyte", "megabyte", "gigabyte"];
  const power = Math.min(3, Math.floor(Math.log10(Math.max(1, count)) / 3));
  return say(`render.${units[power]}`, { n: number(count / 1000 ** power, power ? 1 : 0) });
}
