import { describe, expect, test } from "vitest";

import type { Flow, FlowEdge, FlowNode } from "../../api/types";
import { connected, layout, NODE, path, shapeOf, thickness } from "./layout";

const node = (id: string, rate = 0): FlowNode => ({ id, kind: "table", layer: "gold", table: id, label: id, state: "idle", rate_per_s: rate, freshness_s: null, quarantine_open: null, backlog: null });
const edge = (from: string, to: string): FlowEdge => ({ from, to, kind: "stream", rate_per_s: 1 });
const flow: Flow = { nodes: ["s", "b", "c", "g", "h"].map((id) => node(id)), edges: [edge("s", "b"), edge("b", "c"), edge("c", "g"), edge("c", "h")] };

describe("the layout", () => {
  test("goes from left to right and covers nothing", () => {
    const { places } = layout(shapeOf(flow));
    const x = (id: string): number => places.get(id)?.x ?? Number.NaN;
    expect(x("s") < x("b") && x("b") < x("c") && x("c") < x("g")).toBe(true);
    expect(x("g")).toBe(x("h"));
    expect(Math.abs((places.get("g")?.y ?? 0) - (places.get("h")?.y ?? 0))).toBeGreaterThanOrEqual(NODE.height);
  });
  test("does not move when rates do, nor when the server's order does", () => {
    const other: Flow = { nodes: flow.nodes.map((one) => node(one.id, 9)).reverse(), edges: [...flow.edges].reverse() };
    expect(shapeOf(other)).toBe(shapeOf(flow));
  });
  test("leads an edge past the nodes of a column between", () => {
    const long: Flow = { nodes: ["a", "b", "c", "d"].map((id) => node(id)), edges: [edge("a", "b"), edge("b", "c"), edge("a", "c"), edge("d", "b")] };
    const { places, bends } = layout(shapeOf(long));
    const [bend] = bends.get("a→c") ?? [];
    const top = places.get("b")?.y ?? 0;
    expect(bend !== undefined && (bend.y < top || bend.y > top + NODE.height)).toBe(true);
    expect(bends.has("a→b")).toBe(false);
    expect(path([{ x: 0, y: 0 }, { x: 10, y: 5 }])).toBe("M0 0C5 0 5 5 10 5");
  });
  test("leaves out edges to what is not seen", () => expect(layout(shapeOf({ ...flow, edges: [edge("hidden", "b")] })).places.size).toBe(5));
  test("takes 300 nodes in a moment", () => {
    const many: Flow = { nodes: Array.from({ length: 300 }, (_, i) => node(`n${i}`)), edges: Array.from({ length: 299 }, (_, i) => edge(`n${Math.floor(i / 3)}`, `n${i + 1}`)) };
    expect(layout(shapeOf(many)).places.size).toBe(300);
  });
});

test("what a node is connected to lies before and after it, not beside it", () => {
  expect([...connected("g", flow)].sort()).toEqual(["b", "c", "g", "s"]);
  expect([...connected("c", flow)].sort()).toEqual(["b", "c", "g", "h", "s"]);
  expect([...connected("a", { nodes: [], edges: [edge("a", "b"), edge("b", "a")] })].sort()).toEqual(["a", "b"]);
});

test("an edge is wider the more flows, within bounds", () => {
  expect([null, 0].map(thickness)).toEqual([1, 1]);
  expect(thickness(10)).toBeLessThan(thickness(1000));
  expect(thickness(1e12)).toBe(7);
});
