/** Where a table, or one of its columns, comes from, what comes from it, and who reads it. */

import { useQuery } from "@tanstack/react-query";
import { Link, useNavigate } from "@tanstack/react-router";
import { useMemo } from "react";

import * as queries from "../../api/queries";
import { type Column, layerOf, type LineageEdge, type Reader } from "../../api/types";
import { timeOf } from "../../format";
import { Badge, Empty, LayerMark, Problem, Waiting } from "../../parts/parts";
import { Graph } from "../flow/Graph";
import { connected } from "../flow/layout";
import "../flow/flow.css";

interface Props {
  table: string;
  columns: Column[];
  column: string | undefined;
  choose: (column: string | undefined) => void;
}

export function Lineage({ table, columns, column, choose }: Props) {
  const flow = useQuery(queries.flow);
  const lineage = useQuery(queries.lineage(table, column));
  const navigate = useNavigate();
  const part = useMemo(() => {
    if (flow.data === undefined) return null;
    const near = connected(table, flow.data);
    return { nodes: flow.data.nodes.filter((node) => near.has(node.id)), edges: flow.data.edges.filter((edge) => near.has(edge.from) && near.has(edge.to)) };
  }, [flow.data, table]);
  const edges = useMemo(() => lineage.data?.columns ?? [], [lineage.data]);
  const lit = useMemo(() => {
    if (column === undefined || lineage.data === undefined) return null;
    const names = new Set([table, ...edges.flatMap((edge) => [edge.from, edge.to])]);
    return new Set([...names, ...[...names].map((name) => `source:${name}`)]);
  }, [column, edges, lineage.data, table]);
  if (flow.error) return <Problem error={flow.error} retry={() => void flow.refetch()} />;
  if (part === null) return <Waiting />;
  if (part.nodes.length === 0) return <Empty title="Nothing is known of where it comes from" />;
  return (
    <div className="lineage">
      <div className="flow-canvas">
        <Graph
          flow={part}
          selected={undefined}
          lit={lit}
          select={(id) => {
            const node = part.nodes.find((one) => one.id === id);
            if (node?.kind === "table") void navigate({ to: "/tables/$table", params: { table: node.table }, search: { tab: "lineage" } });
          }}
        />
      </div>
      <div className="lineage-below">
        <div className="groups" role="group" aria-label="Columns">
          {columns.map((one) => (
            <button key={one.name} type="button" aria-pressed={one.name === column} onClick={() => choose(one.name === column ? undefined : one.name)}>
              {one.name}
            </button>
          ))}
        </div>
        {lineage.error ? (
          <Problem error={lineage.error} retry={() => void lineage.refetch()} />
        ) : lineage.data === undefined ? (
          <Waiting />
        ) : (
          <div className="lineage-lists">
            <Edges title={column === undefined ? "Its columns come from" : `${column} comes from`} edges={edges.filter((edge) => column !== undefined || edge.to === table)} table={table} />
            <Readers readers={lineage.data.readers} />
          </div>
        )}
      </div>
    </div>
  );
}

const STEPS: Record<string, string> = { value: "value", filter: "decides rows", join: "decides the match", dedup: "decides repeats", group: "groups", window: "windows", query: "in the query", rows: "rows" };

function Edges({ title, edges, table }: { title: string; edges: LineageEdge[]; table: string }) {
  if (edges.length === 0) return <p className="quiet lineage-none">Pick a column to see what it comes from and goes into.</p>;
  return (
    <section>
      <h2>{title}</h2>
      <table className="list lineage-list">
        <tbody>
          {edges.map((edge) => (
            <tr key={`${edge.from}.${edge.from_column}→${edge.to}.${edge.to_column}:${edge.how}`}>
              <td>
                <Place table={edge.from} column={edge.from_column} />
              </td>
              <td className="quiet" aria-label="goes into">
                →
              </td>
              <td>
                {edge.to === table ? <b>{edge.to_column ?? "its rows"}</b> : <Place table={edge.to} column={edge.to_column} />}
              </td>
              <td className="wide">
                <Badge tone={edge.how === "value" ? "good" : "none"}>{STEPS[edge.how] ?? edge.how}</Badge>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

function Place({ table, column }: { table: string; column: string | null }) {
  return (
    <Link to="/tables/$table" params={{ table }} search={{ tab: "lineage", column: column ?? undefined }} className="lineage-place">
      <LayerMark layer={layerOf(table)} /> <span className="quiet">{table}</span> {column}
    </Link>
  );
}

function Readers({ readers }: { readers: Reader[] }) {
  if (readers.length === 0) return null;
  return (
    <section>
      <h2>Who reads it</h2>
      <ul className="lineage-readers">
        {readers.map((reader) => (
          <li key={`${reader.kind} ${reader.name}`}>
            <span className="quiet">{reader.kind.replaceAll("_", " ")}</span> {reader.name}
            {reader.last_us !== null && <span className="quiet num"> {timeOf(new Date(reader.last_us / 1000).toISOString())}</span>}
          </li>
        ))}
      </ul>
    </section>
  );
}
