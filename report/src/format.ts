// Numbers as text.

import type { Value } from "./data";

/** Three significant digits, without an exponent. */
export function significant(value: number): string {
  const size = Math.abs(value);
  const text = value.toFixed(size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2);
  return /^-[0.]+$/.test(text) ? text.slice(1) : text;
}

/** A quantity with its unit. */
export function amount(value: number, unit: string): string {
  if (unit === "ms") return value >= 1000 ? `${significant(value / 1000)} s` : `${significant(value)} ms`;
  if (unit === "%") return `${Math.round(value * 100)} %`;
  // A count.
  if (unit === "" && Number.isInteger(value)) return String(value);
  return `${significant(value)} ${unit}`.trim();
}

/** The number in a value, if it holds one; a bound counts for what is known. */
export function number(value: Value): number | null {
  if (typeof value === "number") return value;
  if (typeof value === "string") return null;
  return "at_least" in value ? value.at_least : value.never_up_to;
}

/** A value in words. */
export function words(value: Value, unit: string): string {
  if (typeof value === "number") return amount(value, unit);
  if (typeof value === "string") return "frozen";
  return "at_least" in value ? `>= ${amount(value.at_least, unit)}` : `never (${value.never_up_to} tried)`;
}

/** Rows as CSV. */
export function csv(rows: string[][]): string {
  const field = (text: string) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  return rows.map((row) => `${row.map(field).join(",")}\n`).join("");
}
