// Modules of the pages, to be called without a browser.

import { buildSync } from "esbuild";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

/** A module of `src`, bundled. */
export async function load(entry) {
  const outfile = join(mkdtempSync(join(tmpdir(), "stallbench-")), "module.mjs");
  buildSync({ entryPoints: [join(import.meta.dirname, "../src", entry)], bundle: true, format: "esm", outfile });
  return import(pathToFileURL(outfile));
}
