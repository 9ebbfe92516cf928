// A server of made-up data in the shapes of the real one, for work on the pages without a lake. Not shipped.
import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { extname, join, normalize } from "node:path";

const STATIC = process.env.STATIC ?? new URL("../../src/lodestream/console/static/", import.meta.url).pathname;
const PORT = Number(process.env.PORT ?? 8470);
const POLICY =
  "default-src 'self'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; font-src 'self'; " +
  "frame-ancestors 'none'; base-uri 'none'; object-src 'none'; form-action 'self'; require-trusted-types-for 'script'";
const TYPES = { ".html": "text/html; charset=utf-8", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".json": "application/json" };

const names = ["bronze.airlines", "bronze.airports", "bronze.flights", "bronze.flights_feed", "bronze.planes", "bronze.weather",
  "silver.airlines", "silver.airports", "silver.flights", "silver.flights_feed", "silver.planes", "silver.weather",
  "gold.cancellations_by_weather", "gold.delay_by_carrier", "gold.delay_by_route", "gold.departures_per_hour", "gold.feed_per_day"];
const comments = { "gold.delay_by_carrier": "Who is late, by airline.", "silver.flights": "Flights, joined with airlines, planes and weather." };
const layerOf = (name) => name.split(".")[0];
const now = () => Date.now() * 1000;
const state = Object.fromEntries(names.map((table, i) => [table, {
  table, layer: layerOf(table), state: i % 6 === 1 ? "idle" : "running", rows: table.endsWith("flights") ? 312_004 : 1000 + i * 731, version: 40 + i,
  rate_per_s: table.endsWith("flights") ? 4200 : i * 13, freshness_s: 0.35 + (i % 5) * 0.2, age_s: 0.4, watermark_us: now() - 3e6, files: 12 + i, size_bytes: 2.4e6 * (i + 1),
  filtered: false, max_event_us: now() - 4e5, last_commit_us: now() - 3e5, backlog: 0, counts: layerOf(table) === "gold" ? {} : { input: 10_000, output: 9500, quarantine: i % 3 === 0 ? 120 : 0, late: table.includes("feed") ? 90 : 0, duplicate: table.includes("feed") ? 210 : 0, dropped: 0, late_window: 0 },
  accounted: layerOf(table) === "gold" ? null : true, quarantine_open: table === "silver.flights_feed" ? 318 : table === "silver.flights" ? 12 : 0, error: null,
}]));
const history = { t_us: [], rate: { bronze: [], silver: [], gold: [] } };
const tick = (t) => {
  const wave = 4200 + 900 * Math.sin(t / 4e7) + Math.random() * 500;
  history.t_us.push(t);
  history.rate.bronze.push(wave); history.rate.silver.push(wave * 0.96 + Math.random() * 200); history.rate.gold.push(60 + Math.random() * 30);
  for (const list of [history.t_us, ...Object.values(history.rate)]) if (list.length > 600) list.shift();
};
for (let i = 300; i > 0; i--) tick(now() - i * 1e6);

const totals = () => ({ rate_per_s: Object.fromEntries(Object.entries(history.rate).map(([k, v]) => [k, v.at(-1)])), freshness_s: { bronze: 0.21, silver: 0.48, gold: 0.93 }, quarantine_open: 330 });
const overview = () => ({ project: "flights", now_us: now(), sentence: "All 17 tables are up to date; 14 moving.", tables: Object.values(state), totals: totals(), history });
const edges = [["bronze.flights", "silver.flights", "stream"], ["bronze.flights_feed", "silver.flights_feed", "stream"], ["bronze.airlines", "silver.airlines", "stream"], ["bronze.airports", "silver.airports", "stream"], ["bronze.planes", "silver.planes", "stream"], ["bronze.weather", "silver.weather", "stream"],
  ["silver.airlines", "silver.flights", "lookup"], ["silver.planes", "silver.flights", "lookup"], ["silver.weather", "silver.flights", "lookup"], ["silver.airports", "silver.flights", "lookup"], ["silver.flights", "gold.departures_per_hour", "stream"], ["silver.flights", "gold.delay_by_carrier", "query"], ["silver.flights", "gold.delay_by_route", "query"], ["silver.flights", "gold.cancellations_by_weather", "query"], ["silver.flights_feed", "gold.feed_per_day", "stream"]];
