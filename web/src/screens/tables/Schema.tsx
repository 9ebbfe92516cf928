/** The columns of a table, with figures of what is in them. */

import { useQuery } from "@tanstack/react-query";

import * as queries from "../../api/queries";
import type { TableSchema } from "../../api/types";
import { cell, count } from "../../format";
import { Badge, Problem, Waiting } from "../../parts/parts";

export function Schema({ table, asOf, schema }: { table: string; asOf: string | undefined; schema: TableSchema | null }) {
  const stats = useQuery(queries.stats(table, asOf));
  if (schema === null) return <Waiting lines={6} />;
  const figures = new Map(stats.data?.columns.map((column) => [column.name, column]));
  const rows = stats.data?.rows ?? null;
  return (
    <div className="scroll-x">
      <table className="list">
        <thead>
          <tr>
            <th>column</th>
            <th>type</th>
            <th className="right">null</th>
            <th className="right">distinct</th>
            <th>least</th>
            <th>greatest</th>
            <th className="wide">about</th>
          </tr>
        </thead>
        <tbody>
          {schema.columns.map((column) => {
            const known = figures.get(column.name);
            return (
              <tr key={column.name}>
                <td>
                  <b className="column-name">{column.name}</b>
                </td>
                <td className="mono quiet">{column.type}</td>
                <td className="right">{known === undefined ? "–" : rows ? share(known.nulls / rows) : count(known.nulls)}</td>
                <td className="right">{count(known?.distinct)}</td>
                <td className="edge-value">{known?.min === undefined ? "–" : cell(known.min, column.type)}</td>
                <td className="edge-value">{known?.max === undefined ? "–" : cell(known.max, column.type)}</td>
                <td className="wide">
                  <span className="column-about">
                    {column.masked && (
                      <Badge tone="gold" title="A policy replaces its values for you">
                        masked for you
                      </Badge>
                    )}
                    {schema.partition_by.includes(column.name) && <Badge>partition</Badge>}
                    {!column.nullable && <Badge>not null</Badge>}
                    {column.comment && <span className="quiet">{column.comment}</span>}
                  </span>
                </td>
              </tr>
            );
          })}
        </tbody>
      </table>
      {stats.error && <Problem error={stats.error} retry={() => void stats.refetch()} />}
    </div>
  );
}

function share(part: number): string {
  if (part === 0) return "0";
  return part < 0.001 ? "<0.1 %" : `${(part * 100).toFixed(1)} %`;
}
