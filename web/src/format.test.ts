import { describe, expect, test } from "vitest";

import { ago, bytes, cell, count, duration, isNumeric, plural, rate, short, tick, time, timeOf } from "./format";

describe("numbers", () => {
  test.each([
    [null, "–"], [0, "0"], [7, "7"], [999, "999"], [336_776, "336,776"],
  ])("count of %s", (value, said) => expect(count(value)).toBe(said));

  test.each([
    [0, "0"], [0.5, "0.5"], [7, "7"], [12.34, "12.3"], [999, "999"], [999.9, "1k"], [1000, "1k"], [1234, "1.23k"], [336_776, "337k"],
    [1_000_000, "1M"], [-1234, "-1.23k"], [Number.NaN, "–"],
  ])("short form of %s", (value, said) => expect(short(value)).toBe(said));

  test.each([
    [0, "0"], [0.001, "<0.01"], [4000, "4.00k"], [4010, "4.01k"], [41_234, "41.2k"], [89.3, "89.3"], [7, "7"],
  ])("rate of %s", (value, said) => expect(rate(value)).toBe(said));

  test.each([[0, "0 B"], [999, "999 B"], [1536, "1.5 kB"], [2_400_000, "2.4 MB"], [999_999, "1.0 MB"]])("size of %s", (value, said) => expect(bytes(value)).toBe(said));

  test("one and many", () => expect([plural(1, "row"), plural(2, "row"), plural(0, "entry", "entries")]).toEqual(["1 row", "2 rows", "0 entries"]));
});

describe("times", () => {
  test.each([
    [0, "0 ms"], [0.42, "420 ms"], [0.9999, "1.0 s"], [1, "1.0 s"], [9.94, "9.9 s"], [12.4, "12 s"], [59.6, "1 min"], [75, "1 min 15 s"], [3599.9, "1 h"],
    [3600, "1 h"], [5400, "1 h 30 min"], [86_399, "1 d"], [200_000, "2 d 8 h"], [-3, "−3.0 s"], [Infinity, "–"],
  ])("%s seconds", (value, said) => expect(duration(value)).toBe(said));

  test("moments", () => {
    expect(time(1_372_680_003_123_456)).toBe("2013-07-01 12:00:03");
    expect(timeOf("2013-07-01T12:00:03.5Z")).toBe("2013-07-01 12:00:03");
    expect(timeOf("soon")).toBe("soon");
    expect(ago(4.7)).toBe("4 s ago");
    expect(ago(7300)).toBe("2 h ago");
  });

  test.each([[1, "12:00:03"], [60, "12:00"], [3600, "12:00"], [86_400, "07-01"], [86_400 * 31, "2013-07"]])("marks %s s apart", (step, said) => expect(tick(1_372_680_003, step)).toBe(said));
  test("a day begins with its date", () => expect(tick(1_372_636_800, 3600)).toBe("07-01"));
});

describe("cells", () => {
  test.each([
    [null, "int", "null"], [1, "bigint", "1"], ["9007199254740993", "bigint", "9007199254740993"], [0.1 + 0.2, "double", "0.3"], ["5000.00", "decimal(12,2)", "5000.00"],
    ["2013-07-01T12:00:00Z", "timestamp", "2013-07-01 12:00:00"], [true, "boolean", "true"], [{ a: [1] }, "struct", '{"a":[1]}'], ["<b>x</b>", "string", "<b>x</b>"],
  ])("%s of %s", (value, type, said) => expect(cell(value, type)).toBe(said));

  test("which types are numbers", () => {
    expect(["int", "bigint", "int64", "uint8", "double", "float", "decimal(12,2)", "DECIMAL128(3, 1)", "HUGEINT"].filter((type) => !isNumeric(type))).toEqual([]);
    expect(["string", "interval", "date", "timestamp[us, tz=UTC]", "struct<a: int64>", "list<item: int64>"].filter(isNumeric)).toEqual([]);
  });
});