const flow = () => ({
  nodes: [...names.filter((n) => n.startsWith("bronze")).map((n) => ({ id: `source:${n}`, kind: "source", layer: "bronze", table: n, label: "files data/" + n.slice(7), state: "running", rate_per_s: state[n].rate_per_s, freshness_s: null, quarantine_open: 0, backlog: null })),
    ...names.map((n) => ({ id: n, kind: "table", layer: layerOf(n), table: n, label: n, state: state[n].state, rate_per_s: state[n].rate_per_s, freshness_s: state[n].freshness_s, quarantine_open: state[n].quarantine_open, backlog: 0 }))],
  edges: [...names.filter((n) => n.startsWith("bronze")).map((n) => ({ from: `source:${n}`, to: n, kind: "source", rate_per_s: state[n].rate_per_s })), ...edges.map(([from, to, kind]) => ({ from, to, kind, rate_per_s: state[from].rate_per_s }))],
});
const columns = [{ name: "carrier", type: "string", comment: "IATA code", nullable: false, masked: false, tags: [] }, { name: "airline", type: "string" }, { name: "flights", type: "bigint" }, { name: "cancelled", type: "bigint" }, { name: "arr_delay_mean", type: "double" }, { name: "tailnum", type: "string", masked: true, tags: ["pii"] }, { name: "at", type: "timestamp" }];
const carriers = ["9E Endeavor Air", "AA American Airlines", "AS Alaska Airlines", "B6 JetBlue Airways", "DL Delta Air Lines", "EV ExpressJet", "F9 Frontier", "FL AirTran", "HA Hawaiian", "MQ Envoy Air", "OO SkyWest", "UA United Air Lines", "US US Airways", "VX Virgin America", "WN Southwest", "YV Mesa"];
const rows = (n) => Array.from({ length: n }, (_, i) => { const [c, ...a] = carriers[i % 16].split(" "); return [c, a.join(" "), 1000 + ((i * 7919) % 50_000), (i * 31) % 900, Math.sin(i) * 20, i % 7 === 0 ? null : "***", new Date(1372636800000 + i * 36e5).toISOString()]; });
const typed = columns.map(({ name, type }) => ({ name, type }));
let set_aside = Array.from({ length: 40 }, (_, i) => ({ id: { source: "feed/2013-07-0" + (1 + (i % 9)) + ".jsonl", position: 1000 + i * 97 }, kind: i % 3 === 2 ? "late" : "quarantine", rule: null, detail: null, raw_encoding: "text", reasons: [i % 3 === 0 ? "expect:distance_positive" : i % 3 === 1 ? "parse" : "late"], raw: i % 3 === 1 ? '{"carrier":"UA","flight":15' : JSON.stringify({ carrier: "UA", flight: 1500 + i, origin: "EWR", dest: "SFO", distance: -1, time_hour: "2013-07-01T12:00:00Z" }), columns: i % 3 === 1 ? {} : { carrier: "UA", flight: 1500 + i, origin: "EWR", dest: "SFO", distance: -1, time_hour: "2013-07-01T12:00:00Z" }, time: "2026-11-27T10:12:13.123Z", state: "open" }));
const groups = () => [...new Set(set_aside.map((r) => r.reasons[0]))].map((reason) => [reason, set_aside.filter((r) => r.reasons[0] === reason)]).map(([reason, list]) => ({ reason, kind: list[0].kind, last: list[0].time, rows: list.length, sample: list[0].raw }));
const board = { name: "flights", title: "Flights out of New York", comment: "Who is late, and why.", refresh_s: 5, panels: [
  { title: "Flights", kind: "number", sql: "select sum(flights) from gold.delay_by_carrier", width: 3, height: 2, x: null, y: [], series: null, unit: "flights", text: null },
  { title: "Cancelled", kind: "number", sql: "select 2.45", width: 3, height: 2, x: null, y: [], series: null, unit: "%", text: null },
  { title: "About", kind: "text", sql: null, text: "Every flight of 2013 out of **EWR**, **JFK** and **LGA**.\n\nFresh within a second of the feed.", width: 6, height: 2 },
  { title: "Mean delay by airline", kind: "bar", sql: "select airline, arr_delay_mean from gold.delay_by_carrier", x: "airline", y: ["arr_delay_mean"], series: null, unit: "min", width: 6, height: 5 },
  { title: "Departures", kind: "line", sql: "select at, flights from gold.departures_per_hour", x: "at", y: ["flights"], series: null, unit: null, width: 6, height: 5 },
  { title: "By airline", kind: "table", sql: "select * from gold.delay_by_carrier", x: null, y: [], series: null, unit: null, width: 12, height: 5 }] };
