// All films of the farm, newest first: filters, pages, actions. Refreshed every few seconds; rows keep their places while
// somebody points at them.

import { html, useEffect, useRef, useState } from "../../vendor/htm-preact.js";
import { Button, Notice, announce, describeProblem, useEvery } from "../../components.js";
import { listStatuses } from "../../statuses.js";
import { number, say, sayNumber, sayState } from "../../words.js";
import { useActions } from "./actions.js";
import { FilmCards, FilmTable } from "./film_rows.js";
import { isFiltered, listPath, mergePage, readFilters, toggle, withoutFilters, writeFilters } from "./film_list.js";
import { usePlaces } from "./explanations.js";
import { tryGet } from "./polling.js";

const EVERY_MS = 5000;
const PHONE = "(max-width: 56rem)";

export function FilmsView({ caller }) {
  const [filters, setFilters] = useState(() => readFilters(location.hash));
  const [before, setBefore] = useState([]); // last ids of the pages before this one
  const list = useFilms(filters, before.at(-1) ?? null);
  const places = usePlaces(list.rows || []);
  const actions = useActions(list.replace);
  const isNarrow = useMatch(PHONE);
  const choose = (next) => {
    history.replaceState(null, "", writeFilters(next)); // no new entry in the history, and the view is not rebuilt
    setFilters(next);
    setBefore([]);
  };
  const turn = (next) => (setBefore(next), scrollTo(0, 0));
  const Rows = isNarrow ? FilmCards : FilmTable;
  return html`<div class="films">
    <div class="row apart">
      <h1>${say("films.title")}</h1>
      <a class="button primary" href="#/">${say("films.write")}</a>
    </div>
    <${Filters} filters=${filters} counts=${list.counts} choose=${choose} />
    ${list.problem && html`<${Notice} kind="warning">${describeProblem(list.problem)}<//>`}
    ${actions.problem && html`<${Notice} kind="error">${describeProblem(actions.problem)}<//>`}
    <div class="fresh">
      ${list.fresh > 0 && html`<${Button} onClick=${list.showFresh}>${sayNumber("films.fresh", list.fresh)}<//>`}
    </div>
    <div ref=${list.box}>
      ${list.rows === null && !list.problem && html`<p class="soft">${say("loading")}</p>`}
      ${list.rows?.length > 0 &&
      html`<${Rows} jobs=${list.rows} places=${places} actions=${actions} caller=${caller} filters=${filters} choose=${choose} />`}
      ${list.rows?.length === 0 && html`<${Empty} isNarrowed=${isFiltered(filters)} clear=${() => choose(withoutFilters())} />`}
    </div>
    <${Pages} before=${before} rows=${list.rows} hasMore=${list.hasMore} turn=${turn} />
    ${actions.dialog}
  </div>`;
}

/** The page of the list after this id, refreshed periodically: {rows, counts, fresh, hasMore, problem, box, showFresh, replace}. */
function useFilms(filters, after) {
  const path = listPath(filters, after);
  const [state, setState] = useState({ path: null, rows: null, counts: null, fresh: 0, hasMore: false, problem: null });
  const box = useRef();
  const asked = useRef(path);
  asked.current = path;
  const load = async (everything = false) => {
    const { data, problem } = await tryGet(path);
    if (asked.current !== path) return;
    if (problem) return setState((old) => ({ ...old, problem }));
    setState((old) => {
      const isNew = everything || old.path !== path || !isUsed(box.current);
      const { rows, fresh } = mergePage(isNew ? [] : old.rows, data);
      return { path, rows, fresh, counts: data.counts, hasMore: data.has_more, problem: null };
    });
  };
  useEvery(EVERY_MS, load, [path]);
  const replace = (job) =>
    setState((old) => ({ ...old, rows: old.rows?.map((row) => (row.id === job.id ? job : row)) }));
  const showFresh = async () => {
    await load(true);
    announce(say("films.shown"));
    setTimeout(() => (scrollTo(0, 0), box.current?.querySelector(".title")?.focus())); // the button is gone
  };
  return { ...state, box, replace, showFresh };
}

/** Whether somebody points at the rows, has the focus in them or has scrolled down to them. */
const isUsed = (box) => !box || box.matches(":hover, :focus-within") || scrollY > 80;

function Filters({ filters, counts, choose }) {
  const all = counts && Object.values(counts).reduce((sum, count) => sum + count, 0);
  return html`<div class="row filters">
    <div class="chips" role="group" aria-label=${say("films.filter")}>
      <${Chip} label=${say("films.all")} count=${all} isOn=${!filters.status.length}
        onClick=${() => choose({ ...filters, status: [] })} />
      ${listStatuses().map(
        (state) => html`<${Chip} key=${state} label=${sayState(`status.${state}`)} count=${counts?.[state]}
          isOn=${filters.status.includes(state)} onClick=${() => choose(toggle(filters, "status", state))} />`,
      )}
    </div>
    <div class="chips">
      ${filters.tag.map((tag) => html`<${Removable} key=${tag} text=${tag} remove=${() => choose(toggle(filters, "tag", tag))} />`)}
      ${filters.family &&
      html`<${Removable} text=${say("films.family")} remove=${() => choose({ ...filters, family: null })} />`}
      ${filters.tenant &&
      html`<${Removable} text=${say("films.ofTenant", { tenant: filters.tenant })} remove=${() => choose({ ...filters, tenant: null })} />`}
    </div>
  </div>`;
}

/** A state that can be chosen, with how many films are in it. */
function Chip({ label, count, isOn, onClick }) {
  return html`<button type="button" class="chip" aria-pressed=${isOn} onClick=${onClick}>
    ${label} <span class="count numbers">${count === null || count === undefined ? "" : number(count)}</span>
  </button>`;
}

function Removable({ text, remove }) {
  return html`<button type="button" class="chip" aria-pressed="true" aria-label=${say("films.unfilter", { text })} onClick=${remove}>
    ${text} <span aria-hidden="true">✕</span>
  </button>`;
}

function Empty({ isNarrowed, clear }) {
  if (isNarrowed) {
    return html`<div class="card empty">
      <p>${say("films.noneLikeThis")}</p>
      <${Button} onClick=${clear}>${say("films.showAll")}<//>
    </div>`;
  }
  return html`<div class="card empty">
    <h2>${say("films.none")}</h2>
    <p>${say("films.noneText")}</p>
    <a class="button primary" href="#/">${say("films.writeFirst")}</a>
  </div>`;
}

function Pages({ before, rows, hasMore, turn }) {
  if (!before.length && !hasMore) return null;
  return html`<nav class="row pages" aria-label=${say("films.pages")}>
    <${Button} disabled=${!before.length} onClick=${() => turn(before.slice(0, -1))}>${say("films.newer")}<//>
    <span class="soft numbers">${say("films.page", { page: number(before.length + 1) })}</span>
    <${Button} disabled=${!hasMore} onClick=${() => turn([...before, rows.at(-1).id])}>${say("films.older")}<//>
  </nav>`;
}

/** Whether a media query is met now. */
function useMatch(query) {
  const [isMet, setMet] = useState(() => matchMedia(query).matches);
  useEffect(() => {
    const media = matchMedia(query);
    const changed = () => setMet(media.matches);
    media.addEventListener("change", changed);
    return () => media.removeEventListener("change", changed);
  }, [query]);
  return isMet;
}
