// The strip: shots as cards in their order, those of one take joined.

import { Component, html } from "../../vendor/htm-preact.js";
import { Button } from "../../components.js";
import { duration, money, number, say, sayNumber } from "../../words.js";
import { framesOf, insertName, isMapping, setShot, setTransition, transitionKind } from "./draft.js";
import { ChoiceField, Disclosure, NumberField, ProblemList, TextField } from "./fields.js";
import { useDrag } from "./drag.js";
import { Icon } from "./icons.js";
import { ShotPictures } from "./pictures.js";

const DISSOLVE_S = 0.5;

/** `shots`: for each card {problems: Map of field -> problems, take, starts} as `describeShots` makes it. `actions`:
 *  add, copy, remove, move(from, to), fix(problem), fixes(problem), touch(key); they stay the same from one drawing
 *  to the next. */
export function Strip({ cards, shots, names, fps, frame, isVersion, actions, change }) {
  const drag = useDrag(actions.move);
  return html`<ol class="strip plain" ref=${drag.strip} aria-label=${say("sb.strip.label")}>
    ${cards.map(
      (card, index) => html`<${Card} key=${card.key} card=${card} index=${index} count=${cards.length}
        shown=${shots[index]}
        names=${names} fps=${fps} frame=${frame} isVersion=${isVersion} actions=${actions} change=${change}
        onGrip=${drag.begin} />`,
    )}
    <li class="after">
      <${Button} kind="quiet" class="button add" onClick=${() => actions.add(cards.length - 1)}>
        <${Icon} name="add" />${say("sb.shot.add")}
      <//>
    </li>
  </ol>`;
}

/** A card is redrawn only if something in it has changed: films may have a thousand shots. */
class Card extends Component {
  shouldComponentUpdate(next) {
    return Object.keys(next).some((key) => key !== "onGrip" && next[key] !== this.props[key]);
  }

  render({ card, index, count, shown, names, fps, frame, isVersion, actions, change, onGrip }) {
    const { shot, key } = card;
    const who = { n: index + 1, id: String(shot.id) };
    const set = (name) => (value) => change((now) => setShot(now, key, { [name]: value }), `shot.${key}.${name}`);
    const at = (name) => shown.problems.get(name) || [];
    const field = (name) => ({ value: shot[name], problems: at(name), fix: actions.fix, onChange: set(name) });
    const put = (name, value, part) =>
      change((now) => setShot(now, key, { [name]: value }), part ? `shot.${key}.${name}.${part}` : null);
    const kind = transitionKind(shot);
    return html`<li class="shot ${index === 0 ? "first" : kind} ${shown.hasWrong ? "is-wrong" : ""}" data-card=${key}>
      <h3 class="unseen">${say("sb.shot.heading", who)}</h3>
      <${TakeLine} shown=${shown} isVersion=${isVersion} />
      <div class="shot-head">
        <${Grip} who=${who} index=${index} count=${count} actions=${actions} onGrip=${onGrip} />
        <${TextField} label=${say("sb.shot.id", who)} hideLabel ...${field("id")} class="mono" spellcheck=${false}
          title=${say("sb.shot.id.hint")} autocapitalize="none" />
        <${Length} shot=${shot} fps=${fps} />
      </div>
      <${TextField} label=${say("sb.shot.prompt", who)} hideLabel rows="4" ...${field("prompt")} class="prompt"
        data-part="prompt"
        placeholder=${say("sb.shot.prompt.empty")} onBlur=${() => actions.touch(key)} />
      <${Chips} names=${names} who=${who} onPick=${(event, name) => pick(event, name, set("prompt"))} />
      <${ShotPictures} shot=${shot} who=${who} at=${at} frame=${frame} fix=${actions.fix} put=${put} />
      <div class="shot-facts ${kind}">
        <${NumberField} label=${say("sb.shot.seconds")} ...${field("seconds")} />
        <${TransitionFields} card=${card} index=${index} kind=${kind} at=${at} fix=${actions.fix} change=${change} />
      </div>
      <${ProblemList} problems=${at("")} fixes=${actions.fixes} />
      <${More} shot=${shot} kind=${kind} at=${at} field=${field} />
      <${Tools} who=${who} index=${index} count=${count} actions=${actions} />
    </li>`;
  }
}

/** A card's part of its take: the take begins here, or continues. */
function TakeLine({ shown: { take, isStart, isCached, takeNumber }, isVersion }) {
  const joined = html`<span aria-hidden="true">↳</span> ${say("sb.take.goesOn")}`;
  if (!isStart) return html`<p class="take-line goes-on">${joined}</p>`;
  const fate = take && (take.cached ? "kept" : isVersion ? "anew" : null);
  const gpuTime = take && say("sb.take.gpu", { time: duration(take.gpu_seconds) });
  const cost = take && !take.cached ? (take.usd ? money(take.usd) : gpuTime) : "";
  return html`<p class="take-line ${isCached ? "kept" : ""}">
    <span class="name">${say("sb.take.begins", { n: number(takeNumber) })}</span>
    ${fate && html`<span class="fate ${fate}"><span class="sign"
      aria-hidden="true"></span>${say(`sb.take.${fate}`)}</span>`}
    <span class="cost numbers">${cost}</span>
  </p>`;
}

