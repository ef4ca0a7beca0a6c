// Dragging a card to another place by mouse, pen or finger. Escape leaves it where it was.

import { useRef } from "../../vendor/htm-preact.js";

const SLACK_PX = 5; // less is a click
const EDGE_PX = 60;
const SPEED_PX = 14;

/** {strip, begin}: a ref for the list of cards, and begin(event, index), which begins a drag. `onMove(from, to)`. */
export function useDrag(onMove) {
  const strip = useRef();
  const begin = useRef((event, index) => {
    if (event.button === 0 && event.isPrimary) drag(strip.current, event, index, onMove);
  });
  return { strip, begin: begin.current };
}

function drag(strip, start, from, onMove) {
  const grip = start.currentTarget;
  const cards = [...strip.querySelectorAll(":scope > .shot")];
  const state = { gap: null, isMoving: false, x: start.clientX, y: start.clientY };
  const ending = new AbortController();
  const on = (target, name, act) => target.addEventListener(name, act, { signal: ending.signal });
  let frame = 0;

  const show = () => {
    cards.forEach((card, index) => {
      card.classList.toggle("drop-before", state.isMoving && state.gap === index);
      card.classList.toggle("drop-after", state.isMoving && state.gap === cards.length && index === cards.length - 1);
      card.classList.toggle("dragged", state.isMoving && index === from);
    });
  };
  const follow = () => {
    scrollAtEdge(strip, state);
    state.gap = gapAt(cards, state);
    show();
    frame = requestAnimationFrame(follow);
  };
  const finish = (isDropped) => {
    ending.abort();
    cancelAnimationFrame(frame);
    const { gap, isMoving } = state;
    state.isMoving = false;
    show();
    if (!isDropped || !isMoving || gap === null) return;
    const to = gap > from ? gap - 1 : gap;
    if (to !== from) onMove(from, to, "grip");
  };
  on(grip, "pointermove", (event) => {
    state.x = event.clientX;
    state.y = event.clientY;
    if (state.isMoving || Math.hypot(state.x - start.clientX, state.y - start.clientY) < SLACK_PX) return;
    state.isMoving = true;
    follow();
  });
  on(grip, "pointerup", () => finish(true));
  on(grip, "pointercancel", () => finish(false));
  on(window, "keydown", (event) => {
    if (event.key !== "Escape" || !state.isMoving) return;
    event.preventDefault();
    finish(false);
  });
  grip.setPointerCapture(start.pointerId);
}

/** The gap between cards that is nearest to the pointer: before the first card 0, after the last their number. */
function gapAt(cards, { x, y }) {
  const boxes = cards.map((card) => card.getBoundingClientRect());
  const isColumn = boxes.length > 1 && boxes[1].top > boxes[0].top + 10;
  const after = boxes.findIndex((box) => (isColumn ? y < box.top + box.height / 2 : x < box.left + box.width / 2));
  return after < 0 ? cards.length : after;
}

function scrollAtEdge(strip, { x, y }) {
  const box = strip.getBoundingClientRect();
  if (strip.scrollWidth > strip.clientWidth) {
    if (x < box.left + EDGE_PX) strip.scrollLeft -= SPEED_PX;
    if (x > box.right - EDGE_PX) strip.scrollLeft += SPEED_PX;
  } else {
    if (y < EDGE_PX) scrollBy(0, -SPEED_PX);
    if (y > innerHeight - EDGE_PX) scrollBy(0, SPEED_PX);
  }
}
