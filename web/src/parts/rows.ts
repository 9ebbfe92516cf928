/** Sorting and sizing of rows in a grid. */

import { cell, isNumeric } from "../format";

export interface Sort {
  column: string;
  down: boolean;
}

interface Named {
  name: string;
  type: string;
}

/** Rows by one column: numbers by size (also those that came as text because they are long), texts by letter, nulls last. */
export function sorted(rows: readonly unknown[][], sort: Sort | null, columns: readonly Named[]): readonly unknown[][] {
  const index = sort === null ? -1 : columns.findIndex((column) => column.name === sort.column);
  if (sort === null || index < 0) return rows;
  const numbers = isNumeric(columns[index]?.type ?? "");
  const sign = sort.down ? -1 : 1;
  return rows.toSorted((one, other) => {
    const [a, b] = [one[index], other[index]];
    if (a === null || a === undefined) return b === null || b === undefined ? 0 : 1;
    if (b === null || b === undefined) return -1;
    if (numbers) return sign * (Number(a) - Number(b));
    const [left, right] = [typeof a === "object" ? JSON.stringify(a) : String(a), typeof b === "object" ? JSON.stringify(b) : String(b)];
    return left === right ? 0 : sign * (left < right ? -1 : 1);
  });
}

const CHARACTER = 7.4;
const SAMPLE = 200;

/** A width for each column, in pixels: what its name and the first rows need, within bounds. */
export function widths(columns: readonly Named[], rows: readonly unknown[][], plain = false): number[] {
  return columns.map((column, index) => {
    let longest = column.name.length + (plain ? 1 : Math.min(column.type.length, 12) * 0.85 + 2);
    for (const row of rows.slice(0, SAMPLE)) longest = Math.max(longest, cell(row[index], column.type).length);
    return Math.round(Math.min(Math.max(longest * CHARACTER + 22, 64), 360));
  });
}

/** Where each column starts, and where the last one ends. */
export function offsets(sizes: readonly number[], first: number): number[] {
  const found = [first];
  for (const size of sizes) found.push((found.at(-1) ?? 0) + size);
  return found;
}

/** Indices of the items between two places, with some more on both sides; `start` grows with the index. */
export function inSight(count: number, start: (index: number) => number, from: number, to: number, more: number): number[] {
  let low = 0;
  let high = count;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (start(middle) <= from) low = middle + 1;
    else high = middle;
  }
  const found: number[] = [];
  let beyond = 0;
  for (let index = Math.max(0, low - 1 - more); index < count && beyond < more; index += 1) {
    found.push(index);
    if (start(index) >= to) beyond += 1;
  }
  return found;
}
