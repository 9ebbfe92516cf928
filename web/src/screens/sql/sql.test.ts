import { describe, expect, test } from "vitest";

import { microseconds, picture } from "./chart";
import { statementAt, statements } from "./statements";
import { opened, titleOf } from "./tabs";

describe("statements", () => {
  test.each([
    ["select 1", ["select 1"]],
    [" select 1 ;\n\n select 2; ", ["select 1", "select 2"]],
    ["select ';' as a; select \"x;y\"", ["select ';' as a", 'select "x;y"']],
    ["select 'it''s; so'; -- a; b\nselect 2", ["select 'it''s; so'", "-- a; b\nselect 2"]],
    ["select /* ; */ 1; select $$ ; $$; select $a$ ; $$ ; $a$", ["select /* ; */ 1", "select $$ ; $$", "select $a$ ; $$ ; $a$"]],
    ["select 'open ; end", ["select 'open ; end"]],
    [";;", []],
  ])("of %s", (text, wanted) => expect(statements(text).map((one) => one.text)).toEqual(wanted));

  test.each([[0, "select 1"], [8, "select 1"], [9, "select 1"], [11, "select 2"], [19, "select 2"], [40, "select 2"]])("the one at %s", (place, wanted) =>
    expect(statementAt("select 1;\n\nselect 2;  ", place)?.text).toBe(wanted));
  test("none in nothing", () => expect(statementAt("  ", 1)).toBeNull());
});

describe("tabs", () => {
  let next = 0;
  const id = (): string => `n${(next += 1)}`;
  const kept = JSON.stringify({ tabs: [{ id: "a", text: "select 1" }, { id: "b", text: "" }], current: "a" });

  test("begin with an empty one", () => expect(opened(null, undefined, id).tabs.map((tab) => tab.text)).toEqual([""]));
  test("are as they were left", () => expect(opened(kept, undefined, id).current).toBe("a"));
  test("a link to what is open opens it", () => expect(opened(kept, "select 1 ", id)).toMatchObject({ current: "a", tabs: [{ id: "a" }, { id: "b" }] }));
  test("a link takes an empty one", () => expect(opened(kept, "select 2", id)).toMatchObject({ current: "b", tabs: [{}, { id: "b", text: "select 2" }] }));
  test.each(["{", "[]", '{"tabs":[{"id":1}]}', '"x"'])("survive what is kept: %s", (text) => expect(opened(text, undefined, id).tabs).toHaveLength(1));
  test.each([["select * from gold.a join b", "gold.a"], ["", "New query"], ["values (1), (2)", "values (1), (2)"]])("are named after what they read: %s", (text, title) => expect(titleOf(text)).toBe(title));
});

describe("pictures", () => {
  const name = { name: "carrier", type: "string" };
  const flights = { name: "flights", type: "bigint" };
  const at = { name: "at", type: "timestamp[us, tz=UTC]" };

  test("bars by name", () =>
    expect(picture({ columns: [name, flights], rows: [["UA", 3], ["B6", "9007199254740993"]] })).toEqual({
      kind: "bar", value: "flights", bars: [{ name: "UA", value: 3 }, { name: "B6", value: 9007199254740993 }], more: 0,
    }));
  test("lines over time, in order", () =>
    expect(picture({ columns: [at, flights], rows: [["2013-07-01T01:00:00Z", 2], ["2013-07-01T00:00:00Z", null]] })).toEqual({
      kind: "line", times: [1372636800e6, 1372640400e6], series: [{ name: "flights", values: [null, 2] }],
    }));
  test("a line for each name", () =>
    expect(picture({ columns: [at, name, flights], rows: [["2013-07-01", "UA", 1], ["2013-07-02", "B6", 2]] })).toEqual({
      kind: "line", times: [1372636800e6, 1372723200e6], series: [{ name: "UA", values: [1, null] }, { name: "B6", values: [null, 2] }],
    }));
  test("what is asked for", () =>
    expect(picture({ columns: [at, name, flights, { name: "late", type: "double" }], rows: [["2013-07-01", "UA", 1, 5]] }, { x: "carrier", y: ["late"], kind: "bar" })).toMatchObject({
      kind: "bar", value: "late", bars: [{ name: "UA", value: 5 }],
    }));
  test("none without numbers or rows", () => {
    expect(picture({ columns: [name], rows: [["UA"]] })).toBeNull();
    expect(picture({ columns: [name, flights], rows: [] })).toBeNull();
  });
  test("times without a zone are UTC", () => expect(microseconds("2013-07-01T00:00:00")).toBe(1372636800e6));
});
