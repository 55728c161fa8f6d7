// Modules of the pages, to be called without a browser.

import { buildSync } from "esbuild";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const folders = [];
process.on("exit", () => folders.forEach((folder) => rmSync(folder, { recursive: true, force: true })));

/** A folder that goes with this process. */
export function temporary(prefix) {
  const folder = mkdtempSync(join(tmpdir(), prefix));
  folders.push(folder);
  return folder;
}

/** A module of `src`, bundled. */
export async function load(entry) {
  const outfile = join(temporary("stallbench-"), "module.mjs");
  buildSync({ entryPoints: [join(import.meta.dirname, "../src", entry)], bundle: true, format: "esm", outfile });
  return import(pathToFileURL(outfile));
}
