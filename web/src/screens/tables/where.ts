/** Filters of a preview, as they stand in the address: `carrier=eq.UA&flights=gte.100`. */

import { isNumeric, isTime } from "../../format";

export type Condition = readonly [column: string, filter: string];

export const OPERATORS = [
  { id: "eq", label: "=" },
  { id: "neq", label: "≠" },
  { id: "gt", label: ">" },
  { id: "gte", label: "≥" },
  { id: "lt", label: "<" },
  { id: "lte", label: "≤" },
  { id: "ilike", label: "contains" },
  { id: "is", label: "is null" },
  { id: "not.is", label: "is not null" },
] as const;

export type Operator = (typeof OPERATORS)[number]["id"];

/** What makes sense for a type. */
export function operatorsOf(type: string): Operator[] {
  const always: Operator[] = ["is", "not.is"];
  if (/^bool/i.test(type)) return ["eq", "neq", ...always];
  const ordered: Operator[] = ["eq", "neq", "gt", "gte", "lt", "lte"];
  if (isNumeric(type) || isTime(type)) return [...ordered, ...always];
  return /^(string|varchar|text)/i.test(type) ? ["eq", "neq", "ilike", "gt", "lt", ...always] : always;
}

/** The filter of an operator and a value. */
export function filterOf(operator: Operator, value: string): string {
  if (operator === "is" || operator === "not.is") return `${operator}.null`;
  return operator === "ilike" ? `ilike.*${value}*` : `${operator}.${value}`;
}

/** A filter in words. */
export function inWords([column, filter]: Condition): string {
  const operator = OPERATORS.find((one) => filter.startsWith(`${one.id}.`));
  if (operator === undefined) return `${column} ${filter}`;
  const value = filter.slice(operator.id.length + 1);
  if (operator.id === "is" || operator.id === "not.is") return `${column} ${operator.label}`;
  return `${column} ${operator.label} ${operator.id === "ilike" ? value.replace(/^\*|\*$/g, "") : value}`;
}

export function parse(text: string | undefined): Condition[] {
  return [...new URLSearchParams(text ?? "")];
}

export function write(conditions: readonly Condition[]): string | undefined {
  const text = new URLSearchParams(conditions.map(([column, filter]) => [column, filter])).toString();
  return text === "" ? undefined : text;
}
