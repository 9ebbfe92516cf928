import { describe, expect, test } from "vitest";

import { best } from "./find";

const tables = ["bronze.flights", "silver.flights", "silver.flights_feed", "gold.delay_by_carrier", "gold.delay_by_route"];
const find = (letters: string): string[] => best(letters, tables, (table) => table, 10);

describe("finding", () => {
  test("the beginning of a word before its middle", () => expect(best("fli", ["conflict", "silver.flights"], (one) => one, 10)).toEqual(["silver.flights", "conflict"]));
  test("letters of several words", () => expect(find("gdbc")[0]).toBe("gold.delay_by_carrier"));
  test("without regard to case", () => expect(find("ROUTE")).toEqual(["gold.delay_by_route"]));
  test("all when nothing is asked", () => expect(find("")).toEqual(tables));
  test("nothing that does not fit", () => expect(find("zzz")).toEqual([]));
});
