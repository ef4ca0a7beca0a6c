// The storyboard view: write a film, or the next version of one, as shots; see at once what it costs; submit it.
//
// This module only wires the parts together. Edits are pure functions in storyboard/draft.js, and only the farm decides
// what is wrong with a storyboard.

import { html, useEffect, useMemo, useState } from "../vendor/htm-preact.js";
import { get } from "../api.js";
import { Button, Notice, announce, describeProblem } from "../components.js";
import { number, say, sayNumber } from "../words.js";
import { Strip } from "./storyboard/cards.js";
import { changesBetween } from "./storyboard/changes.js";
import { blankDraft, draftOf, isBlank, isMapping, localTime, optionsOf, sharedNames, storyboardOf, tidy } from "./storyboard/draft.js";
import { OtherDrafts } from "./storyboard/drafts.js";
import { useActions, useEdits, useFocus, useShortcuts } from "./storyboard/editing.js";
import { ExampleList, ExamplesDialog, ExportDialog, ImportDialog, useArrivals } from "./storyboard/import_export.js";
import { ProblemList } from "./storyboard/fields.js";
import { FilmFields } from "./storyboard/film_fields.js";
import { Icon } from "./storyboard/icons.js";
import { dropOldDrafts, takeDraft } from "./storyboard/browser_storage.js";
import { Overview } from "./storyboard/overview.js";
import { QuoteBar, QuotePanel } from "./storyboard/quote_panel.js";
import { useQuote } from "./storyboard/quote.js";
import { Changes } from "./storyboard/revision.js";
import { useSending } from "./storyboard/sending.js";
import { useShots } from "./storyboard/card_feedback.js";

const RETRY_S = 3;

/** The next version of the job `revises`; without it, a new film. */
export function StoryboardView({ revises }) {
  const models = useLoaded(loadModels, "").value;
  const before = useLoaded(loadVersion, revises);
  useEffect(dropOldDrafts, []);
  if (before.problem) return html`<${Notice} kind="error">${describeProblem(before.problem)}<//>`;
  if (revises && !before.value) return html`<p class="soft">${say("loading")}</p>`;
  return html`<${Editor} before=${before.value} models=${models} />`;
}

/** {value, problem} of `load(input)`, retried while the farm cannot be reached. Loads nothing if `input` is undefined. */
function useLoaded(load, input) {
  const [state, setState] = useState({ value: null, problem: null });
  useEffect(() => {
    if (input === undefined) return undefined;
    let isOver = false;
    let timer = null;
    const attempt = async () => {
      try {
        const value = await load(input);
        if (!isOver) setState({ value, problem: null });
      } catch (problem) {
        if (isOver) return;
        setState({ value: null, problem });
        const mayPass = problem.isUnreachable || problem.status === 429;
        if (mayPass) timer = setTimeout(attempt, 1000 * Math.max(RETRY_S, problem.retryAfterS));
      }
    };
    attempt();
    return () => ((isOver = true), clearTimeout(timer));
  }, [input]);
  return state;
}

/** How the film shows pictures, and what its model takes of them; the same object while nothing of it changes. */
function useFrame(video, model) {
  const { width = model?.width, height = model?.height, fit, background } = isMapping(video) ? video : {};
  const takes = model?.pictures;
  return useMemo(
    () => ({
      width: width || 3,
      height: height || 2,
      fit: fit === "contain" ? "contain" : "cover",
      background: /^#[0-9a-f]{6}$/i.test(background) ? background : "#000000",
      takes: takes || [],
    }),
    [width, height, fit, background, takes],
  );
}

const loadModels = async () => (await get("/v1/models")).data;

async function loadVersion(id) {
  const home = `/v1/jobs/${encodeURIComponent(id)}`;
  const [job, storyboard] = await Promise.all([get(home), get(`${home}/storyboard`)]);
  return { job, storyboard: tidy(storyboard), home };
}

/** The draft that the next version begins with: the version before, without a due time that has passed. */
function draftAfter({ job, storyboard }) {
  const due = job.due_at && job.due_at * 1000 > Date.now() ? localTime(job.due_at) : "";
  return draftOf(storyboard, { priority: job.priority, due, budget: job.budget_usd ?? undefined });
}

