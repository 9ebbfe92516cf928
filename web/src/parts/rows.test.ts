import { describe, expect, test } from "vitest";

import { inSight, offsets, sorted, widths } from "./rows";

const columns = [{ name: "n", type: "bigint" }, { name: "s", type: "string" }];

describe("sorting", () => {
  const rows = [[10, "b"], [null, "a"], ["9007199254740993", null], [9, "B"]];
  test("numbers by size, nulls last either way", () => {
    expect(sorted(rows, { column: "n", down: false }, columns).map((row) => row[0])).toEqual([9, 10, "9007199254740993", null]);
    expect(sorted(rows, { column: "n", down: true }, columns).map((row) => row[0])).toEqual(["9007199254740993", 10, 9, null]);
  });
  test("texts by letter", () => expect(sorted(rows, { column: "s", down: false }, columns).map((row) => row[1])).toEqual(["B", "a", "b", null]));
  test("as they came", () => {
    expect(sorted(rows, null, columns)).toBe(rows);
    expect(sorted(rows, { column: "gone", down: false }, columns)).toBe(rows);
  });
});

describe("what is in sight", () => {
  const start = (index: number): number => 34 + index * 28;
  test("of a million rows is a few", () => {
    const seen = inSight(1_000_000, start, 28_034, 28_034 + 280, 10);
    expect([seen[0], seen.length <= 35, seen.includes(1010)]).toEqual([990, true, true]);
  });
  test("begins and ends with what there is", () => {
    expect(inSight(3, start, 0, 500, 10)).toEqual([0, 1, 2]);
    expect(inSight(0, start, 0, 500, 10)).toEqual([]);
  });
  test("of columns of any width", () => {
    const starts = offsets([100, 50, 300, 80], 40);
    expect(starts).toEqual([40, 140, 190, 490, 570]);
    expect(inSight(4, (index) => starts[index] ?? 0, 200, 300, 1)).toEqual([1, 2, 3]);
  });
  test("widths stay within bounds", () => expect(widths(columns, [[1, "x".repeat(500)]])[1]).toBe(360));
});
