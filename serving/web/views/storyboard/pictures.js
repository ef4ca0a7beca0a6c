// Pictures of shots and characters: chosen, dropped or pasted, sent to the farm at once, shown as the film will crop them.

import { html, useRef, useState } from "../../vendor/htm-preact.js";
import { ApiProblem, sendFile } from "../../api.js";
import { Button, describeProblem, useMedia } from "../../components.js";
import { say } from "../../words.js";
import { ChoiceField, Disclosure, NumberField } from "./fields.js";
import { Icon } from "./icons.js";

const ACCEPTED = "image/png,image/jpeg,image/webp,image/avif";

/** The pictures of a shot: at its first frame, its last, and at times between. `frame` is the film's {width, height, fit,
 *  background, takes}; `takes` says what its model takes. Nothing for a model that takes none, unless there are some.
 *  `put(key, value, part)`: edits of the same part, which is typed, are undone as one. */
export function ShotPictures({ shot, who, at, frame, fix, put }) {
  const keyframes = Array.isArray(shot.keyframes) ? shot.keyframes : [];
  const has = { image: shot.image, last_image: shot.last_image, keyframes: keyframes.length };
  const shows = (key, ability) => frame.takes.includes(ability) || has[key] || at(key).length > 0;
  const slot = (key) => html`<${PictureSlot} label=${say(`sb.picture.${key}`)} who=${say(`sb.picture.${key}.of`, who)}
    value=${shot[key]} problems=${at(key)} frame=${frame} onChange=${(value) => put(key, value)} />`;
  if (!shows("image", "first") && !shows("last_image", "last") && !shows("keyframes", "keyframes")) return null;
  return html`<div class="pictures">
    ${shows("image", "first") && slot("image")}
    ${shows("last_image", "last") && slot("last_image")}
    ${shows("keyframes", "keyframes") &&
    html`<${Keyframes} shot=${shot} who=${who} keyframes=${keyframes} problems=${at("keyframes")} frame=${frame}
      fix=${fix} put=${put} />`}
  </div>`;
}

function Keyframes({ shot, who, keyframes, problems, frame, fix, put }) {
  const change = (changed, part) => put("keyframes", changed.length ? changed : undefined, part);
  const set = (index, made, part) => change(keyframes.map((one, at) => (at === index ? { ...one, ...made } : one)), part);
  const half = typeof shot.seconds === "number" ? Math.round(shot.seconds * 5) / 10 : 0;
  const add = (image) => image && change([...keyframes, { at: half, image }]);
  const summary = keyframes.length ? say("sb.picture.times.some", { n: keyframes.length }) : say("sb.picture.times");
  const told = problems.map((problem) => html`<li>${problem.message}</li>`);
  return html`<${Disclosure} kind="keyframes" summary=${summary} isWrong=${problems.length > 0}>
    ${told.length > 0 && html`<ul class="problems">${told}</ul>`}
    <ul class="plain">
      ${keyframes.map((keyframe, index) => {
        const remove = (image) => (image ? set(index, { image }) : change(keyframes.filter((_, at) => at !== index)));
        return html`<li>
          <${PictureSlot} label="" who=${say("sb.picture.keyframe.of", { ...who, k: index + 1 })} value=${keyframe.image}
            problems=${[]} frame=${frame} onChange=${remove} />
          <${NumberField} label=${say("sb.picture.at")} value=${keyframe.at} problems=${[]} fix=${fix}
            onChange=${(value) => set(index, { at: value }, `at.${index}`)} />
          ${frame.takes.includes("strength") &&
          html`<${NumberField} label=${say("sb.picture.strength")} value=${keyframe.strength} placeholder="1"
            problems=${[]} fix=${fix} onChange=${(value) => set(index, { strength: value }, `strength.${index}`)} />`}
        </li>`;
      })}
    </ul>
    <${PictureSlot} label=${say("sb.picture.keyframe.add")} who=${say("sb.picture.keyframe.add.of", who)} value=${undefined}
      problems=${[]} frame=${frame} onChange=${add} />
  <//>`;
}

