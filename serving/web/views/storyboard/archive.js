// A storyboard with its pictures as one zip: storyboard.yaml beside a folder of pictures. Unpacked, it is what
// `longtake submit` takes.

import { strFromU8, strToU8, unzipSync, zipSync } from "../../vendor/fflate.js";
import { ApiProblem, fetchBlob, sendFile } from "../../api.js";
import { describeProblem } from "../../components.js";
import { mapPictures } from "./draft.js";
import { ImportProblem, readYaml, writeYaml } from "./yaml.js";

const MAX_ZIP_BYTES = 256 << 20; // as packed, and as unpacked
const EXTENSIONS = { "image/jpeg": "jpg", "image/webp": "webp", "image/avif": "avif" };

const isAsset = (picture) => typeof picture === "string" && picture.startsWith("sha256:");

/** The assets that a storyboard names, each once. */
export function assetsOf(storyboard) {
  const found = new Set();
  mapPictures(storyboard, (picture) => (isAsset(picture) && found.add(picture), picture));
  return [...found];
}

export const isZip = (file) => /\.zip$/i.test(file.name) || file.type === "application/zip";

/** The zip as a Blob. Throws ApiProblem for a picture that the farm does not have any more. */
export async function packZip(storyboard) {
  const names = new Map();
  const files = {};
  for (const asset of assetsOf(storyboard)) {
    const picture = await fetchBlob(`/v1/assets/${asset}`);
    const name = `pictures/${asset.slice(7, 19)}.${EXTENSIONS[picture.type] ?? "png"}`;
    names.set(asset, name);
    files[name] = [new Uint8Array(await picture.arrayBuffer()), { level: 0 }]; // pictures are compressed already
  }
  files["storyboard.yaml"] = strToU8(writeYaml(mapPictures(storyboard, (picture) => names.get(picture) ?? picture)));
  // The earliest date that a zip knows, in local time: the same film is the same zip.
  return new Blob([zipSync(files, { mtime: new Date(1980, 0, 1) })], { type: "application/zip" });
}

/** The storyboard in a zip; its pictures are sent to the farm. Throws ImportProblem, ApiProblem. */
export async function unpackZip(file) {
  if (file.size > MAX_ZIP_BYTES) throw new ImportProblem("large");
  const files = readFiles(new Uint8Array(await file.arrayBuffer()));
  const place = Object.keys(files).filter((name) => /(^|\/)[^/]+\.(ya?ml|json)$/i.test(name)).toSorted(byDepth)[0];
  if (!place) throw new ImportProblem("zip", { detail: "no storyboard" });
  const storyboard = readYaml(strFromU8(files[place]));
  const folder = place.slice(0, place.lastIndexOf("/") + 1);
  const ids = new Map();
  const wanted = new Set();
  mapPictures(storyboard, (picture) => (wanted.add(picture), picture));
  for (const name of wanted) {
    const content = typeof name === "string" && files[folder + name.replace(/^\.\//, "")];
    if (content) ids.set(name, (await sendFile("/v1/assets", new Blob([content]))).id);
  }
  return mapPictures(storyboard, (picture) => ids.get(picture) ?? picture);
}

function readFiles(content) {
  let total = 0;
  const fits = ({ originalSize }) => (total += originalSize) <= MAX_ZIP_BYTES;
  try {
    return unzipSync(content, { filter: fits });
  } catch (error) {
    throw new ImportProblem("zip", { detail: error.message });
  }
}

const byDepth = (one, other) => one.split("/").length - other.split("/").length || one.localeCompare(other);

/** The same failure as an import shows it; anything else is thrown on. */
export function asImportProblem(problem) {
  if (problem instanceof ApiProblem) return new ImportProblem("picture", { detail: describeProblem(problem) });
  if (problem instanceof ImportProblem) return problem;
  throw problem;
}
