/** Places the nodes of the graph, left to right; the same graph always gets the same places. */

import dagre from "@dagrejs/dagre";

import type { Flow } from "../../api/types";

export const NODE = { width: 212, height: 58 };
/** More than that are a list, not a picture. */
export const NODES_MAX = 300;

const ROOT = "\0root";

export interface Place {
  x: number;
  y: number;
}

/** What the places depend on; rates and states do not move a node. */
export function shapeOf({ nodes, edges }: Flow): string {
  const names = nodes.map((node) => node.id).sort();
  const links = edges.map((edge) => `${edge.from}→${edge.to}`).sort();
  return JSON.stringify([names, links]);
}

/** Where everything stands: top left corners of nodes, and the places between two columns that an edge goes through. */
export interface Layout {
  places: Map<string, Place>;
  bends: Map<string, Place[]>;
}

export function layout(shape: string): Layout {
  const [names, links] = JSON.parse(shape) as [string[], string[]];
  const graph = new dagre.graphlib.Graph();
  graph.setGraph({ rankdir: "LR", nodesep: 16, ranksep: 84, edgesep: 16 });
  graph.setDefaultEdgeLabel(() => ({}));
  for (const name of names) graph.setNode(name, { ...NODE });
  const inner = new Set<string>();
  for (const link of links) {
    const [from = "", to = ""] = link.split("→");
    if (!graph.hasNode(from) || !graph.hasNode(to)) continue;
    // What comes right after a source stays beside it, so that slack lies between the layers.
    graph.setEdge(from, to, { weight: inner.has(from) || !from.startsWith("source:") ? 1 : 8 });
    inner.add(to);
  }
  // One root before all that has nothing before it: sources stand in one column.
  graph.setNode(ROOT, { width: 1, height: 1 });
  for (const name of names) if (!inner.has(name)) graph.setEdge(ROOT, name, { weight: 40 });
  dagre.layout(graph);
  const rounded = ({ x, y }: Place): Place => ({ x: Math.round(x), y: Math.round(y) });
  const places = names.map((name) => {
    const { x, y } = graph.node(name) as Place;
    return [name, rounded({ x: x - NODE.width / 2, y: y - NODE.height / 2 })] as const;
  });
  const bends = graph.edges().flatMap(({ v, w }: { v: string; w: string }) => {
    const points = (graph.edge(v, w) as { points?: Place[] }).points ?? [];
    // First and last lie at the nodes, and every second one between two columns: what is left are columns passed through.
    const passed = points.slice(1, -1).filter((_, index) => index % 2 === 1);
    // Level through the whole column, so that the line meets no node of it.
    const level = passed.flatMap(({ x, y }) => [{ x: x - NODE.width / 2, y }, { x: x + NODE.width / 2, y }]);
    return level.length > 0 ? [[`${v}→${w}`, level.map(rounded)] as const] : [];
  });
  return { places: new Map(places), bends: new Map(bends) };
}

/** A line through places that leaves and reaches each of them level. */
export function path(places: readonly Place[]): string {
  return places
    .map((place, index) => {
      const before = places[index - 1];
      if (before === undefined) return `M${place.x} ${place.y}`;
      const half = (place.x - before.x) / 2;
      return `C${before.x + half} ${before.y} ${place.x - half} ${place.y} ${place.x} ${place.y}`;
    })
    .join("");
}

/** A node with all that its rows come from and go to. */
export function connected(id: string, { edges }: Flow): Set<string> {
  const found = new Set([id]);
  for (const [here, there] of [["to", "from"], ["from", "to"]] as const) {
    const waiting = [id];
    for (let at = waiting.pop(); at !== undefined; at = waiting.pop()) {
      for (const edge of edges) {
        if (edge[here] === at && !(found.has(edge[there]) && edge[there] !== id)) {
          if (!found.has(edge[there])) waiting.push(edge[there]);
          found.add(edge[there]);
        }
      }
    }
  }
  return found;
}

/** How wide an edge is drawn: each tenfold rate is as much wider again. */
export function thickness(rate: number | null): number {
  return rate === null || rate <= 0 ? 1 : Math.min(7, 1.2 + Math.log10(1 + rate) * 1.1);
}
