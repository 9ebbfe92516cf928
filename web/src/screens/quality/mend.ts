/** Changing values of a row that was set aside, before it is taken again. */

import type { QuarantineRow } from "../../api/types";

export function keyOf(row: QuarantineRow): string {
  return `${row.id.source}:${row.id.position}`;
}

/** The values of a row that can be mended: those of the record, not our own columns. Null when it did not decode. */
export function fieldsOf(row: QuarantineRow): [string, unknown][] | null {
  const values = row.columns;
  if (typeof values !== "object" || values === null || Array.isArray(values)) return null;
  const found = Object.entries(values).filter(([name]) => !name.startsWith("_"));
  return found.length === 0 ? null : found;
}

/** A value as it is edited. */
export function textOf(value: unknown): string {
  if (value === null || value === undefined) return "";
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** What somebody typed, as the kind of value that was there: text stays text, numbers must be numbers, nothing is null. */
export function valueOf(text: string, before: unknown): { value: unknown } | { wrong: string } {
  if (text === "") return { value: null };
  if (typeof before === "string") return { value: text };
  if (before === null || before === undefined) {
    // Nothing says what kind it was: what reads as JSON is that, anything else is text. Long numbers stay text, exactly.
    try {
      const read: unknown = JSON.parse(text);
      return { value: typeof read === "number" && String(read) !== text ? text : read };
    } catch {
      return { value: text };
    }
  }
  try {
    const read: unknown = JSON.parse(text);
    if (typeof read === typeof before) return { value: read };
  } catch {
    // said below
  }
  return { wrong: typeof before === "number" ? "a number" : typeof before === "boolean" ? "true or false" : "JSON, as it was" };
}

export type Edits = Record<string, string>;

/** The changed values of a row, or the first one that cannot be read. */
export function changes(row: QuarantineRow, edits: Edits): { set: Record<string, unknown> } | { column: string; wrong: string } {
  const before = new Map(fieldsOf(row) ?? []);
  const set: Record<string, unknown> = {};
  for (const [column, text] of Object.entries(edits)) {
    if (text === textOf(before.get(column))) continue;
    const read = valueOf(text, before.get(column));
    if ("wrong" in read) return { column, wrong: read.wrong };
    set[column] = read.value;
  }
  return { set };
}

/** A record as it came, laid out when it is JSON that JavaScript can hold: a long number would change, and then it stays. */
export function laidOut(raw: string): string {
  try {
    const read: unknown = JSON.parse(raw);
    const digits = (text: string): string => text.replaceAll(/[^0-9]/g, "");
    return digits(JSON.stringify(read)) === digits(raw) ? JSON.stringify(read, null, 2) : raw;
  } catch {
    return raw;
  }
}
