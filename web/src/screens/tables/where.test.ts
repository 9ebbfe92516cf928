import { describe, expect, test } from "vitest";

import { filterOf, inWords, operatorsOf, parse, write } from "./where";

describe("filters", () => {
  test.each([
    ["eq", "UA", "eq.UA", "c = UA"],
    ["gte", "100", "gte.100", "c ≥ 100"],
    ["ilike", "jet", "ilike.*jet*", "c contains jet"],
    ["is", "", "is.null", "c is null"],
    ["not.is", "", "not.is.null", "c is not null"],
  ] as const)("%s %s", (operator, value, filter, said) => {
    expect(filterOf(operator, value)).toBe(filter);
    expect(inWords(["c", filter])).toBe(said);
  });
  test("stand in the address as they were", () => {
    const conditions = [["a b", "eq.x&y=z"], ["a b", "neq.ü"]] as const;
    expect(parse(write(conditions))).toEqual(conditions);
    expect(write([])).toBeUndefined();
    expect(parse(undefined)).toEqual([]);
  });
  test("fit the type", () => {
    expect(operatorsOf("bigint")).toContain("gte");
    expect(operatorsOf("string")).toContain("ilike");
    expect(operatorsOf("boolean")).not.toContain("gt");
    expect(operatorsOf("array<int>")).toEqual(["is", "not.is"]);
  });
});
