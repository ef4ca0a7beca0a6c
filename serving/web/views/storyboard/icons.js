// Icons of buttons as drawings, since not every font has them. The buttons carry the labels.

import { html } from "../../vendor/htm-preact.js";

const PATHS = {
  earlier: "M13 4l-6 6 6 6",
  later: "M7 4l6 6-6 6",
  add: "M10 4v12M4 10h12",
  copy: "M7 7h9v9H7zM13 7V4H4v9h3",
  delete: "M4 6h12M8 6V4h4v2M6 6l1 11h6l1-11M9 9v5M11 9v5",
  close: "M5 5l10 10M15 5L5 15",
  grip: "M7 5v.01M13 5v.01M7 10v.01M13 10v.01M7 15v.01M13 15v.01",
};

export function Icon({ name }) {
  return html`<svg class="icon" viewBox="0 0 20 20" width="20" height="20" aria-hidden="true" focusable="false"
    ><path d=${PATHS[name]} fill="none" stroke="currentColor" stroke-width=${name === "grip" ? 2.4 : 1.6}
      stroke-linecap="round" stroke-linejoin="round" /></svg>`;
}
