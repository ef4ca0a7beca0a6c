// The studio's frame: which view an address shows, the API key, the colours. Views do the rest.
//
//   #/                      write a storyboard            views/storyboard.js
//   #/jobs/ID               watch it render               views/render.js
//   #/jobs/ID/revise        change it, see what it costs  views/storyboard.js
//   #/films, #/farm         all films; pools and faults   views/farm.js

import { html, render, useEffect, useRef, useState } from "./vendor/htm-preact.js";
import { get, keepKey, keptKey } from "./api.js";
import { Button, Dialog, Field, Notice, describeProblem } from "./components.js";
import { FarmView, FilmsView } from "./views/farm.js";
import { RenderView } from "./views/render.js";
import { StoryboardView } from "./views/storyboard.js";
import { learnStatuses } from "./statuses.js";
import { say } from "./words.js";

const THEME = "longtake.theme";

/** The view of an address, and the part of the navigation that it belongs to. */
function route(hash) {
  const [, first, id, last] = hash.replace(/^#/, "").split("?")[0].split("/");
  if (!first) return { view: "storyboard", place: "storyboard" };
  if (first === "films" && !id) return { view: "films", place: "jobs" };
  if (first === "farm" && !id) return { view: "farm", place: "farm" };
  if (first === "jobs" && id && !last) return { view: "render", id: decodeURIComponent(id), place: "jobs" };
  if (first === "jobs" && id && last === "revise") {
    return { view: "storyboard", revises: decodeURIComponent(id), place: "jobs" };
  }
  return { view: "missing" };
}

function Studio() {
  const [hash, setHash] = useState(location.hash);
  const [caller, setCaller] = useState(null);
  const [problem, setProblem] = useState(null);
  useEffect(() => {
    const changed = () => setHash(location.hash);
    addEventListener("hashchange", changed);
    return () => removeEventListener("hashchange", changed);
  }, []);
  const meet = () =>
    get("/v1/me").then((found) => (learnStatuses(found.statuses), setCaller(found), setProblem(null)), setProblem);
  useEffect(meet, []);
  useEffect(() => {
    if (!problem || problem.wantsKey) return undefined;
    const timer = setTimeout(meet, 3000);
    return () => clearTimeout(timer);
  }, [problem]);
  const shown = route(hash);
  const isFirst = useRef(true);
  useEffect(() => {
    // a new view begins at its top; the first view leaves the focus where the browser has it, before the skip link
    if (!isFirst.current) {
      document.getElementById("content").focus({ preventScroll: true });
      scrollTo(0, 0);
    }
    isFirst.current = false;
    document.title = shown.place ? `${say(`nav.${shown.place}`)} · ${say("app.name")}` : say("app.name");
  }, [hash]);
  return html`
    <a class="skip" href="#content" onClick=${skip}>${say("app.skip")}</a>
    <${Header} place=${shown.place} caller=${caller} />
    <main id="content" tabindex="-1">
      ${problem?.wantsKey && html`<${AskForKey} onKey=${meet} />`}
      ${problem && !problem.wantsKey && html`<${Notice} kind="warning">${describeProblem(problem)}<//>`}
      ${caller && html`<${View} key=${hash} shown=${shown} caller=${caller} />`}
    </main>
    <div id="announcer" class="unseen" aria-live="polite"></div>
  `;
}

function View({ shown, caller }) {
  switch (shown.view) {
    case "storyboard":
      return html`<${StoryboardView} caller=${caller} revises=${shown.revises} />`;
    case "render":
      return html`<${RenderView} caller=${caller} id=${shown.id} />`;
    case "films":
      return html`<${FilmsView} caller=${caller} />`;
    case "farm":
      return html`<${FarmView} caller=${caller} />`;
    default:
      return html`<h1>${say("page.missing")}</h1>`;
  }
}

function Header({ place, caller }) {
  const links = [
    ["storyboard", "#/"],
    ["jobs", "#/films"],
    ["farm", "#/farm"],
  ];
  return html`<header class="frame">
    <a class="brand" href="#/"><img src="/studio/icon.svg" alt="" width="28" height="28" />${say("app.name")}</a>
    <nav aria-label=${say("nav.label")}>
      ${links.map(
        ([name, href]) =>
          html`<a href=${href} aria-current=${place === name ? "page" : undefined}>${say(`nav.${name}`)}</a>`,
      )}
    </nav>
    <${ThemeSwitch} />
    ${caller?.needs_keys &&
    html`<${Button} kind="quiet" onClick=${() => (keepKey(null), location.reload())}>${say("key.forget")}<//>`}
  </header>`;
}

function ThemeSwitch() {
  const [theme, setTheme] = useState(localStorage.getItem(THEME));
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  const other = (theme || system) === "dark" ? "light" : "dark";
  useEffect(() => {
    if (theme) document.documentElement.dataset.theme = theme;
  }, [theme]);
  const change = () => (localStorage.setItem(THEME, other), setTheme(other));
  return html`<button type="button" class="theme" aria-label=${say(`theme.${other}`)} title=${say(`theme.${other}`)} onClick=${change}>
    <span aria-hidden="true">${other === "dark" ? "☾" : "☀"}</span>
  </button>`;
}

function AskForKey({ onKey }) {
  const [key, setKey] = useState("");
  const [refused, setRefused] = useState(Boolean(keptKey()));
  const use = (event) => {
    event.preventDefault();
    keepKey(key.trim());
    setRefused(false);
    onKey().then(() => setRefused(true));
  };
  return html`<${Dialog} title=${say("key.title")}>
    <form onSubmit=${use}>
      <p>${say("key.text")}</p>
      <${Field}
        label=${say("key.field")}
        problems=${refused ? [{ message: say("key.wrong") }] : []}
        control=${(attributes) =>
          html`<input type="password" autocomplete="off" required value=${key} onInput=${(e) => setKey(e.target.value)} ...${attributes} />`}
      />
      <div class="row end"><${Button} type="submit" kind="primary">${say("key.use")}<//></div>
    </form>
  <//>`;
}

function skip(event) {
  event.preventDefault();
  document.getElementById("content").focus();
}

render(html`<${Studio} />`, document.getElementById("studio"));
