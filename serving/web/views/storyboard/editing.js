// What a person does to the draft: edits with undo and redo, where the focus goes after them, keyboard shortcuts.

import { useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from "../../vendor/htm-preact.js";
import { announce } from "../../components.js";
import { number, say } from "../../words.js";
import { addShot, copyShot, deleteShot, moveShot } from "./draft.js";
import { begin, edit, redo, undo } from "./undo.js";
import { dropDraft, keepDraft, keptDraft } from "./browser_storage.js";
import { canDrop, dropUnknown, takeNearest } from "./problems.js";

const KEEP_MS = 250;
const TOAST_MS = 12_000;
const WRONG = '.storyboard [aria-invalid="true"], .storyboard .problems.loose button';

/** The draft of `name` with all its edits; this tab keeps it once it has been changed. */
export function useEdits(name, fresh) {
  const [edits, setEdits] = useState(() => begin(keptDraft(name) ?? fresh));
  const [toast, setToast] = useState(null);
  const change = useCallback((make, tag = null, words = null) => {
    setEdits((now) => edit(now, make(now.draft), tag, Date.now()));
    setToast(words);
  }, []);
  const back = (step, words) => (setEdits(step), setToast(null), announce(say(words)));
  const forget = useKeeping(name, edits.draft, fresh);
  useEffect(() => {
    if (!toast) return undefined;
    const timer = setTimeout(() => setToast(null), TOAST_MS);
    return () => clearTimeout(timer);
  }, [toast]);
  return {
    draft: edits.draft,
    change,
    takeBack: () => back(undo, "sb.undone"),
    doAgain: () => back(redo, "sb.redone"),
    canTakeBack: edits.past.length > 0,
    canDoAgain: edits.future.length > 0,
    toast,
    dismiss: () => setToast(null),
    forget,
  };
}

/** Saves the draft a moment after each edit and when the page is left; returns a function that forgets it for good. */
function useKeeping(name, draft, fresh) {
  const kept = useRef(draft);
  const latest = useRef();
  latest.current = draft;
  const keep = useCallback(() => {
    if (kept.current === latest.current || kept.current === null) return;
    kept.current = latest.current;
    if (kept.current === fresh) dropDraft(name);
    else keepDraft(name, kept.current);
  }, []);
  useEffect(() => {
    const timer = setTimeout(keep, KEEP_MS);
    return () => clearTimeout(timer);
  }, [draft]);
  useEffect(() => {
    addEventListener("pagehide", keep);
    return () => (keep(), removeEventListener("pagehide", keep));
  }, []);
  return () => ((kept.current = null), dropDraft(name));
}

/** Where the focus goes after the next drawing: a part of the card at an index, a card, or the first wrong field. */
export function useFocus() {
  const wanted = useRef(null);
  const [, draw] = useState(0);
  useLayoutEffect(() => {
    const find = wanted.current;
    wanted.current = null;
    const found = find?.();
    for (let box = found?.closest("details"); box; box = box.parentElement.closest("details")) box.open = true;
    found?.focus({ preventScroll: true });
    found?.scrollIntoView({ block: "nearest", inline: "nearest" });
  });
  const next = (find) => ((wanted.current = find), draw((n) => n + 1));
  return useMemo(() => ({
    part: (index, part) => next(() => partOf(document.querySelectorAll(".strip > .shot")[index], part)),
    card: (key) => next(() => partOf(document.querySelector(`.strip > .shot[data-card="${Number(key)}"]`), "prompt")),
    wrong: () => next(() => document.querySelector(WRONG)),
  }), []);
}

/** A part of a card if it can have the focus, else the card's grip. */
const partOf = (card, part) =>
  card?.querySelector(`[data-part="${part}"]:not(:disabled)`) ?? card?.querySelector(".grip");

/** What cards can do; the same functions for the life of the view, so that cards need not be redrawn. */
export function useActions(change, wants, touch) {
  return useMemo(() => ({
    add: (index) => (change((now) => addShot(now, index)), wants.part(index + 1, "prompt")),
    copy: (index) => (change((now) => copyShot(now, index)), wants.part(index + 1, "prompt")),
    remove: (index) => {
      change((now) => deleteShot(now, index), null, say("sb.shot.deleted", { n: number(index + 1) }));
      wants.part(Math.max(0, index - 1), "grip");
    },
    move: (from, to, part) => {
      change((now) => moveShot(now, from, to));
      wants.part(to, part);
      announce(say("sb.shot.moved", { from: number(from + 1), to: number(to + 1) }));
    },
    fix: (_, problem) => change((now) => takeNearest(now, problem) ?? now),
    fixes: (problem) => fixesOf(problem, change),
    touch,
  }), []);
}

/** Control+Enter submits; outside text fields Control+Z undoes, and Control+Shift+Z or Control+Y redoes. */
export function useShortcuts({ send, takeBack, doAgain }) {
  const acts = useRef();
  acts.current = { send, takeBack, doAgain };
  useEffect(() => {
    const press = (event) => {
      if (!(event.ctrlKey || event.metaKey) || event.altKey || document.querySelector("dialog[open]")) return;
      const isText = event.target.closest?.("input, textarea"); // there the browser has its own undo
      const key = event.key.toLowerCase();
      const act =
        key === "enter" ? "send" : isText ? null : { y: "doAgain", z: event.shiftKey ? "doAgain" : "takeBack" }[key];
      if (!act) return;
      event.preventDefault();
      acts.current[act]();
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, []);
}


/** What one click can do about a problem that has no field: [{label, act}]. */
function fixesOf(problem, change) {
  const act = (make) => () => change((now) => make(now, problem) ?? now);
  const nearest = problem.nearest && { label: say("problem.use", { nearest: problem.nearest }), act: act(takeNearest) };
  const drop = canDrop(problem) && { label: say("sb.problem.drop"), act: act(dropUnknown) };
  return [nearest, drop].filter(Boolean);
}
