/** How old the newest event of a table is: told by the server's clock, so that it grows while nothing comes. */

import type { Layer, Overview, TableState } from "../api/types";
import { duration, time } from "../format";

/** Beyond that the data is history played again: its newest event says more than its age. */
const HISTORY_S = 7 * 86_400;

/** Seconds since the newest event, at the moment the overview was made. */
export function freshness(table: TableState, overview: Overview): number | null {
  return table.max_event_us === null ? null : Math.max(0, (overview.now_us - table.max_event_us) / 1e6);
}

/** "0.4 s", or the newest event's day when that is long ago. */
export function said(seconds: number | null, overview: Overview): string {
  return seconds !== null && seconds > HISTORY_S ? time(overview.now_us - seconds * 1e6).slice(0, 10) : duration(seconds);
}

/** Seconds since the newest event of a layer. */
export function newest(layer: Layer, overview: Overview): number | null {
  const known = overview.tables.filter((table) => table.layer === layer).map((table) => freshness(table, overview));
  return known.reduce<number | null>((least, one) => (one === null ? least : Math.min(least ?? one, one)), null);
}
