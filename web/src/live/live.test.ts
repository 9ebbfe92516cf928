import { describe, expect, test } from "vitest";

import type { Overview, TableState } from "../api/types";
import { EventReader } from "./events";
import { freshness, newest, said } from "./freshness";
import { longer, merged } from "./merge";

const TEXT = ': hello\nretry: 1000\n\nid: a-1\nevent: overview\ndata: {"x":\ndata: 1}\n\nevent: delta\r\ndata: two\r\n\r\ndata\n\nid: a-3\ndata: three\n\nevent: lost';
const EVENTS = [
  { event: "overview", data: '{"x":\n1}', id: "a-1" },
  { event: "delta", data: "two", id: "a-1" },
  { event: "message", data: "", id: "a-1" },
  { event: "message", data: "three", id: "a-3" },
];

describe("server-sent events", () => {
  test("at once", () => expect(new EventReader().read(TEXT)).toEqual(EVENTS));
  test.each([1, 2, 3, 7])("in pieces of %s", (size) => {
    const reader = new EventReader();
    const found = [];
    for (let at = 0; at < TEXT.length; at += size) found.push(...reader.read(TEXT.slice(at, at + size)));
    expect(found).toEqual(EVENTS);
  });
});

const table = (name: string, more: Partial<TableState> = {}): TableState => ({
  table: name, layer: "gold", state: "idle", filtered: false, rows: 1, version: 1, rate_per_s: 0, freshness_s: null, max_event_us: null, age_s: null, last_commit_us: null,
  watermark_us: null, files: 1, size_bytes: 1, backlog: null, counts: {}, accounted: null, quarantine_open: 0, error: null, ...more,
});
const overview: Overview = {
  project: "p", now_us: 10e6, sentence: "ok", tables: [table("gold.a"), table("gold.b")], totals: { rate_per_s: { gold: 1 }, freshness_s: {}, quarantine_open: 0 },
  history: { t_us: [1, 2], rate: { gold: [5, 6] } },
};

describe("the overview and what changes", () => {
  test("a change of one table leaves the others as they are", () => {
    const after = merged(overview, { now_us: 11e6, tables: [{ table: "gold.b", rows: 2 }] }, false);
    expect(after?.tables[0]).toBe(overview.tables[0]);
    expect(after?.tables[1]).toEqual(table("gold.b", { rows: 2 }));
    expect(after?.history).toBe(overview.history);
    expect(after?.now_us).toBe(11e6);
  });
  test("tables come and go", () => {
    expect(merged(overview, { tables: [table("gold.c")], removed: ["gold.a"] }, false)?.tables.map((one) => one.table)).toEqual(["gold.b", "gold.c"]);
  });
  test("a change before the first overview says nothing", () => expect(merged(null, { sentence: "x" }, false)).toBeNull());
  test("a whole overview replaces", () => expect(merged(overview, { ...overview, tables: [] }, true)?.tables).toEqual([]));
  test("points that were seen are not put in twice", () => {
    expect(longer(overview.history, { t_us: [2, 3], rate: { gold: [6, 7], silver: [0, 1] } })).toEqual({ t_us: [1, 2, 3], rate: { gold: [5, 6, 7], silver: [null, null, 1] } });
    expect(longer(overview.history, { t_us: [1, 2], rate: { gold: [5, 6] } })).toBe(overview.history);
  });
  test("history does not grow without end", () => {
    let known = overview.history;
    for (let t = 3; t < 2000; t += 1) known = longer(known, { t_us: [t], rate: { gold: [t] } });
    expect(known.t_us.length).toBe(600);
    expect(known.rate["gold"]?.at(-1)).toBe(1999);
  });
});

describe("freshness", () => {
  test("is as old as the newest event by the server's clock", () => {
    expect(freshness(table("gold.a", { max_event_us: 9.5e6 }), overview)).toBe(0.5);
    expect(freshness(table("gold.a"), overview)).toBeNull();
    expect(said(0.5, overview)).toBe("500 ms");
  });
  test("of history is its day", () => expect(said(400 * 86_400, { ...overview, now_us: Date.UTC(2014, 5, 1) * 1000 })).toBe("2013-04-27"));
  test("of a layer is that of its newest event", () => {
    const tables = [table("gold.a", { max_event_us: 9e6 }), table("gold.b", { max_event_us: 4e6 }), table("gold.c")];
    expect(newest("gold", { ...overview, tables })).toBe(1);
    expect(newest("bronze", overview)).toBeNull();
  });
});
