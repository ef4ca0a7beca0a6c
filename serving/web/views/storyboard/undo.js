// Undo and redo. Pure: the time is passed in.

const MOST = 200;
const TOGETHER_MS = 1500; // continuous typing in one field is one edit

export const begin = (draft) => ({ draft, past: [], future: [], tag: null, atMs: 0 });

/** Records a new draft. Edits with the same tag in quick succession are undone together. */
export function edit(edits, draft, tag, atMs) {
  if (draft === edits.draft) return edits;
  const goesOn = tag !== null && tag === edits.tag && atMs - edits.atMs < TOGETHER_MS;
  const past = goesOn ? edits.past : [...edits.past, edits.draft].slice(-MOST);
  return { draft, past, future: [], tag, atMs };
}

export function undo({ draft, past, future }) {
  if (!past.length) return { draft, past, future, tag: null, atMs: 0 };
  return { draft: past.at(-1), past: past.slice(0, -1), future: [draft, ...future], tag: null, atMs: 0 };
}

export function redo({ draft, past, future }) {
  if (!future.length) return { draft, past, future, tag: null, atMs: 0 };
  return { draft: future[0], past: [...past, draft], future: future.slice(1), tag: null, atMs: 0 };
}
