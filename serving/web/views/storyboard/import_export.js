// Storyboards from and to files: dialogs for import, export and examples, and files dropped or text pasted on the page.

import { html, useEffect, useRef, useState } from "../../vendor/htm-preact.js";
import { Button, Dialog, Field, Notice, describeProblem, useRequest } from "../../components.js";
import { duration, number, say, sayNumber } from "../../words.js";
import { asImportProblem, assetsOf, isZip, packZip, unpackZip } from "./archive.js";
import { EXAMPLES, exampleBoard } from "./examples.js";
import { fileName, readYaml, writeYaml } from "./yaml.js";

const MAX_FILE_BYTES = 1 << 20;
const ACCEPTED = ".yaml,.yml,.json,.txt,.zip,application/yaml,application/json,application/zip";
const LOOKS_LIKE_ONE = /^\s*(\{|["']?(version|title|shots|model)["']?\s*:)/m;

/** Reads a storyboard from a file or pasted text. `began` is {text, problem} of one that could not be read. */
export function ImportDialog({ began, onTake, onClose }) {
  const [text, setText] = useState(began?.text ?? "");
  const [problem, setProblem] = useState(began?.problem ?? null);
  const take = (content) => tryToRead(content, onTake, setProblem);
  const chosen = async (event) => {
    const file = event.target.files[0];
    if (isZip(file)) return takeZip(file, onTake, setProblem);
    const content = await readFile(file);
    event.target.value = "";
    setText(content.slice(0, MAX_FILE_BYTES));
    take(content);
  };
  return html`<${Dialog} title=${say("sb.import.title")} onClose=${onClose}>
    <div class="stack exchange">
      <p class="hint">${say("sb.import.text")}</p>
      ${problem && html`<${ImportTrouble} problem=${problem} />`}
      <${Field} label=${say("sb.import.file")} control=${(attributes) =>
        html`<input type="file" accept=${ACCEPTED} onChange=${chosen} ...${attributes} />`} />
      <${Field} label=${say("sb.import.paste")} control=${(attributes) =>
        html`<textarea class="mono" rows="8" spellcheck="false" value=${text}
          onInput=${(event) => setText(event.target.value)} ...${attributes}></textarea>`} />
      <div class="row end">
        <${Button} onClick=${onClose}>${say("action.close")}<//>
        <${Button} kind="primary" disabled=${!text.trim()} onClick=${() => take(text)}>${say("sb.import.use")}<//>
      </div>
    </div>
  <//>`;
}

function ImportTrouble({ problem }) {
  const { kind, line, text, detail, index } = problem;
  return html`<${Notice} kind="error">
    <p>${line !== null && html`<strong>${say("sb.import.line", { n: number(line) })}</strong> `}
      ${say(`sb.import.${kind}`, { detail, n: index === null ? "" : number(index + 1) })}</p>
    ${text && html`<p><code>${text}</code></p>`}
  <//>`;
}

function tryToRead(text, onTake, onProblem) {
  try {
    onTake(readYaml(text));
  } catch (problem) {
    if (!problem.kind) throw problem;
    onProblem(problem, text);
  }
}

async function takeZip(file, onTake, onProblem) {
  try {
    onTake(await unpackZip(file));
  } catch (problem) {
    onProblem(asImportProblem(problem), "");
  }
}

const readFile = (file) => (file.size > MAX_FILE_BYTES ? Promise.resolve(" ".repeat(MAX_FILE_BYTES + 1)) : file.text());

/** The storyboard as YAML: to copy or to download. */
export function ExportDialog({ storyboard, onClose }) {
  const text = writeYaml(storyboard);
  const [isCopied, setIsCopied] = useState(false);
  const hasPictures = assetsOf(storyboard).length > 0;
  const { busy, problem, carryOut } = useRequest();
  const downloadZip = () =>
    carryOut(async () => (save(await packZip(storyboard), fileName(storyboard.title, "zip")), onClose()));
  const area = useRef();
  useEffect(() => {
    area.current.setSelectionRange(0, 0);
    area.current.scrollTop = 0;
  }, []);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setIsCopied(true);
    } catch {
      area.current.select(); // if the browser forbids it, the person can copy the selection
    }
  };
  return html`<${Dialog} title=${say("sb.export.title")} onClose=${onClose}>
    <div class="stack exchange">
      <${Field} label=${say("sb.export.text")} control=${(attributes) =>
        html`<textarea class="mono" rows="14" readonly dir="ltr" ref=${area}
          value=${text} ...${attributes}></textarea>`} />
      <div class="row end">
        <span class="hint" role="status">${isCopied ? say("sb.export.copied") : ""}</span>
        <${Button} onClick=${onClose}>${say("action.close")}<//>
        <${Button} onClick=${copy}>${say("sb.export.copy")}<//>
        <${Button} kind=${hasPictures ? "plain" : "primary"}
          onClick=${() => save(new Blob([text], { type: "application/yaml" }), fileName(storyboard.title))}>
          ${say("sb.export.download")}<//>
        ${hasPictures &&
        html`<${Button} kind="primary" busy=${busy} onClick=${downloadZip}>${say("sb.export.zip")}<//>`}
      </div>
      ${problem && html`<${Notice} kind="error">${describeProblem(problem)}<//>`}
    </div>
  <//>`;
}

function save(blob, name) {
  const url = URL.createObjectURL(blob);
  const link = Object.assign(document.createElement("a"), { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

export function ExamplesDialog({ onTake, onClose }) {
  return html`<${Dialog} title=${say("sb.examples.title")} onClose=${onClose}>
    <div class="stack">
      <${ExampleList} onTake=${onTake} />
      <div class="row end"><${Button} onClick=${onClose}>${say("action.close")}<//></div>
    </div>
  <//>`;
}

/** Films to begin with; `onTake(storyboard)`. */
export function ExampleList({ onTake }) {
  return html`<ul class="examples plain">
    ${EXAMPLES.map((example) => {
      const title = say(`sb.example.${example.name}`);
      const seconds = example.storyboard.shots.reduce((sum, shot) => sum + shot.seconds, 0);
      return html`<li>
        <button type="button" class="example" onClick=${() => onTake(exampleBoard(example, title))}>
          <strong>${title}</strong>
          <span class="hint">${say(`sb.example.${example.name}.text`)}</span>
          <span class="hint numbers">${sayNumber("sb.shots", example.storyboard.shots.length)} · ${duration(seconds)}</span>
        </button>
      </li>`;
    })}
  </ul>`;
}

/** Files that are dropped on the page and storyboards that are pasted outside fields. `onTake(storyboard)`,
 *  `onProblem(ImportProblem, text)`. Returns whether a file hovers over the page. */
export function useArrivals(onTake, onProblem) {
  const [isOver, setIsOver] = useState(false);
  const handlers = useRef();
  handlers.current = { onTake, onProblem };
  useEffect(() => {
    const ending = new AbortController();
    const on = (name, act) => addEventListener(name, act, { signal: ending.signal });
    const take = (text) => tryToRead(text, handlers.current.onTake, handlers.current.onProblem);
    const hasFile = (event) => event.dataTransfer?.types.includes("Files");
    on("dragover", (event) => hasFile(event) && (event.preventDefault(), setIsOver(true)));
    on("dragleave", (event) => event.relatedTarget === null && setIsOver(false));
    on("drop", async (event) => {
      setIsOver(false);
      if (!hasFile(event)) return;
      event.preventDefault();
      const file = event.dataTransfer.files[0];
      if (isZip(file)) takeZip(file, handlers.current.onTake, handlers.current.onProblem);
      else take(await readFile(file));
    });
    on("paste", (event) => {
      if (event.target.closest?.("input, textarea, select, dialog")) return;
      const text = event.clipboardData.getData("text/plain");
      if (LOOKS_LIKE_ONE.test(text)) take(text);
    });
    return () => ending.abort();
  }, []);
  return isOver;
}
