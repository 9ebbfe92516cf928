/** Which picture fits an answer: lines over time, bars by name, or none. */

import type { Rows } from "../../api/types";
import { cell, isNumeric, isTime } from "../../format";

export interface LinePicture {
  kind: "line";
  times: number[];
  series: { name: string; values: (number | null)[] }[];
}

export interface BarPicture {
  kind: "bar";
  value: string;
  bars: { name: string; value: number }[];
  more: number;
}

export type Picture = LinePicture | BarPicture;

const BARS_MAX = 24;
const SERIES_MAX = 8;

/** Microseconds of a time as the server writes it (ISO 8601, or a date), or null. */
export function microseconds(value: unknown): number | null {
  if (typeof value !== "string") return null;
  const zoned = /Z$|[+-]\d\d:?\d\d$/.test(value) || !value.includes("T") ? value : `${value}Z`;
  const found = Date.parse(zoned);
  return Number.isNaN(found) ? null : found * 1000;
}

/** Names of columns to draw, or what fits best when they are not given. */
export interface Wanted {
  x?: string | null;
  y?: readonly string[] | null;
  series?: string | null;
  kind?: "line" | "bar" | null;
}

export function picture({ columns, rows }: Rows, wanted: Wanted = {}): Picture | null {
  if (rows.length === 0) return null;
  const at = (name: string | null | undefined): number => columns.findIndex((column) => column.name === name);
  const first = (test: (type: string) => boolean, not: readonly number[] = []): number => columns.findIndex((column, index) => test(column.type) && !not.includes(index));
  const time = wanted.kind === "bar" ? -1 : wanted.x ? at(wanted.x) : first(isTime);
  const label = wanted.kind === "bar" && wanted.x ? at(wanted.x) : first((type) => !isNumeric(type), [time]);
  const x = time >= 0 ? time : label;
  const given = (wanted.y ?? []).map(at).filter((index) => index >= 0);
  const numbers = given.length > 0 ? given : columns.flatMap((column, index) => (isNumeric(column.type) && index !== x && !column.name.startsWith("_") ? [index] : []));
  if (x < 0 || numbers.length === 0) return null;
  const named = (index: number): string => columns[index]?.name ?? "";
  if (time >= 0) {
    const series = wanted.series ? at(wanted.series) : wanted.y || label < 0 ? -1 : label;
    return series >= 0 ? split(rows, time, series, numbers[0] ?? -1) : together(rows, time, numbers.slice(0, SERIES_MAX), named);
  }
  const value = numbers[0] ?? -1;
  const bars = rows.map((row) => ({ name: cell(row[x], columns[x]?.type ?? ""), value: number(row[value]) ?? 0 }));
  return { kind: "bar", value: named(value), bars: bars.slice(0, BARS_MAX), more: Math.max(0, bars.length - BARS_MAX) };
}

function number(value: unknown): number | null {
  if (value === null || value === undefined || value === "") return null;
  const found = Number(value);
  return Number.isFinite(found) ? found : null;
}

/** Several columns, each a line. */
function together(rows: readonly unknown[][], time: number, numbers: readonly number[], named: (index: number) => string): LinePicture | null {
  const points = rows.flatMap((row) => {
    const t = microseconds(row[time]);
    return t === null ? [] : [{ t, row }];
  });
  if (points.length === 0) return null;
  points.sort((one, other) => one.t - other.t);
  return { kind: "line", times: points.map(({ t }) => t), series: numbers.map((index) => ({ name: named(index), values: points.map(({ row }) => number(row[index])) })) };
}

/** One column, a line for each value of another. */
function split(rows: readonly unknown[][], time: number, by: number, value: number): LinePicture | null {
  const lines = new Map<string, Map<number, number | null>>();
  const times = new Set<number>();
  for (const row of rows) {
    const t = microseconds(row[time]);
    if (t === null) continue;
    times.add(t);
    const name = String(row[by] ?? "null");
    const line = lines.get(name) ?? new Map<number, number | null>();
    lines.set(name, line.set(t, number(row[value])));
  }
  if (times.size === 0) return null;
  const ordered = [...times].sort((one, other) => one - other);
  const series = [...lines].slice(0, SERIES_MAX).map(([name, line]) => ({ name, values: ordered.map((t) => line.get(t) ?? null) }));
  return { kind: "line", times: ordered, series };
}
