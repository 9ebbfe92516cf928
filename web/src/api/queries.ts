/** Every question the console asks, in one place: its path, its key, and how long its answer holds. */

import { keepPreviousData, queryOptions } from "@tanstack/react-query";

import { call, path } from "./client";
import type { Answer, Commit, Dashboard, Flow, LineageEdge, PanelData, Quality, QualityLine, Quarantine, Session, TableEntry, TableSchema } from "./types";

const t = encodeURIComponent;

export const session = queryOptions({
  queryKey: ["session"],
  queryFn: ({ signal }) => call<Session>("/api/session", { signal, mayBeSignedOut: true }),
  retry: false,
  staleTime: Infinity,
});

export const flow = queryOptions({
  queryKey: ["flow"],
  queryFn: ({ signal }) => call<Flow>("/api/flow", { signal }),
  refetchInterval: 10_000,
});

export const tables = queryOptions({
  queryKey: ["tables"],
  queryFn: async ({ signal }) => (await call<{ tables: TableEntry[] }>("/api/tables", { signal })).tables,
  staleTime: 30_000,
});

export const schema = (table: string, asOf?: string) =>
  queryOptions({
    queryKey: ["schema", table, asOf ?? null],
    queryFn: ({ signal }) => call<TableSchema>(path(`/api/tables/${t(table)}/schema`, { as_of: asOf }), { signal }),
    staleTime: 30_000,
  });

export const history = (table: string) =>
  queryOptions({
    queryKey: ["history", table],
    queryFn: async ({ signal }) => (await call<{ versions: Commit[] }>(`/api/tables/${t(table)}/history`, { signal })).versions,
    placeholderData: keepPreviousData,
  });

export const lineage = (table: string) =>
  queryOptions({
    queryKey: ["lineage", table],
    queryFn: ({ signal }) => call<{ tables: LineageEdge[]; columns: LineageEdge[] }>(`/api/tables/${t(table)}/lineage`, { signal }),
    staleTime: 60_000,
  });

export const qualities = queryOptions({
  queryKey: ["qualities"],
  queryFn: async ({ signal }) => (await call<{ tables: QualityLine[] }>("/api/quality", { signal })).tables,
  placeholderData: keepPreviousData,
});

export const quality = (table: string) =>
  queryOptions({
    queryKey: ["quality", table],
    queryFn: ({ signal }) => call<Quality>(`/api/quality/${t(table)}`, { signal }),
    placeholderData: keepPreviousData,
  });

export const quarantine = (table: string, reason: string | undefined, limit: number) =>
  queryOptions({
    queryKey: ["quarantine", table, reason ?? null, limit],
    queryFn: ({ signal }) => call<Quarantine>(path(`/api/quarantine/${t(table)}`, { reason, limit }), { signal }),
    placeholderData: keepPreviousData,
  });

export const dashboards = queryOptions({
  queryKey: ["dashboards"],
  queryFn: async ({ signal }) => (await call<{ dashboards: Pick<Dashboard, "name" | "title" | "comment">[] }>("/api/dashboards", { signal })).dashboards,
  staleTime: 30_000,
});

export const dashboard = (name: string) =>
  queryOptions({
    queryKey: ["dashboard", name],
    queryFn: ({ signal }) => call<Dashboard>(`/api/dashboards/${t(name)}`, { signal }),
    staleTime: 30_000,
  });

export const dashboardData = (name: string, asOf?: string) =>
  queryOptions({
    queryKey: ["dashboard-data", name, asOf ?? null],
    queryFn: async ({ signal }) =>
      (await call<{ panels: PanelData[] }>(path(`/api/dashboards/${t(name)}/data`, { as_of: asOf }), { signal })).panels,
    placeholderData: keepPreviousData,
  });

export interface Question {
  sql: string;
  as_of?: string;
  time_s?: number;
  rows_max?: number;
}

export function ask(question: Question, signal?: AbortSignal): Promise<Answer> {
  return call<Answer>("/api/sql", { method: "POST", body: question, signal });
}

/** `replayed` rows were taken again; `passed` of them have left the quarantine. */
export interface Replayed {
  replayed: number;
  passed: number;
  counts: Record<string, number>;
}

export interface ReplayRow {
  source: string;
  position: number | string;
  set?: Record<string, unknown>;
}

export function replay(table: string, body: { rows?: ReplayRow[]; reason?: string; accept_late?: boolean }): Promise<Replayed> {
  return call(`/api/quarantine/${t(table)}/replay`, { method: "POST", body });
}

/** Names of the columns of a table that this person sees. */
export async function columns(table: string): Promise<string[]> {
  return (await call<TableSchema>(`/api/tables/${t(table)}/schema`)).columns.map((column) => column.name);
}
