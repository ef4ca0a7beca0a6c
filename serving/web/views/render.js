// One film while it renders and after: follows the job, asks for its timeline, and gives both to the parts in render/.

import { html, useEffect, useMemo, useRef, useState } from "../vendor/htm-preact.js";
import { get, keepKey } from "../api.js";
import { followJob } from "../job_events.js";
import { Button, Notice, announce, describeProblem, useEvery } from "../components.js";
import { isLive } from "../statuses.js";
import { say, sayState } from "../words.js";
import { timelineOf } from "./render/heat_map.js";
import { FilmFacts } from "./render/film_facts.js";
import { Changes, Explain, Logs } from "./render/history.js";
import { layOut } from "./render/layout.js";
import { Player } from "./render/player.js";
import { ShotStrip } from "./render/shots.js";
import { Steering } from "./render/steering.js";
import { Summary } from "./render/summary.js";
import { Timeline } from "./render/timeline.js";
import { Versions } from "./render/versions.js";

const TIMELINE_EVERY_MS = 1000;
const COSTS_EVERY_MS = 4000;
const CLOCK_EVERY_MS = 5000;
const USUAL_ASPECT = 16 / 9;

export function RenderView({ id }) {
  const { job, changes, live, problem, take } = useJob(id);
  const board = useBoard(id);
  const failed = problem ?? board.problem;
  useStatusSaid(job);
  if (failed && !(job && board.storyboard)) return html`<${CannotShow} problem=${failed} />`;
  if (!job || !board.storyboard) return html`<p class="render-loading" role="status">${say("loading")}</p>`;
  return html`<div class="render stack">
    <${Film} ...${{ job, changes, live, take, board }} />
    ${failed ? html`<div class="render-toast"><${CannotShow} problem=${failed} /></div>` : live === "lost" && html`<${Lost} />`}
  </div>`;
}

function Film({ job, changes, live, take, board }) {
  const { storyboard, model } = board;
  const timeline = useTimeline(job);
  const costs = useCosts(job);
  const now_s = useNow();
  const onTime = useRef(null);
  const layout = useMemo(() => layOut(storyboard, model?.fps), [storyboard, model]);
  const steps = model?.qualities?.[storyboard.quality] ?? 1;
  const entries = useMemo(() => timelineOf(timeline, job, steps), [timeline, job, steps]);
  const [width, height] = [storyboard.video?.width ?? model?.width, storyboard.video?.height ?? model?.height];
  const aspect = width && height ? width / height : USUAL_ASPECT;
  return html`<${Summary} job=${job} live=${live} now_s=${now_s}>
      <${Steering} job=${job} isFinal=${storyboard.quality === "final"} onJob=${take} />
    <//>
    <div class="render-stage">
      <${Player} ...${{ job, layout, aspect }} onTime=${(seconds) => onTime.current?.(seconds)} />
      <div class="stack">
        ${job.film ? html`<${FilmFacts} job=${job} />` : html`<${Explain} job=${job} />`}
        <${Changes} changes=${changes} />
      </div>
    </div>
    <${Timeline} ...${{ job, layout, entries, onTime }} at=${timeline?.at ?? now_s} />
    <${ShotStrip} ...${{ job, layout, entries, costs, aspect }} />
    <${Versions} job=${job} />
    <${Logs} job=${job} />`;
}

function CannotShow({ problem }) {
  if (problem.wantsKey) {
    const again = html`<${Button} onClick=${() => (keepKey(null), location.reload())}>${say("render.otherKey")}<//>`;
    return html`<${Notice} kind="error" action=${again}><p>${say("key.wrong")}</p><//>`;
  }
  return html`<${Notice} kind="error"><p>${describeProblem(problem)} <a href="#/films">${say("render.toFilms")}</a></p><//>`;
}

function Lost() {
  return html`<div class="render-toast"><${Notice} kind="warning"><p>${say("render.lost")}</p><//></div>`;
}

/** The latest state of the job, every entry of its log once, and the state of the connection. A job that is retried
 *  after its end is followed from the last entry seen. */
function useJob(id) {
  const [job, setJob] = useState(null);
  const [changes, setChanges] = useState([]);
  const [live, setLive] = useState("connecting");
  const [problem, setProblem] = useState(null);
  const [round, setRound] = useState(0);
  const lastId = useRef(0);
  useEffect(() => {
    setProblem(null);
    return followJob(id, {
      after: lastId.current,
      onJob: setJob,
      onState: setLive,
      onProblem: setProblem,
      onChange: (change) => {
        if (change.id <= lastId.current) return;
        lastId.current = change.id;
        setChanges((before) => [...before, change]);
      },
    });
  }, [id, round]);
  const take = (answer) => {
    setJob(answer);
    if (live === "over") setRound(round + 1);
  };
  return { job, changes, live, problem, take };
}

/** The storyboard and the description of its model; neither changes. */
function useBoard(id) {
  const [board, setBoard] = useState({ storyboard: null, model: null, problem: null });
  useEffect(() => {
    const ending = new AbortController();
    let timer = null;
    const load = async () => {
      try {
        const path = `/v1/jobs/${encodeURIComponent(id)}/storyboard`;
        const [storyboard, models] = await Promise.all([path, "/v1/models"].map((one) => get(one, { signal: ending.signal })));
        setBoard({ storyboard, model: models.data.find((model) => model.id === storyboard.model) ?? null, problem: null });
      } catch (error) {
        if (ending.signal.aborted) return;
        if (error.isUnreachable || error.status === 429) timer = setTimeout(load, 2000);
        else setBoard((before) => ({ ...before, problem: error }));
      }
    };
    load();
    return () => (ending.abort(), clearTimeout(timer));
  }, [id]);
  return board;
}

function useTimeline(job) {
  const [timeline, setTimeline] = useState(null);
  const ask = () => get(`/v1/jobs/${encodeURIComponent(job.id)}/timeline`).then(setTimeline, () => {});
  useEvery(TIMELINE_EVERY_MS, ask, [job.id], isLive(job));
  useEffect(() => void (isLive(job) || ask()), [job.id, job.status]);
  return timeline;
}

/** Map of shot id to what was spent on it. */
function useCosts(job) {
  const [costs, setCosts] = useState(new Map());
  const ask = () =>
    get(`/v1/usage?job=${encodeURIComponent(job.id)}`).then(
      (page) => setCosts(new Map(page.data.map((row) => [row.shot, row]))),
      () => {},
    );
  useEvery(COSTS_EVERY_MS, ask, [job.id], isLive(job));
  useEffect(() => void (isLive(job) || ask()), [job.id, job.status]);
  return costs;
}

function useNow() {
  const [now_s, setNow] = useState(Date.now() / 1000);
  useEvery(CLOCK_EVERY_MS, () => setNow(Date.now() / 1000), []);
  return now_s;
}

/** Announces changes of the job's state to screen readers, and names the page. */
function useStatusSaid(job) {
  const before = useRef(null);
  useEffect(() => {
    if (!job) return;
    if (before.current && before.current !== job.status) {
      announce(say("render.nowIs", { state: sayState(`status.${job.status}`), reason: job.reason }));
    }
    before.current = job.status;
  }, [job?.status]);
  useEffect(() => {
    if (!job) return undefined;
    const title = document.title;
    document.title = say("render.pageTitle", { title: job.title });
    return () => (document.title = title);
  }, [job?.title]);
}
