// Builds `dist/report.html`, the page with a hole for the numbers, and `dist/lab.html`: each with its script and its style inside.

import { build } from "esbuild";
import { mkdir, readFile, writeFile } from "node:fs/promises";

/** A script may have this many bytes. */
const MOST = 150 * 1024;

async function bundle(entry, more) {
  const result = await build({ entryPoints: [entry], bundle: true, minify: true, write: false, target: "es2022", legalComments: "inline", ...more });
  const text = (ending) => result.outputFiles.find((file) => file.path.endsWith(ending))?.text.trim() ?? "";
  return { script: text(".js"), style: text(".css") };
}

async function page(name, folder) {
  const own = await bundle(`${folder}/main.ts`, { format: "iife", outdir: "out" });
  const sheet = await bundle(`${folder}/style.css`, { outdir: "out" });
  const size = Buffer.byteLength(own.script);
  if (size > MOST) throw new Error(`the script of ${name} has ${size} bytes, more than ${MOST}`);
  const shell = await readFile(`${folder}/page.html`, "utf8");
  const html = shell
    .replace("/* style */", () => (own.style + sheet.style).replaceAll("</", "<\\/"))
    .replace("/* script */", () => own.script.replaceAll("</script", "<\\/script"));
  await mkdir("dist", { recursive: true });
  await writeFile(`dist/${name}.html`, html);
  console.log(`dist/${name}.html: ${Buffer.byteLength(html)} bytes, of which the script ${size}`);
}

await page("report", "src");
await page("lab", "src/lab");
