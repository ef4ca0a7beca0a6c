// Components shared by several views: buttons, fields, badges, dialogs, notices. They hold no state of the farm.

import { html, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { ApiProblem, mediaUrl } from "./api.js";
import { say, sayState } from "./words.js";

const MEDIA_RETRY_MS = 5000;

/** A button; `busy` says that its action is under way. */
export function Button({ kind = "plain", busy = false, disabled = false, type = "button", children, ...rest }) {
  return html`<button type=${type} class="button ${kind}" aria-busy=${busy} disabled=${disabled || busy} ...${rest}>${children}</button>`;
}

let fieldNumber = 0;

/** A labelled control with the API's own words about what is wrong with it beside it. `control` makes the control from the
 *  attributes that tie it to label and messages. `problems` as the API sends them; `fix(nearest, problem)` takes a suggestion. */
export function Field({ label, hint, problems = [], fix, hideLabel = false, control }) {
  const [id] = useState(() => `field-${++fieldNumber}`);
  const described = [hint && `${id}-hint`, problems.length && `${id}-problems`].filter(Boolean).join(" ");
  const attributes = { id, "aria-describedby": described || undefined, "aria-invalid": problems.length > 0 };
  return html`<div class="field ${problems.length ? "wrong" : ""}">
    <label for=${id} class=${hideLabel ? "unseen" : ""}>${label}</label>
    ${control(attributes)}
    ${hint && html`<p class="hint" id="${id}-hint">${hint}</p>`}
    ${problems.length > 0 &&
    html`<ul class="problems" id="${id}-problems">
      ${problems.map(
        (problem) => html`<li>
          ${problem.message}
          ${problem.nearest &&
          fix &&
          html` <button type="button" class="link" onClick=${() => fix(problem.nearest, problem)}>${say("problem.use", problem)}</button>`}
        </li>`,
      )}
    </ul>`}
  </div>`;
}

/** The state of a job or take: a sign, a word and a colour. `words` is its key in words.js. */
export function Badge({ state, words = `status.${state}` }) {
  return html`<span class="badge ${state}"><span class="sign" aria-hidden="true"></span>${sayState(words)}</span>`;
}

/** A progress bar; `share` from 0 to 1. */
export function Progress({ share, label }) {
  return html`<progress max="1" value=${share} aria-label=${label}></progress>`;
}

/** A message among the content. `kind`: info, warning, error. */
export function Notice({ kind = "info", children, action }) {
  return html`<div class="notice ${kind}" role=${kind === "error" ? "alert" : "status"}>
    <span class="sign" aria-hidden="true"></span>
    <div>${children}</div>
    ${action}
  </div>`;
}

/** A modal dialog, open while it is mounted. `onClose` is called when the person closes it; without one it cannot be closed. */
export function Dialog({ title, onClose, children }) {
  const dialog = useRef();
  useEffect(() => {
    const shown = dialog.current;
    const before = document.activeElement;
    shown.showModal();
    return () => {
      shown.close(); // first: nothing beside an open dialog takes the focus
      if (before?.isConnected) before.focus();
    };
  }, []);
  const cancelled = (event) => (onClose ? onClose() : event.preventDefault());
  const closed = () => (onClose ? onClose() : dialog.current?.showModal()); // browsers do not let a page hold a dialog open by cancelling alone
  return html`<dialog ref=${dialog} class="dialog" aria-labelledby="dialog-title" onClose=${closed} onCancel=${cancelled}>
    <h2 id="dialog-title">${title}</h2>
    ${children}
  </dialog>`;
}

/** The words of an error, for a person. */
export function describeProblem(problem) {
  if (problem.status === 0) return say(problem.message === "timeout" ? "error.timeout" : "error.unreachable");
  if (problem.status === 404) return say("error.notFound");
  return problem.problems?.length === 1 ? problemLine(problem.problems[0]) : problem.message;
}

/** One of the API's problems in a line. */
const problemLine = ({ path, message }) => (path ? `${path}: ${message}` : message);

/** The URL of a picture or film, null until it is known. A new `stamp` loads it again; the URL before stays until then. */
export function useMedia(path, stamp = "") {
  const [url, setUrl] = useState(null);
  useEffect(() => {
    if (!path) return setUrl(null);
    let isOver = false;
    let timer = null;
    const ask = () =>
      mediaUrl(path).then(
        (found) => !isOver && setUrl(withStamp(found, stamp)),
        () => !isOver && (timer = setTimeout(ask, MEDIA_RETRY_MS)),
      );
    ask();
    return () => ((isOver = true), clearTimeout(timer));
  }, [path, stamp]);
  return url;
}

const withStamp = (url, stamp) =>
  stamp === "" ? url : `${url}${url.includes("?") ? "&" : "?"}at=${encodeURIComponent(stamp)}`;

/** The request of a dialog: {busy, problem, carryOut}. It stays busy after a success, because the dialog closes then; a refusal
 *  is shown, and the request may be tried again. */
export function useRequest() {
  const [problem, setProblem] = useState(null);
  const [busy, setBusy] = useState(false);
  const carryOut = async (act) => {
    setBusy(true);
    try {
      await act();
    } catch (error) {
      if (!(error instanceof ApiProblem)) throw error;
      setProblem(error);
      setBusy(false);
    }
  };
  return { busy, problem, carryOut };
}

/** Call `act` now and every `everyMs` while the page is visible and `on` is true. */
export function useEvery(everyMs, act, inputs, on = true) {
  useEffect(() => {
    if (!on) return undefined;
    let timer = null;
    let over = false;
    const tick = async () => {
      if (!document.hidden) await act();
      if (!over) timer = setTimeout(tick, everyMs);
    };
    tick();
    return () => ((over = true), clearTimeout(timer));
  }, [...inputs, on]);
}

/** Announce a change to screen readers. */
export function announce(text) {
  const region = document.getElementById("announcer");
  if (region) region.textContent = text;
}
