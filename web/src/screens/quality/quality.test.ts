import { describe, expect, test } from "vitest";

import type { QuarantineRow } from "../../api/types";
import { changes, fieldsOf, laidOut, textOf, valueOf } from "./mend";

const row: QuarantineRow = {
  id: { source: "a.jsonl", position: 7 }, kind: "quarantine", reasons: ["expect:positive"], rule: "positive", detail: null, raw: null, raw_encoding: null,
  columns: { id: "x", amount: "-5.00", flights: 3, ok: true, tags: ["a"], gone: null, _ingest_time: "2026-01-01T00:00:00Z" }, time: null, state: "open",
};

describe("mending", () => {
  test("our own columns are not offered", () => expect(fieldsOf(row)?.map(([name]) => name)).toEqual(["id", "amount", "flights", "ok", "tags", "gone"]));
  test("a record that did not decode has no values", () => expect(fieldsOf({ ...row, columns: null })).toBeNull());
  test("only what was changed is sent, in its kind", () =>
    expect(changes(row, { id: "x", amount: "5.00", flights: "4", ok: "false", tags: '["a","b"]' })).toEqual({ set: { amount: "5.00", flights: 4, ok: false, tags: ["a", "b"] } }));
  test("nothing typed is null", () => expect(changes(row, { id: "" })).toEqual({ set: { id: null } }));
  test("what is no number is told", () => expect(changes(row, { flights: "many" })).toEqual({ column: "flights", wrong: "a number" }));
  test.each([["12", 12], ["9007199254740993", "9007199254740993"], ["true", true], ["UA", "UA"], ['"12"', "12"]])("where null was, %s is %s", (text, value) => expect(valueOf(text, null)).toEqual({ value }));
  test("values are shown as they are", () => expect([null, "a", 1.5, { a: 1 }].map(textOf)).toEqual(["", "a", "1.5", '{"a":1}']));
});

describe("a record as it came", () => {
  test("is laid out", () => expect(laidOut('{"a":1,"b":[2]}')).toBe('{\n  "a": 1,\n  "b": [\n    2\n  ]\n}'));
  test.each(['{"a":1', "plain", '{"a":9007199254740993}', '{"a":1,"a":2}'])("stays when that would change it: %s", (raw) => expect(laidOut(raw)).toBe(raw));
});
