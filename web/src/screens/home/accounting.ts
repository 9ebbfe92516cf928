/** Where the rows of a table went, as parts of its input. */

import type { Counts } from "../../api/types";

export const WAYS = [
  { name: "output", label: "output", color: "--ok" },
  { name: "quarantine", label: "quarantine", color: "--bad" },
  { name: "late", label: "late", color: "--warn" },
  { name: "duplicate", label: "duplicate", color: "--series-5" },
  { name: "dropped", label: "dropped by a rule", color: "--text-3" },
] as const;

export interface Part {
  name: string;
  label: string;
  color: string;
  rows: number;
  share: number;
}

/** The ways that rows took, biggest share first in the order of WAYS; nothing for an empty table. */
export function parts(counts: Counts): Part[] {
  const all = WAYS.reduce((sum, way) => sum + (counts[way.name] ?? 0), 0);
  if (all === 0) return [];
  return WAYS.map((way) => ({ ...way, rows: counts[way.name] ?? 0, share: (counts[way.name] ?? 0) / all })).filter((part) => part.rows > 0);
}
