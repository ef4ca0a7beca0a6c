// The pools of the farm: gangs, backlog, the reason for the size; administrators change a pool's terms here.

import { html, useState } from "../../vendor/htm-preact.js";
import { send } from "../../api.js";
import { Button, Dialog, Field, Notice, announce, describeProblem, useRequest } from "../../components.js";
import { duration, money, number, say, sayNumber } from "../../words.js";
import { changedTerms, gangsOf } from "./health.js";

const SPOT = ["allow", "avoid", "only"];
const HOUR_S = 3600;

export function Pools({ pools, caller, reload }) {
  const [open, setOpen] = useState(null);
  return html`<section aria-labelledby="pools-title">
    <h2 id="pools-title">${say("farm.pools")}</h2>
    <div class="pool-cards">
      ${pools.map(
        (pool) => html`<article key=${pool.name} class="card" aria-labelledby="pool-${pool.name}">
          <div class="row apart">
            <h3 id="pool-${pool.name}">${pool.name}</h3>
            ${caller.is_admin &&
            pool.is_scaled &&
            html`<${Button} kind="quiet" aria-label=${say("farm.terms.of", { pool: pool.name })} onClick=${() => setOpen(pool)}>${say("farm.terms.change")}<//>`}
          </div>
          <p class="soft">${say("farm.pool.serves", { model: pool.model, shape: pool.gang_shape })}</p>
          <${Gangs} pool=${pool} />
          <${Demand} pool=${pool} />
        </article>`,
      )}
    </div>
    ${open && html`<${Terms} pool=${open} close=${() => setOpen(null)} reload=${reload} />`}
  </section>`;
}

/** How many gangs there are: a bar, and the same in words. */
function Gangs({ pool }) {
  const { wanted, parts, total } = gangsOf(pool);
  const shown = parts.filter((part) => part.count > 0);
  return html`<div class="gangs">
    <div class="meter" aria-hidden="true">
      ${shown.map((part) => html`<span key=${part.name} class=${part.name} style=${{ flexGrow: part.count }}></span>`)}
      ${total === 0 && html`<span class="none"></span>`}
    </div>
    <p class="numbers">
      <strong>${sayNumber("farm.gangs.wanted", wanted)}</strong>
      ${parts
        .filter((part) => part.count > 0)
        .map((part) => html`<span key=${part.name} class="part ${part.name}">${say(`farm.gangs.${part.name}`, { n: number(part.count) })}</span>`)}
    </p>
    ${pool.decision && html`<p class="soft why">${pool.decision.reason}</p>`}
  </div>`;
}

function Demand({ pool }) {
  const { demand, terms } = pool;
  const price = pool.price_per_gpu_second * HOUR_S;
  const facts = [
    ["farm.pool.backlog", demand && sayNumber("gpuSeconds", Math.round(demand.backlog_gpu_s))],
    ["farm.pool.ready", demand && number(demand.calls_ready)],
    ["farm.pool.running", demand && number(demand.calls_running)],
    ["farm.pool.oldest", demand && demand.calls_ready > 0 && duration(demand.oldest_wait_s)],
    ["farm.pool.bounds", boundsOf(pool)],
    ["farm.pool.spot", pool.is_scaled && say(`farm.spot.${terms.spot}`)],
    ["farm.pool.price", price ? say("farm.pool.perHour", { usd: money(price) }) : say("farm.pool.free")],
  ];
  return html`<dl class="facts">
      ${facts.filter(([, value]) => value).map(([key, value]) => html`<div key=${key}><dt>${say(key)}</dt><dd class="numbers">${value}</dd></div>`)}
    </dl>
    ${terms.spot !== pool.spot_applied && html`<p class="soft">${say("farm.spot.later")}</p>`}`;
}

function boundsOf({ is_scaled, terms, live }) {
  if (!is_scaled) return say("farm.pool.fixed", { n: number(live?.gangs_wanted ?? terms.max_gangs) });
  const bounds = { min: number(terms.min_gangs), max: number(terms.max_gangs) };
  return terms.mode === "external" ? say("farm.pool.external", bounds) : say("farm.pool.scaled", bounds);
}

function Terms({ pool, close, reload }) {
  const [wanted, setWanted] = useState({ ...pool.terms });
  const { busy, problem, carryOut } = useRequest();
  const apply = (event) => {
    event.preventDefault();
    carryOut(async () => {
      await send("PUT", `/v1/pools/${encodeURIComponent(pool.name)}/terms`, { body: changedTerms(pool.terms, wanted) });
      announce(say("farm.terms.done", { pool: pool.name }));
      await reload();
      close();
    });
  };
  const of = (path) => problem?.problems.filter((one) => one.path === path) ?? [];
  const set = (name) => (event) => setWanted({ ...wanted, [name]: event.target.value });
  const count = (name) => html`<${Field} label=${say(`farm.terms.${name}`)} problems=${of(name)} control=${(attributes) =>
    html`<input type="number" inputmode="numeric" min="0" step="1" required value=${wanted[name]} onInput=${set(name)} ...${attributes} />`} />`;
  return html`<${Dialog} title=${say("farm.terms.title", { pool: pool.name })} onClose=${close}>
    <form class="stack" onSubmit=${apply}>
      ${problem && !of("min_gangs").length && !of("max_gangs").length && html`<${Notice} kind="error">${describeProblem(problem)}<//>`}
      <div class="row bounds">${count("min_gangs")} ${count("max_gangs")}</div>
      <${Field} label=${say("farm.terms.spot")} hint=${say("farm.spot.later")} control=${(attributes) =>
        html`<select value=${wanted.spot} onChange=${set("spot")} ...${attributes}>
          ${SPOT.map((one) => html`<option value=${one} selected=${one === wanted.spot}>${say(`farm.spot.${one}`)}</option>`)}
        </select>`} />
      <div class="row end">
        <${Button} onClick=${close}>${say("farm.terms.keep")}<//>
        <${Button} type="submit" kind="primary" busy=${busy}>${say("farm.terms.apply")}<//>
      </div>
    </form>
  <//>`;
}
