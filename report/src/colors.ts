// Colours of servers, grades and themes.

import { DARK, LIGHT } from "./palette";

const DASHES: number[][] = [[], [7, 4], [2, 3], [10, 3, 2, 3]];
/** Those of another round, in the same order: no pattern stands for both. */
const OTHER_DASHES: number[][] = [[4, 4], [7, 2, 1, 2], [1, 5], [10, 2, 2, 2, 2, 2]];

/** The lines that look different from one another. */
export const STYLES = LIGHT.length * DASHES.length;

/** A way to draw a line: once the colours are used up, lines are dashed. */
export interface Style {
  color: string;
  dash: number[];
}

const prefersDark = matchMedia("(prefers-color-scheme: dark)");

/** Applies a theme: `light`, `dark`, or the system's if empty. */
export function setTheme(chosen: string): void {
  document.documentElement.dataset.theme = chosen || (prefersDark.matches ? "dark" : "light");
}

/** Calls back when the system's preference changes. */
export function onSystemTheme(changed: () => void): void {
  prefersDark.addEventListener("change", changed);
}

/** Returns whether the page is dark. */
export function isDark(): boolean {
  return document.documentElement.dataset.theme === "dark";
}

/** The style of a server among those that are chosen, in the round of the page or in the other one; `null` if it is not chosen, or if all styles are used up. */
export function styleOf(name: string, chosen: string[], isOther = false): Style | null {
  const at = chosen.indexOf(name);
  if (at < 0 || at >= STYLES) return null;
  const colors = isDark() ? DARK : LIGHT;
  return { color: colors[at % colors.length], dash: (isOther ? OTHER_DASHES : DASHES)[Math.floor(at / colors.length)] };
}

/** The background of a sample of a line, dashed as the line is; empty without one. */
export function sample(style: Style | null): string | undefined {
  if (!style) return undefined;
  let [at, stops] = [0, [] as string[]];
  style.dash.forEach((length, part) => {
    stops = [...stops, `${part % 2 === 0 ? style.color : "transparent"} ${at}px ${at + length}px`];
    at += length;
  });
  return `background:${stops.length > 0 ? `repeating-linear-gradient(90deg, ${stops.join(", ")})` : style.color}`;
}

const inks = new Map<string, string>();

/** A colour of the style sheet. Asking the browser takes longer than drawing with it, so it is remembered. */
export function ink(name: string): string {
  const key = `${name} ${document.documentElement.dataset.theme}`;
  let color = inks.get(key);
  if (color === undefined) {
    color = getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
    inks.set(key, color);
  }
  return color;
}

/** The words for response times, from quick to slow. */
export const GRADES = ["instant", "flow", "attention", "lost"] as const;

/** The word for a response time in ms, by the limits that people feel. */
export function grade(ms: number): (typeof GRADES)[number] {
  return ms <= 100 ? "instant" : ms <= 1000 ? "flow" : ms <= 10_000 ? "attention" : "lost";
}
