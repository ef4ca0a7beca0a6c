// Fields of the whole film: title, model, quality, style, characters, and those that are rarely changed.

import { html } from "../../vendor/htm-preact.js";
import { Button } from "../../components.js";
import { number, say } from "../../words.js";
import { addPerson, deletePerson, isMapping, setFilm, setPerson, setVideo, sharedNames } from "./draft.js";
import { ChoiceField, Disclosure, NumberField, TextField } from "./fields.js";
import { Icon } from "./icons.js";
import { PersonPicture } from "./pictures.js";

/** `at(place)` gives the problems of a place, `fix(problem)` accepts the farm's suggestion. */
export function FilmFields({ draft, models, frame, at, fix, change }) {
  const { film } = draft;
  const model = models?.find(({ id }) => id === (film.model ?? "pocket"));
  const set = (key) => (value) => change((now) => setFilm(now, key, value === "" ? undefined : value), `film.${key}`);
  const field = (key) => ({ label: say(`sb.film.${key}`), value: film[key], problems: at(key), fix, onChange: set(key) });
  return html`<section class="card film" aria-labelledby="film-heading">
    <h2 id="film-heading" class="unseen">${say("sb.film.heading")}</h2>
    <div class="film-grid">
      <${TextField} ...${field("title")} class="film-title" placeholder=${say("sb.film.title.empty")} />
      <${ChoiceField} ...${field("model")} value=${film.model ?? "pocket"} choices=${modelChoices(models)} />
      <${ChoiceField} ...${field("quality")} value=${film.quality ?? "standard"} choices=${qualityChoices(model)} />
      <${TextField} ...${field("style")} hint=${say("sb.film.style.hint")} />
      <${TextField} ...${field("negative")} hint=${say("sb.film.negative.hint")} />
    </div>
    <${Characters} draft=${draft} at=${at} frame=${frame} change=${change} />
    <${Rare} draft=${draft} model=${model} field=${field} at=${at} fix=${fix} change=${change} />
  </section>`;
}

const modelChoices = (models) => (models || []).map(({ id }) => [id, id]);

function qualityChoices(model) {
  return ["draft", "standard", "final"].map((quality) => {
    const steps = model?.qualities?.[quality];
    return [quality, steps ? say(`sb.quality.${quality}.steps`, { n: number(steps) }) : say(`sb.quality.${quality}`)];
  });
}

function Characters({ draft, at, frame, change }) {
  const shared = sharedNames(draft.people);
  const add = () => {
    change(addPerson, null);
    requestAnimationFrame(() => document.querySelector(".people li:last-child input")?.focus());
  };
  return html`<section class="people" aria-labelledby="people-heading">
    <div class="row apart">
      <h3 id="people-heading">${say("sb.people.heading")}</h3>
      <${Button} kind="quiet" onClick=${add}>${say("sb.people.add")}<//>
    </div>
    ${!draft.people.length && html`<p class="hint">${say("sb.people.empty", { name: "{hero}" })}</p>`}
    ${at("characters").length > 0 && html`<ul
      class="problems">${at("characters").map((one) => html`<li>${one.message}</li>`)}</ul>`}
    <ul class="plain">
      ${draft.people.map((person, index) => {
        const { key } = person;
        const set = (part) => (value) => change((now) => setPerson(now, key, { [part]: value }), `person.${key}.${part}`);
        const who = { n: index + 1, name: person.name };
        const twice = shared.has(person.name) ? [{ path: "", message: say("sb.people.twice") }] : [];
        const remove = () => change((now) => deletePerson(now, key), null, say("sb.people.deleted", who));
        return html`<li key=${key}>
          <${TextField} label=${say("sb.people.name", who)} hideLabel value=${person.name} problems=${twice}
            onChange=${set("name")}
            placeholder=${say("sb.people.name.empty")} spellcheck=${false} autocapitalize="none" />
          <${TextField} label=${say("sb.people.text", who)} hideLabel value=${person.text}
            problems=${at(`person.${person.name}`)}
            onChange=${set("text")} placeholder=${say("sb.people.text.empty")} />
          <${PersonPicture} person=${person} who=${who} frame=${frame} onChange=${set("more")} />
          <${Button} kind="quiet icon" aria-label=${say("sb.people.delete", who)} title=${say("sb.people.delete", who)}
            onClick=${remove}><${Icon} name="delete" /><//>
        </li>`;
      })}
    </ul>
  </section>`;
}

const RARE = ["seed", "identity", "stitching", "video.width", "video.height", "video.fps", "video.fit", "video.background"];

const FITS = ["cover", "contain"];

function Rare({ draft, model, field, at, fix, change }) {
  const video = isMapping(draft.film.video) ? draft.film.video : {};
  const size = (key) => ({
    label: say(`sb.film.${key}`),
    value: video[key],
    placeholder: model?.[key] ? String(model[key]) : "",
    problems: at(`video.${key}`),
    fix,
    onChange: (value) => change((now) => setVideo(now, key, value), `video.${key}`),
  });
  const grid = model?.size_multiple ? say("sb.film.size.hint", { n: model.size_multiple }) : undefined;
  const isWrong = RARE.some((place) => at(place).length);
  return html`<${Disclosure} kind="rare" summary=${say("sb.film.rare")} isWrong=${isWrong}>
    <div class="film-grid rare-grid">
      <${NumberField} ...${field("seed")} placeholder="0" hint=${say("sb.film.seed.hint")} />
      <${NumberField} ...${field("identity")} placeholder="0" hint=${say("sb.film.identity.hint")} />
      ${(model?.stitchings?.length > 1 || draft.film.stitching) && html`
        <${ChoiceField} ...${field("stitching")} value=${draft.film.stitching ?? ""} hint=${say("sb.film.stitching.hint")}
          choices=${["", ...(model?.stitchings ?? [])].map((kind) => [kind, say(`sb.stitching.${kind || "model"}`)])} />`}
      <${NumberField} ...${size("width")} hint=${grid} />
      <${NumberField} ...${size("height")} />
      <${NumberField} ...${size("fps")} />
      ${(model?.pictures?.length > 0 || video.fit) && html`
        <${ChoiceField} ...${size("fit")} value=${video.fit ?? "cover"} choices=${FITS.map((fit) => [fit, say(`sb.fit.${fit}`)])}
          onChange=${(fit) => size("fit").onChange(fit === "cover" ? undefined : fit)} />`}
    </div>
  <//>`;
}
