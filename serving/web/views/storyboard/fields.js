// Input fields of the storyboard, each with the problems that the farm found in it; numbers may be half typed.

import { html, useEffect, useRef, useState } from "../../vendor/htm-preact.js";
import { Field } from "../../components.js";

/** Typed text as a number; undefined if it is empty, the text itself if it is no number. A comma may be the decimal
 *  point. */
export function readNumber(text) {
  const trimmed = text.trim().replace(",", ".");
  if (trimmed === "") return undefined;
  const value = Number(trimmed);
  return Number.isFinite(value) && (!Number.isInteger(value) || Number.isSafeInteger(value)) ? value : text;
}

const writeNumber = (value) =>
  value === undefined || value === null ? "" : typeof value === "object" ? JSON.stringify(value) : String(value);

/** A field for a number that keeps what is typed, even `2.`, until it loses the focus. */
export function NumberField({ label, hint, value, problems, fix, hideLabel, onChange, placeholder, ...rest }) {
  const [text, setText] = useState(writeNumber(value));
  useEffect(() => {
    if (readNumber(text) !== value) setText(writeNumber(value));
  }, [value]);
  const typed = (event) => (setText(event.target.value), onChange(readNumber(event.target.value)));
  const control = (attributes) =>
    html`<input type="text" inputmode="decimal" autocomplete="off" value=${text} placeholder=${placeholder}
      onInput=${typed} onBlur=${() => setText(writeNumber(value))} ...${rest} ...${attributes} />`;
  return html`<${Field} label=${label} hint=${hint} problems=${problems} fix=${fix} hideLabel=${hideLabel}
    control=${control} />`;
}

/** A field for text; `rows` makes it several lines. A value that is no text is shown as it is, and becomes text when edited. */
export function TextField({ label, hint, value, problems, fix, hideLabel, onChange, rows, ...rest }) {
  const shown = typeof value === "object" && value !== null ? JSON.stringify(value) : String(value ?? "");
  const typed = (event) => onChange(event.target.value);
  const control = (attributes) =>
    rows
      ? html`<textarea rows=${rows} dir="auto" value=${shown} onInput=${typed} ...${rest} ...${attributes}></textarea>`
      : html`<input type="text" dir="auto" autocomplete="off" value=${shown}
        onInput=${typed} ...${rest} ...${attributes} />`;
  return html`<${Field} label=${label} hint=${hint} problems=${problems} fix=${fix} hideLabel=${hideLabel}
    control=${control} />`;
}

/** A select. `choices` is [[value, words], ...]; a value that is none of them is offered as well, as it is. */
export function ChoiceField({ label, hint, value, choices, problems, fix, hideLabel, onChange, ...rest }) {
  const shown = choices.some(([one]) => one === value) ? choices : [...choices, [value, writeNumber(value)]];
  const control = (attributes) =>
    html`<select value=${value} onChange=${(event) => onChange(event.target.value)} ...${rest} ...${attributes}>
      ${shown.map(([one, words]) => html`<option value=${one} selected=${one === value}>${words}</option>`)}
    </select>`;
  return html`<${Field} label=${label} hint=${hint} problems=${problems} fix=${fix} hideLabel=${hideLabel}
    control=${control} />`;
}

/** Fields that are rarely needed. Opens by itself if something in it is wrong, and closes only by hand. */
export function Disclosure({ kind, summary, isWrong, children }) {
  const box = useRef();
  useEffect(() => {
    if (isWrong) box.current.open = true;
  }, [isWrong]);
  return html`<details ref=${box} class=${kind}><summary>${summary}</summary>${children}</details>`;
}

/** Problems without a field, each with its path and its one-click fixes. `fixes(problem)` is [{label, act}]. */
export function ProblemList({ problems, fixes, withPaths = true }) {
  if (!problems?.length) return null;
  return html`<ul class="problems loose">
    ${problems.map(
      (problem) => html`<li>
        ${withPaths && problem.path && html`<code>${problem.path}</code> `}${problem.message}
        ${fixes(problem).map(({ label, act }) => html` <button type="button" class="link" onClick=${act}>${label}</button>`)}
      </li>`,
    )}
  </ul>`;
}
