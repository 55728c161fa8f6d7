// A browser, and the report of a whole round, for all tests of a file. The round may be named in the environment.

import { after, before } from "node:test";
import { launch } from "./browser.mjs";
import { recorded, report, withTimelines } from "./rounds.mjs";

/** Both are there once the first test begins. */
export let browser;
export let full;

before(async () => {
  browser = await launch();
  full = withTimelines(report(recorded(process.env.ROUND ?? "2026-11-23-vm.6")));
});
after(() => browser?.close());