/** Moves its shot: dragged, or by arrow keys. */
function Grip({ who, index, count, actions, onGrip }) {
  const [before, after] = [index - 1, index + 1];
  const to = { ArrowLeft: before, ArrowUp: before, ArrowRight: after, ArrowDown: after, Home: 0, End: count - 1 };
  const press = (event) => {
    if (!(event.key in to) || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    if (to[event.key] >= 0 && to[event.key] < count) actions.move(index, to[event.key], "grip");
  };
  return html`<button type="button" class="grip" data-part="grip" aria-label=${say("sb.shot.grip", who)}
    title=${say("sb.shot.grip.hint")}
    onKeyDown=${press} onPointerDown=${(event) => onGrip(event, index)}>
    <${Icon} name="grip" /><span class="numbers">${number(index + 1)}</span>
  </button>`;
}

/** The actual length, if it is not the one that was asked for. */
function Length({ shot, fps }) {
  const frames = framesOf(shot.seconds, fps);
  if (frames === null) return html`<span class="length"></span>`;
  const real = frames / fps;
  const isExact = Math.abs(real - shot.seconds) < 1e-9;
  return html`<span class="length numbers" title=${say("sb.shot.length.hint")}>
    ${sayNumber("sb.frames", frames)}${!isExact && html`<br />${say("sb.shot.real", { s: number(real, 3) })}`}
  </span>`;
}

function Chips({ names, who, onPick }) {
  if (!names.length) return null;
  return html`<div class="chips" role="group" aria-label=${say("sb.shot.insert", who)}>
    ${names.map((name) => html`<button type="button" class="chip"
      onClick=${(event) => onPick(event, name)}>${`{${name}}`}</button>`)}
  </div>`;
}

/** Inserts a character at the caret in the card's prompt, and moves the caret behind it. */
function pick(event, name, set) {
  const area = event.target.closest(".shot").querySelector("textarea");
  const put = insertName(area.value, name, area.selectionStart, area.selectionEnd);
  set(put.text);
  requestAnimationFrame(() => (area.focus(), area.setSelectionRange(put.caret, put.caret)));
}

function TransitionFields({ card: { key, shot }, index, kind, at, fix, change }) {
  const words = ["cut", "continue", "dissolve"].map((one) => [one, say(`sb.transition.${one}`)]);
  const choices = index === 0 ? words.slice(0, 1) : words;
  const value = kind === "other" ? JSON.stringify(shot.transition) : kind;
  const own = words.find(([one]) => one === value) ?? [value, value];
  const shown = choices.some(([one]) => one === value) ? choices : [...choices, own];
  const choose = (chosen) => {
    if (chosen === value) return;
    change((now) => setTransition(now, key, chosen === "dissolve" ? { dissolve: DISSOLVE_S } : chosen), null);
  };
  const setDissolve = (dissolve) => change((now) => setTransition(now, key, { dissolve }), `shot.${key}.dissolve`);
  return html`<${ChoiceField} label=${say("sb.shot.transition")} value=${value} choices=${shown}
    problems=${at("transition")} fix=${fix}
      onChange=${choose} disabled=${index === 0 && kind === "cut"}
      title=${index === 0 ? say("sb.transition.first") : undefined} />
    ${kind === "dissolve" &&
    html`<${NumberField} label=${say("sb.shot.dissolve")}
      value=${isMapping(shot.transition) ? shot.transition.dissolve : undefined}
      problems=${at("dissolve")} fix=${fix} onChange=${setDissolve} />`}`;
}

/** A shot that continues has no seed; one that was imported with a seed shows it, so that it can be removed. */
function More({ shot, kind, at, field }) {
  const hasSeed = kind !== "continue" || shot.seed !== undefined;
  const isUsed = [shot.seed, shot.negative].filter((value) => value !== undefined && value !== null).length;
  const seed = field("seed");
  const negative = field("negative");
  const isWrong = at("seed").length + at("negative").length > 0;
  const words = say(hasSeed ? "sb.shot.more" : "sb.shot.more.continue");
  const summary = isUsed > 0 ? html`${words} <span class="dot" title=${say("sb.shot.used")}>●</span>` : words;
  return html`<${Disclosure} kind="more" summary=${summary} isWrong=${isWrong}>
    ${hasSeed && html`<${NumberField} label=${say("sb.shot.seed")} ...${seed} placeholder=${say("sb.shot.asFilm")} />`}
    <${TextField} label=${say("sb.shot.negative")} ...${negative} onChange=${(text) => negative.onChange(text || undefined)}
      placeholder=${say("sb.shot.asFilm")} />
  <//>`;
}

function Tools({ who, index, count, actions }) {
  const tool = (name, icon, act, disabled = false) =>
    html`<${Button} kind="quiet icon" data-part=${name} aria-label=${say(`sb.shot.${name}`, who)}
      title=${say(`sb.shot.${name}.hint`)}
      disabled=${disabled} onClick=${act}><${Icon} name=${icon} /><//>`;
  return html`<div class="tools row apart">
    <div class="row">
      ${tool("earlier", "earlier", () => actions.move(index, index - 1, "earlier"), index === 0)}
      ${tool("later", "later", () => actions.move(index, index + 1, "later"), index === count - 1)}
    </div>
    <div class="row">
      ${tool("addAfter", "add", () => actions.add(index))}
      ${tool("copy", "copy", () => actions.copy(index))}
      ${tool("delete", "delete", () => actions.remove(index), count === 1)}
    </div>
  </div>`;
}
