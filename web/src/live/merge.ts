/** Folds what the live stream says into what is known. */

import type { History, Overview, TableState } from "../api/types";

/** What comes after the first, whole overview: only what changed. */
export type OverviewChange = Partial<Omit<Overview, "tables" | "history">> & {
  tables?: (Partial<TableState> & { table: string })[];
  removed?: string[];
  history?: History;
};

const POINTS_MAX = 600;

/** The overview after a change; parts that did not change stay the same objects, so that nothing else is drawn anew. */
export function merged(known: Overview | null, change: OverviewChange, whole: boolean): Overview | null {
  if (whole || known === null) return isWhole(change) ? change : known;
  const tables = mergedTables(known.tables, change.tables ?? [], change.removed ?? []);
  return {
    ...known,
    ...change,
    tables,
    totals: change.totals ?? known.totals,
    history: change.history ? longer(known.history, change.history) : known.history,
  };
}

function isWhole(change: OverviewChange): change is Overview {
  return Array.isArray(change.tables) && change.totals !== undefined && change.history !== undefined;
}

function mergedTables(known: TableState[], changes: (Partial<TableState> & { table: string })[], removed: string[]): TableState[] {
  if (changes.length === 0 && removed.length === 0) return known;
  const byName = new Map(changes.map((change) => [change.table, change]));
  const kept = known
    .filter((table) => !removed.includes(table.table))
    .map((table) => {
      const change = byName.get(table.table);
      byName.delete(table.table);
      return change ? { ...table, ...change } : table;
    });
  return [...kept, ...([...byName.values()] as TableState[])];
}

/** Points of `more` that lie after the last known one are put behind it. */
export function longer(known: History, more: History): History {
  const last = known.t_us.at(-1) ?? -Infinity;
  const fresh = more.t_us.findIndex((t) => t > last);
  if (fresh < 0) return known;
  const t_us = [...known.t_us, ...more.t_us.slice(fresh)];
  const cut = Math.max(0, t_us.length - POINTS_MAX);
  const names = new Set([...Object.keys(known.rate), ...Object.keys(more.rate)]);
  const rate: History["rate"] = {};
  for (const name of names) {
    const before = known.rate[name] ?? known.t_us.map(() => null);
    const after = more.rate[name] ?? more.t_us.map(() => null);
    rate[name] = [...before, ...after.slice(fresh)].slice(cut);
  }
  return { t_us: t_us.slice(cut), rate };
}