/** The picture of a character, and what it is for. */
export function PersonPicture({ person, who, frame, onChange }) {
  const images = person.more?.images ?? [];
  if (!frame.takes.length && !images.length) return null;
  const choices = ["reference", "first_frame"].map((one) => [one, say(`sb.picture.as.${one}`)]);
  const usual = frame.takes.includes("references") ? "reference" : "first_frame";
  const set = (image) =>
    onChange(image ? { as: usual, ...person.more, images: [image, ...images.slice(1)] } : undefined);
  return html`<${PictureSlot} label="" who=${say("sb.picture.person.of", who)} value=${images[0]} problems=${[]}
      frame=${frame} onChange=${set} />
    ${images.length > 0 &&
    html`<${ChoiceField} label=${say("sb.picture.as")} value=${person.more.as ?? "reference"} choices=${choices}
      onChange=${(as) => onChange({ ...person.more, as })} />`}`;
}

/** One picture: its thumbnail as the film shows it, or a place to choose, drop or paste one. `onChange(id)`, undefined
 *  where it is taken away. */
export function PictureSlot({ label, who, value, problems = [], frame, onChange }) {
  const [state, setState] = useState({ busy: false, problem: null });
  const [isOver, setIsOver] = useState(false);
  const input = useRef();
  const isAsset = typeof value === "string" && value.startsWith("sha256:");
  const url = useMedia(isAsset ? `/v1/assets/${value}` : null);
  const take = async (file) => {
    if (!file) return;
    setState({ busy: true, problem: null });
    try {
      const { id } = await sendFile("/v1/assets", file);
      setState({ busy: false, problem: null });
      onChange(id);
    } catch (problem) {
      if (!(problem instanceof ApiProblem)) throw problem;
      setState({ busy: false, problem: describeProblem(problem) });
    }
  };
  const over = (event, is) => (event.preventDefault(), event.stopPropagation(), setIsOver(is));
  const drop = (event) => (over(event, false), take(event.dataTransfer.files[0]));
  const paste = (event) => event.clipboardData.files.length && (event.preventDefault(), take(event.clipboardData.files[0]));
  const chosen = (event) => (take(event.target.files[0]), (event.target.value = ""));
  const told = [...problems.map(({ message }) => message), ...(state.problem ? [state.problem] : [])];
  const shape = { aspectRatio: `${frame.width} / ${frame.height}`, ...(value ? { background: frame.background } : {}) };
  return html`<div class="picture ${isOver ? "over" : ""} ${told.length ? "wrong" : ""}" onPaste=${paste}
    onDragOver=${(event) => over(event, true)} onDragLeave=${(event) => over(event, false)} onDrop=${drop}>
    ${label && html`<span class="picture-label" aria-hidden="true">${label}</span>`}
    <input type="file" class="unseen" tabindex="-1" aria-hidden="true" accept=${ACCEPTED} ref=${input} onChange=${chosen} />
    <button type="button" class="picture-place" aria-busy=${state.busy} style=${shape}
      aria-label=${say(value ? "sb.picture.change" : "sb.picture.choose", { what: who })}
      title=${say("sb.picture.hint")} onClick=${() => input.current.click()}>
      ${value && url && html`<img src=${url} alt="" class=${frame.fit} />`}
      ${value && !isAsset && html`<span class="mono">${String(value)}</span>`}
      ${!value && html`<${Icon} name="add" />`}
    </button>
    ${value &&
    html`<${Button} kind="quiet icon" aria-label=${say("sb.picture.remove", { what: who })} title=${say("sb.picture.remove.hint")}
      onClick=${() => onChange(undefined)}><${Icon} name="close" /><//>`}
    ${told.length > 0 && html`<ul class="problems" role="alert">${told.map((text) => html`<li>${text}</li>`)}</ul>`}
  </div>`;
}