function Editor({ before, models }) {
  const name = before ? before.job.id : "new";
  const fresh = useMemo(() => (before ? draftAfter(before) : blankDraft()), []);
  const { draft, change, takeBack, doAgain, canTakeBack, canDoAgain, toast, dismiss, forget } = useEdits(name, fresh);
  const [dialog, setDialog] = useState(null);
  const [isNew, setIsNew] = useState(!before && isBlank(draft));
  const wants = useFocus();

  const body = useMemo(() => ({ storyboard: storyboardOf(draft), ...optionsOf(draft, Boolean(before)) }), [draft]);
  const path = before ? `${before.home}/revise` : "/v1/jobs";
  const asked = useQuote(before ? `${before.home}/check` : "/v1/check", body, draft);
  const [refusal, setRefusal] = useState(null);
  useEffect(() => setRefusal(null), [body]);
  const problems = refusal?.problems.length ? refusal.problems : asked.problems;

  const model = models?.find(({ id }) => id === (draft.film.model ?? "pocket"));
  const fps = typeof draft.film.video?.fps === "number" ? draft.film.video.fps : model?.fps;
  const frame = useFrame(draft.film.video, model);
  const { at, shots, wrong, touch, touchAll } = useShots(draft, problems, refusal ? draft : asked.of, asked.quote);
  const changes = useMemo(() => (before ? changesBetween(before.storyboard, body.storyboard) : []), [body]);
  const names = useNames(draft.people);
  const hasTwins = sharedNames(draft.people).size > 0;
  const isUnchanged = Boolean(before) && changes.length === 0;

  useEffect(() => void (wrong && announce(sayNumber("sb.wrong", wrong))), [wrong]);

  const sending = useSending({
    name,
    path,
    onDone: (job) => (forget(), (location.hash = `#/jobs/${encodeURIComponent(job.id)}`)),
    onRefused: (why) => (setRefusal(why), touchAll(), announce(describeProblem(why)), wants.wrong()),
  });
  const [isWanted, setIsWanted] = useState(false); // to be sent as soon as the farm has checked what is written now
  const send = () => (touchAll(), setIsWanted(!isUnchanged && sending.state === "idle"));
  useEffect(() => {
    if (!isWanted || asked.isPending) return;
    setIsWanted(false);
    if (hasTwins || problems.length) wants.wrong();
    else sending.send(body);
  }, [isWanted, asked.isPending]);

  const actions = useActions(change, wants, touch);
  const take = (storyboard, words) => {
    setDialog(null);
    setIsNew(false);
    change((now) => draftOf(storyboard, now.options, now.next), null, words);
  };
  const imported = (storyboard) => take(storyboard, say("sb.import.done"));
  const isOver = useArrivals(imported, (problem, text) => setDialog({ kind: "import", began: { problem, text } }));
  useShortcuts({ send, takeBack, doAgain });
  const startOver = () => (change(() => fresh, null, say("sb.startedOver")), setIsNew(!before));

  const continueDraft = (other) => {
    takeDraft(name, other);
    setIsNew(false);
    change(() => other.draft, null, say("sb.drafts.continued"));
    sending.recall();
  };

  const version = before ? before.job.version + 1 : 1;
  const all = wrong + (hasTwins ? 1 : 0);
  const quoted = { asked, sending, version, isUnchanged, wrong: all, onSend: send, onShowWrong: wants.wrong };
  return html`<div class="storyboard ${isOver ? "over" : ""}">
    <div class="row apart head">
      <${Heading} before=${before} />
      <div class="row tools" role="group" aria-label=${say("sb.tools")}>
        <${Button} kind="quiet" disabled=${!canTakeBack} onClick=${takeBack}>${say("sb.undo")}<//>
        <${Button} kind="quiet" disabled=${!canDoAgain} onClick=${doAgain}>${say("sb.redo")}<//>
        ${!before && html`<${Button} kind="quiet"
          onClick=${() => setDialog({ kind: "examples" })}>${say("sb.examples")}<//>`}
        <${Button} kind="quiet" onClick=${() => setDialog({ kind: "import" })}>${say("sb.import")}<//>
        <${Button} kind="quiet" onClick=${() => setDialog({ kind: "export" })}>${say("sb.export")}<//>
        <${Button} kind="quiet" onClick=${startOver}>${say("sb.startOver")}<//>
      </div>
    </div>
    <${Unanswered} sending=${sending} />
    ${refusal && !refusal.problems.length && html`<${Notice} kind="error">${describeProblem(refusal)}<//>`}
    ${draft === fresh && html`<${OtherDrafts} name=${name} onTake=${continueDraft} />`}
    ${isNew && html`<${Welcome} onTake=${(board) => take(board, say("sb.examples.done"))}
      onClose=${() => setIsNew(false)} />`}
    <div class="desk">
      <div class="board">
        <${FilmFields} draft=${draft} models=${models} frame=${frame} at=${at} fix=${actions.fix} change=${change} />
        <${ProblemList} problems=${at("")} fixes=${actions.fixes} />
        <section aria-labelledby="strip-heading">
          <div class="row apart">
            <h2 id="strip-heading">${sayNumber("sb.shots", draft.cards.length)}</h2>
            <p class="hint keys">${say("sb.keys")}</p>
          </div>
          <${Overview} cards=${draft.cards} fps=${fps} shots=${shots} onPick=${wants.card} />
          <${Strip} cards=${draft.cards} shots=${shots} names=${names} fps=${fps} frame=${frame}
            isVersion=${Boolean(before)} actions=${actions} change=${change} />
        </section>
      </div>
      <${QuotePanel} ...${quoted} draft=${draft} pools=${model?.pools || []} at=${at} fix=${actions.fix}
        change=${change}>
        ${before && html`<${Changes} changes=${changes} quote=${asked.quote} />`}
      <//>
    </div>
    <${QuoteBar} ...${quoted} />
    <${Toast} toast=${toast} onUndo=${takeBack} onClose=${dismiss} />
    <${Dialogs} dialog=${dialog} storyboard=${body.storyboard} onImport=${imported} onClose=${() => setDialog(null)}
      onExample=${(board) => take(board, say("sb.examples.done"))} />
  </div>`;
}

/** Names that a prompt can use; the same array for as long as the names are the same. */
function useNames(people) {
  const names = people.map(({ name }) => name).filter((name) => /^[A-Za-z][\w-]*$/.test(name));
  const text = JSON.stringify([...new Set(names)]);
  return useMemo(() => JSON.parse(text), [text]);
}

function Heading({ before }) {
  if (!before) return html`<h1>${say("sb.new")}</h1>`;
  const { id, title, version } = before.job;
  return html`<div>
    <a href=${`#/jobs/${encodeURIComponent(id)}`}>← ${say("sb.refine.back", { n: number(version) })}</a>
    <h1 dir="auto">${say("sb.refine", { title, n: number(version + 1) })}</h1>
  </div>`;
}

function Welcome({ onTake, onClose }) {
  return html`<section class="card welcome" aria-labelledby="welcome-heading">
    <div class="row apart nowrap">
      <h2 id="welcome-heading">${say("sb.welcome")}</h2>
      <${Button} kind="quiet icon" aria-label=${say("sb.welcome.close")} title=${say("sb.welcome.close")}
        onClick=${onClose}><${Icon} name="close" /><//>
    </div>
    <p class="soft">${say("sb.welcome.text")}</p>
    <${ExampleList} onTake=${onTake} />
  </section>`;
}

function Unanswered({ sending }) {
  if (!sending.unanswered || sending.state !== "idle") return null;
  return html`<${Notice} kind="warning" action=${html`<div class="row">
      <${Button} onClick=${sending.ask}>${say("sb.unanswered.ask")}<//>
      <${Button} kind="quiet" onClick=${sending.forget}>${say("sb.unanswered.forget")}<//>
    </div>`}>${say("sb.unanswered", { title: String(sending.unanswered.body.storyboard.title || say("sb.untitled")) })}<//>`;
}

function Toast({ toast, onUndo, onClose }) {
  return html`<div class="toast-place" role="status">
    ${toast &&
    html`<div class="toast">
      <span>${toast}</span>
      <${Button} kind="quiet" onClick=${onUndo}>${say("sb.undo")}<//>
      <${Button} kind="quiet icon" aria-label=${say("action.close")} onClick=${onClose}><${Icon} name="close" /><//>
    </div>`}
  </div>`;
}

function Dialogs({ dialog, storyboard, onImport, onExample, onClose }) {
  switch (dialog?.kind) {
    case "import":
      return html`<${ImportDialog} key=${dialog.began} began=${dialog.began} onTake=${onImport} onClose=${onClose} />`;
    case "export":
      return html`<${ExportDialog} storyboard=${storyboard} onClose=${onClose} />`;
    case "examples":
      return html`<${ExamplesDialog} onTake=${onExample} onClose=${onClose} />`;
    default:
      return null;
  }
}
