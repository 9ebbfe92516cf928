/** What the server's JSON holds: from its OpenAPI document where that says it, else as the console reads it. */

import type { components, paths } from "./schema";

type Told<P extends keyof paths> = paths[P] extends { get: { responses: { 200: { content: { "application/json": infer T } } } } } ? T : never;

export type Layer = "bronze" | "silver" | "gold";
export const LAYERS: readonly Layer[] = ["bronze", "silver", "gold"];

/** Bronze before silver before gold, then by name. */
export function byLayer(one: { layer: Layer; table: string }, other: { layer: Layer; table: string }): number {
  return LAYERS.indexOf(one.layer) - LAYERS.indexOf(other.layer) || (one.table < other.table ? -1 : 1);
}

export function layerOf(table: string): Layer {
  return LAYERS.find((layer) => table.startsWith(`${layer}.`)) ?? "gold";
}

/** Who is signed in. */
export type Session = components["schemas"]["Session"];

/** Where the rows of a table went: input = output ⊎ quarantine ⊎ late ⊎ duplicate ⊎ dropped. Empty when withheld. */
export type Counts = Partial<Record<"input" | "output" | "quarantine" | "late" | "duplicate" | "dropped" | "late_window", number>>;

/** One table as the overview shows it. Figures are null where a policy withholds them (`filtered`) or nothing is known. */
export interface TableState {
  table: string;
  layer: Layer;
  state: string;
  filtered: boolean;
  rows: number | null;
  version: number | null;
  rate_per_s: number | null;
  freshness_s: number | null;
  max_event_us: number | null;
  age_s: number | null;
  last_commit_us: number | null;
  watermark_us: number | null;
  files: number | null;
  size_bytes: number | null;
  backlog: number | null;
  counts: Counts;
  accounted: boolean | null;
  quarantine_open: number | null;
  error: string | null;
}

/** Rates of the last minutes, a point per tick. */
export interface History {
  t_us: number[];
  rate: Record<string, (number | null)[]>;
}

/** All that Home shows, and what the live stream carries. */
export interface Overview {
  project: string;
  now_us: number;
  sentence: string;
  tables: TableState[];
  totals: {
    rate_per_s: Partial<Record<string, number>>;
    freshness_s: Partial<Record<string, number | null>>;
    quarantine_open: number;
  };
  history: History;
}

export interface FlowNode {
  id: string;
  kind: "source" | "table" | "sink";
  layer: Layer | null;
  table: string;
  label: string;
  state: string;
  rate_per_s: number | null;
  freshness_s: number | null;
  quarantine_open: number | null;
  backlog: number | null;
}

export interface FlowEdge {
  from: string;
  to: string;
  kind: "stream" | "lookup" | "query" | "source" | "sink";
  rate_per_s: number | null;
}

export interface Flow {
  nodes: FlowNode[];
  edges: FlowEdge[];
}

/** The columns of a table as a person sees them. */
export type TableSchema = Told<"/api/tables/{table}/schema">;
export type Column = TableSchema["columns"][number];

/** One entry of the list of tables. */
export interface TableEntry {
  table: string;
  layer: Layer;
  name: string;
  privileges: string[];
}

/** Versions, newest first; figures are left out where a policy hides rows. */
export type Commit = Told<"/api/tables/{table}/history">["versions"][number];

export type TableStats = Told<"/api/tables/{table}/stats">;

export type Page = components["schemas"]["Page"];

/** Rows and columns of an answer. */
export interface Rows {
  columns: { name: string; type: string }[];
  rows: unknown[][];
}

export type Answer = components["schemas"]["Rows"];

export interface Rule {
  name: string;
  that: string | null;
  otherwise: string | null;
  failed: number | null;
  passed: number | null;
}

export interface Quality {
  table: string;
  filtered: boolean;
  rules: Rule[];
  counts: Counts;
  accounted: boolean | null;
  series: { t_us: number[]; input: number[]; rules: Record<string, number[]> };
}

/** One line of the list of tables that take rows in. */
export interface QualityLine {
  table: string;
  filtered: boolean;
  rules: number;
  failed: Record<string, number> | null;
  counts: Counts;
  quarantine_open: number | null;
  quarantine_visible: boolean;
}

export interface QuarantineRow {
  id: { source: string; position: number | string };
  kind: string;
  reasons: string[];
  rule: string | null;
  detail: unknown;
  raw: string | null;
  raw_encoding: "text" | "base64" | null;
  columns: unknown;
  time: string | null;
  state: string;
}

export interface QuarantineGroup {
  reason: string;
  kind: string;
  rows: number;
  last: string | null;
  sample: unknown;
}

export interface Quarantine {
  table: string;
  groups: QuarantineGroup[];
  rows: QuarantineRow[];
  cursor: string | null;
}

export interface LineageEdge {
  from: string;
  to: string;
  from_column: string | null;
  to_column: string | null;
  /** `value` when values come from it; else by which step it decides the rows. */
  how: string;
}

/** Who reads a table: a saved query, a dashboard, a sink, or somebody whose queries are on record. */
export interface Reader {
  kind: string;
  name: string;
  last_us: number | null;
}

export interface Lineage {
  table: string;
  tables: LineageEdge[];
  columns: LineageEdge[];
  readers: Reader[];
}

export interface PanelSpec {
  title: string;
  kind: "number" | "line" | "bar" | "table" | "text";
  sql: string | null;
  text: string | null;
  x: string | null;
  y: string[];
  series: string | null;
  unit: string | null;
  width: number;
  height: number;
}

export interface Dashboard {
  name: string;
  title: string;
  comment: string | null;
  refresh_s: number;
  panels: PanelSpec[];
}

export interface PanelData extends Rows {
  versions: Record<string, number>;
  truncated: boolean;
  error: string | null;
}