const data = () => [{ columns: [{ name: "n", type: "bigint" }], rows: [[336_776 + Math.floor(Date.now() / 1000) % 1000]] }, { columns: [{ name: "n", type: "double" }], rows: [[2.45]] }, { columns: [], rows: [] },
  { columns: [typed[1], typed[4]], rows: rows(16).map((r) => [r[1], r[4]]) }, { columns: [typed[6], typed[2]], rows: rows(120).map((r) => [r[6], r[2] % 400]) }, { columns: typed, rows: rows(16) }].map((one) => ({ ...one, error: null }));

const seen = new Set();
let signed = true;
const answers = {
  "GET /api/session": () => signed ? { name: "alice", kind: "user", groups: ["analysts"], expires: null, csrf: "x" } : [401, { title: "no valid key", status: 401, detail: "sign in" }],
  "POST /api/session": (_, body) => body.key === "wrong" ? [401, { title: "no valid key", status: 401, detail: "This key is not known." }] : (signed = true, { name: "alice", kind: "user", groups: [], expires: null, csrf: "x" }),
  "DELETE /api/session": () => (signed = false, {}),
  "GET /api/overview": overview, "GET /api/flow": flow,
  "GET /api/tables": () => ({ tables: names.map((name) => ({ table: name, layer: layerOf(name), name: name.split(".")[1], privileges: ["select", "quarantine", "replay"] })) }),
  "POST /api/sql": (_, body) => body.sql.includes("wrong") ? [400, { title: "bad request", status: 400, detail: "no such table. table='gold.wrong' nearest='gold.delay_by_carrier'", fix: "check the name" }] : ({ columns: typed, rows: rows(5000), versions: { "gold.delay_by_carrier": 41 }, truncated: false }),
  "GET /api/dashboards": () => ({ dashboards: [board] }), "GET /api/dashboards/flights": () => board, "GET /api/dashboards/flights/data": () => ({ panels: data() }),
  "GET /api/quality": () => ({ tables: names.filter((n) => layerOf(n) !== "gold").map((table) => ({ table, filtered: false, rules: 2, failed: { distance_positive: state[table].quarantine_open }, counts: state[table].counts, quarantine_open: state[table].quarantine_open, quarantine_visible: true })) }),
};
function answer(method, url, body) {
  const fixed = answers[`${method} ${url.pathname}`];
  if (fixed) return fixed(url, body);
  const table = /^\/api\/tables\/([^/]+)(?:\/(\w+))?$/.exec(url.pathname);
  if (table) {
    if (table[2] === "schema") return { table: table[1], version: 41, partition_by: [], columns: columns.map((c) => ({ nullable: true, masked: false, comment: null, ...c })) };
    if (table[2] === "stats") return { table: table[1], version: 41, rows: 5000, files: 3, size_bytes: 1.2e6, columns: typed.map((c, i) => ({ ...c, nulls: i * 7, distinct: 16, min: "9E", max: "YV" })) };
    if (table[2] === "history") return { versions: Array.from({ length: 40 }, (_, i) => ({ version: 40 - i, time: new Date(Date.now() - i * 60e3).toISOString(), operation: i % 9 === 4 ? "OPTIMIZE" : "WRITE", rows_added: 2500 - i, bytes_added: 181_000 + i * 31, files_added: 1, files_removed: i % 9 === 4 ? 12 : 0 })) };
    if (table[2] === "lineage") return { tables: [{ from: "silver.flights", to: table[1] }, { from: "bronze.flights", to: "silver.flights" }], columns: [{ from: "silver.flights", from_column: "carrier", to: table[1], to_column: "carrier" }] };
    if (!table[2]) return { columns: typed, rows: rows(200), version: 41, next: null };
  }
  if (/^\/api\/quality\//.test(url.pathname)) { const t = history.t_us.filter((_, i) => i % 6 === 0); return { table: "t", filtered: false, counts: {}, accounted: true, rules: [{ name: "distance_positive", that: "distance > 0", otherwise: "quarantine", failed: 14, passed: 5200 }, { name: "has_time", that: "time_hour is not null", otherwise: "quarantine", failed: 0, passed: 5214 }], series: { t_us: t, input: t.map(() => 800), rules: { distance_positive: t.map((_, i) => (i * 7) % 5), has_time: t.map(() => 0) } } }; }
  const bad = /^\/api\/quarantine\/([^/]+)(\/replay)?$/.exec(url.pathname);
  if (bad?.[2]) { const keys = new Set((body.rows ?? []).map((r) => r.source + r.position)); const before = set_aside.length; set_aside = set_aside.filter((r) => !keys.has(r.id.source + r.id.position)); return { replayed: before - set_aside.length, passed: before - set_aside.length, counts: {} }; }
  if (bad) return { groups: groups(), rows: set_aside.filter((r) => !url.searchParams.get("reason") || r.reasons.includes(url.searchParams.get("reason"))), cursor: null };
  return [404, { title: "not found", status: 404, detail: `nothing at ${url.pathname}` }];
}

createServer(async (request, response) => {
  const url = new URL(request.url, "http://mock");
  response.setHeader("Content-Security-Policy", POLICY);
  if (url.pathname === "/api/live") {
    response.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-store" });
    let id = 0;
    const say = (event, value) => response.write(`id: ${++id}\nevent: ${event}\ndata: ${JSON.stringify(value)}\n\n`);
    say("overview", overview());
    const timer = setInterval(() => {
      const t = state["gold.delay_by_carrier"];
      t.rows += 3; t.version += 1; for (const one of Object.values(state)) one.max_event_us = now() - 4e5 - Math.random() * 3e5;
      say("delta", { now_us: now(), tables: [...Object.values(state).filter((one) => one !== t), { ...t }, { ...state["silver.flights"], rows: (state["silver.flights"].rows += 2100) }], totals: totals(), history: { t_us: history.t_us.slice(-1), rate: Object.fromEntries(Object.entries(history.rate).map(([k, v]) => [k, v.slice(-1)])) } });
    }, 500);
    request.on("close", () => clearInterval(timer));
    return;
  }
  if (url.pathname.startsWith("/api/")) {
    let text = "";
    for await (const piece of request) text += piece;
    const found = answer(request.method, url, text ? JSON.parse(text) : {});
    const [status, body] = Array.isArray(found) ? found : [200, found];
    if (status === 404 && !seen.has(url.pathname)) { seen.add(url.pathname); console.log("no mock of", request.method, url.pathname); }
    response.writeHead(status, { "Content-Type": status < 400 ? "application/json" : "application/problem+json" }).end(JSON.stringify(body));
    return;
  }
  const file = url.pathname.startsWith("/assets/") ? normalize(url.pathname) : "/index.html";
  try {
    response.setHeader("Content-Type", TYPES[extname(file)] ?? "application/octet-stream");
    response.end(await readFile(join(STATIC, file)));
  } catch {
    response.writeHead(404).end();
  }
}).listen(PORT, "127.0.0.1", () => console.log(`http://127.0.0.1:${PORT}/`));
setInterval(() => tick(now()), 1000);
