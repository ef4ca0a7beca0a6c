// Storyboards as YAML, read as the farm reads it: plain YAML 1.2 data without tags that make objects. Pure.

import {
  DUMP_SCHEMA, FAILSAFE_SCHEMA, NOT_RESOLVED, Schema, boolCoreTag, defineScalarTag, dump, load, nullCoreTag,
} from "../../vendor/js-yaml.js";
import { shapeProblem, tidy } from "./draft.js";

const MAX_CHARS = 1 << 20;
const UNQUOTED_CHARACTER = /:\s*\{\w+\}\s*[^\s,}#]/; // `prompt: {hero} moving`: YAML takes the brace for a mapping
const NUMBER = /^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$/;

const numberTag = defineScalarTag("tag:yaml.org,2002:float", {
  implicit: true,
  implicitFirstChars: ["-", "+", ".", ..."0123456789"],
  resolve: (text) => (NUMBER.test(text) ? Number(text) : NOT_RESOLVED),
  identify: (value) => typeof value === "number",
  represent: String,
});

const READ = new Schema([...FAILSAFE_SCHEMA.tags, nullCoreTag, boolCoreTag, numberTag]);

/** Why a text or zip is no storyboard: `kind` is "large", "syntax", "brace", "root", "shots", "shot", "zip" or "picture";
 *  `line` counts from 1, if it is known. */
export class ImportProblem extends Error {
  constructor(kind, { line = null, text = "", detail = "", index = null } = {}) {
    super(detail || kind);
    Object.assign(this, { kind, line, text, detail, index });
  }
}

/** The storyboard in a text; unknown keys are kept. Throws ImportProblem. */
export function readYaml(text) {
  if (text.length > MAX_CHARS) throw new ImportProblem("large");
  let value;
  try {
    value = load(text, { schema: READ, maxDepth: 10, maxAliases: 20 });
  } catch (error) {
    const line = error.mark ? error.mark.line + 1 : null;
    const shown = line === null ? "" : (text.split(/\r\n|\r|\n/)[line - 1] ?? "").slice(0, 200);
    const kind = UNQUOTED_CHARACTER.test(shown) ? "brace" : "syntax";
    throw new ImportProblem(kind, { line, text: shown, detail: error.reason || error.message });
  }
  const wrong = shapeProblem(value);
  if (wrong) throw new ImportProblem(wrong.kind, wrong);
  return JSON.parse(JSON.stringify(value)); // aliases become copies: each is edited alone
}

/** The storyboard as a person would write it. `readYaml` and the farm read the same storyboard from it. */
export const writeYaml = (storyboard) =>
  dump(tidy(storyboard), { schema: DUMP_SCHEMA, lineWidth: -1, noRefs: true, flowLevel: 3, quoteStyle: "double" });

/** A name for its file. */
export function fileName(title, extension = "yaml") {
  const plain = String(title ?? "").normalize("NFKD").replace(/[^\w-]+/g, "-").replace(/^-+|-+$/g, "").toLowerCase();
  return `${plain.slice(0, 60) || "storyboard"}.${extension}`;
}
