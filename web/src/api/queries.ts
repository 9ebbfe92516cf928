/** Every question the console asks, in one place: its path, its key, and how long its answer holds. */

import { infiniteQueryOptions, keepPreviousData, queryOptions } from "@tanstack/react-query";

import { call, path } from "./client";
import type { Answer, Commit, Dashboard, Flow, Lineage, Page, PanelData, Quality, QualityLine, Quarantine, Session, TableEntry, TableSchema, TableStats } from "./types";

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

const VERSIONS = 100;

export const history = (table: string) =>
  infiniteQueryOptions({
    queryKey: ["history", table],
    queryFn: async ({ signal, pageParam }) =>
      (await call<{ versions: Commit[] }>(path(`/api/tables/${t(table)}/history`, { limit: VERSIONS, before: pageParam }), { signal })).versions,
    initialPageParam: null as number | null,
    getNextPageParam: (last) => (last.length < VERSIONS ? undefined : last.at(-1)?.version),
  });

export const stats = (table: string, asOf?: string) =>
  queryOptions({
    queryKey: ["stats", table, asOf ?? null],
    queryFn: ({ signal }) => call<TableStats>(path(`/api/tables/${t(table)}/stats`, { as_of: asOf }), { signal }),
    staleTime: 60_000,
  });

const PAGE_ROWS = 500;

/** Rows of a table, page by page; `where` holds a filter for each column: `[["carrier", "eq.UA"]]`. */
export const rows = (table: string, where: readonly (readonly [string, string])[], order: string | undefined, asOf: string | undefined) =>
  infiniteQueryOptions({
    queryKey: ["rows", table, where, order ?? null, asOf ?? null],
    queryFn: ({ signal, pageParam }) => {
      // A column that is named as a parameter is written with a dot before it.
      const asked = new URLSearchParams(where.map(([column, text]) => [`.${column}`, text]));
      for (const [name, value] of Object.entries({ order, as_of: asOf, cursor: pageParam, limit: String(PAGE_ROWS) })) if (value) asked.set(name, value);
      return call<Page>(`/api/tables/${t(table)}?${asked.toString()}`, { signal });
    },
    initialPageParam: null as string | null,
    getNextPageParam: (last) => last.next ?? undefined,
    staleTime: 10_000,
  });

export const lineage = (table: string, column: string | undefined) =>
  queryOptions({
    queryKey: ["lineage", table, column ?? null],
    queryFn: ({ signal }) => call<Lineage>(path(`/api/tables/${t(table)}/lineage`, { column }), { signal }),
    staleTime: 60_000,
    placeholderData: keepPreviousData,
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

const ASIDE_ROWS = 50;

export const quarantine = (table: string, reason: string | undefined) =>
  infiniteQueryOptions({
    queryKey: ["quarantine", table, reason ?? null],
    queryFn: ({ signal, pageParam }) => call<Quarantine>(path(`/api/quarantine/${t(table)}`, { reason, limit: ASIDE_ROWS, cursor: pageParam }), { signal }),
    initialPageParam: null as string | null,
    getNextPageParam: (last) => last.cursor ?? undefined,
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

export const dashboardData = (name: string) =>
  queryOptions({
    queryKey: ["dashboard-data", name],
    queryFn: async ({ signal }) => (await call<{ panels: PanelData[] }>(`/api/dashboards/${t(name)}/data`, { signal })).panels,
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

/** A row to take again: as it came, or with some of its values, or the whole record, in another form. */
export interface ReplayRow {
  source: string;
  position: number | string;
  set?: Record<string, unknown>;
  raw?: string;
}

export interface ReplayAsked {
  rows?: ReplayRow[];
  reason?: string;
  accept_late?: boolean;
}

export function replay(table: string, body: ReplayAsked): Promise<Replayed> {
  return call(`/api/quarantine/${t(table)}/replay`, { method: "POST", body });
}

/** Names of the columns of a table that this person sees. */
export async function columns(table: string): Promise<string[]> {
  return (await call<TableSchema>(`/api/tables/${t(table)}/schema`)).columns.map((column) => column.name);
}
