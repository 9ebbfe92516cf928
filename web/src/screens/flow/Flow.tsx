/** Flow: where rows come from, where they go, and where they stop. */

import { useQuery } from "@tanstack/react-query";
import { Link, useNavigate, useSearch } from "@tanstack/react-router";
import { useMemo } from "react";

import * as queries from "../../api/queries";
import { byLayer, type Flow, type FlowNode, layerOf } from "../../api/types";
import { count, rate, timeOf } from "../../format";
import { freshness, said } from "../../live/freshness";
import { useLive } from "../../live/stream";
import { Badge, Button, Choice, Empty, LayerMark, Problem, SearchBox, State, Waiting } from "../../parts/parts";
import { best } from "../../shell/find";
import { Graph } from "./Graph";
import { NODES_MAX } from "./layout";
import "./flow.css";

export function FlowScreen() {
  const search = useSearch({ from: "/flow" });
  const navigate = useNavigate({ from: "/flow" });
  const { data, error, refetch } = useQuery(queries.flow);
  const put = (change: Partial<typeof search>): void => void navigate({ search: (known) => ({ ...known, ...change }), replace: true });
  const flow = useMemo(() => (data ? filtered(data, search.find ?? "") : null), [data, search.find]);
  const large = (flow?.nodes.length ?? 0) > NODES_MAX;
  const view = large || search.view === "list" ? "list" : "graph";
  const selected = flow?.nodes.find((node) => node.id === search.node);

  return (
    <div className="flow">
      <header className="flow-head">
        <h1>Flow</h1>
        <SearchBox value={search.find ?? ""} change={(text) => put({ find: text || undefined })} label="Find in the flow" />
        <div className="flow-actions">
          {large && <span className="quiet">{count(flow?.nodes.length)} nodes: too many for a picture, narrow them down</span>}
          <Choice
            label="Shown as"
            items={[
              { id: "graph", label: "Graph", icon: "flow" },
              { id: "list", label: "List", icon: "grid" },
            ]}
            current={view}
            choose={(id) => put({ view: id === "list" ? "list" : undefined })}
          />
        </div>
      </header>
      {error ? (
        <Problem error={error} retry={() => void refetch()} />
      ) : flow === null ? (
        <Waiting />
      ) : flow.nodes.length === 0 ? (
        search.find ? (
          <Empty title="Nothing fits" />
        ) : (
          <Empty title="Nothing flows yet" command="lodestream up">
            Sources, tables and sinks that you may see appear here as soon as they are declared.
          </Empty>
        )
      ) : (
        <div className="flow-body">
          {view === "graph" ? (
            <div className="flow-canvas">
              <Graph flow={flow} selected={selected?.id} select={(node) => put({ node })} />
              <Legend />
            </div>
          ) : (
            <List flow={flow} />
          )}
          {selected && view === "graph" && <Side node={selected} flow={flow} close={() => put({ node: undefined })} />}
        </div>
      )}
    </div>
  );
}

/** What fits some letters, with its neighbours' edges among themselves. */
function filtered(flow: Flow, text: string): Flow {
  if (text === "") return flow;
  const nodes = best(text, flow.nodes, (node) => `${node.label} ${node.table}`, flow.nodes.length);
  const names = new Set(nodes.map((node) => node.id));
  return { nodes, edges: flow.edges.filter((edge) => names.has(edge.from) && names.has(edge.to)) };
}

function Legend() {
  return (
    <ul className="flow-legend" aria-label="Edges">
      <li>
        <svg width="24" height="6" aria-hidden="true">
          <path d="M0 3h24" className="edge edge-flows" strokeWidth="3" />
        </svg>
        rows, wider with the rate
      </li>
      <li>
        <svg width="24" height="6" aria-hidden="true">
          <path d="M0 3h24" className="edge edge-lookup" />
        </svg>
        lookup
      </li>
      <li>
        <svg width="24" height="6" aria-hidden="true">
          <path d="M0 3h24" className="edge edge-query" />
        </svg>
        query
      </li>
    </ul>
  );
}

function List({ flow }: { flow: Flow }) {
  const { overview } = useLive();
  const order = { source: 0, table: 1, sink: 2 } as const;
  const placed = (node: FlowNode) => ({ table: node.label, layer: node.layer ?? layerOf(node.table) });
  const nodes = flow.nodes.toSorted(
    (one, other) => order[one.kind] - order[other.kind] || byLayer(placed(one), placed(other)),
  );
  const labels = new Map(flow.nodes.map((node) => [node.id, node.label]));
  return (
    <div className="flow-list">
      <table className="list">
        <thead>
          <tr>
            <th>what</th>
            <th>state</th>
            <th className="right">rows/s</th>
            <th className="right">newest event</th>
            <th className="right">waiting</th>
            <th className="right">quarantine</th>
            <th>from</th>
            <th>to</th>
          </tr>
        </thead>
        <tbody>
          {nodes.map((node) => {
            const table = overview?.tables.find((one) => one.table === node.table);
            const open = node.kind === "table" ? (table?.quarantine_open ?? node.quarantine_open) : null;
            const near = (here: "from" | "to", there: "from" | "to"): string => flow.edges.filter((edge) => edge[here] === node.id).map((edge) => labels.get(edge[there]) ?? "").join(", ");
            return (
              <tr key={node.id}>
                <td>
                  <LayerMark layer={node.layer} />{" "}
                  {node.kind === "table" ? (
                    <Link to="/tables/$table" params={{ table: node.table }} className="flow-name">
                      {node.label}
                    </Link>
                  ) : (
                    <span className="flow-name quiet">
                      {node.kind}: {node.label}
                    </span>
                  )}
                </td>
                <td>
                  <State state={table?.state ?? node.state} />
                </td>
                <td className="right">{rate(table?.rate_per_s ?? node.rate_per_s)}</td>
                <td className="right">{table && overview && node.kind === "table" ? said(freshness(table, overview), overview) : "–"}</td>
                <td className="right">{count(table?.backlog ?? node.backlog)}</td>
                <td className="right">{open ? <Badge tone="warn">{count(open)}</Badge> : count(open)}</td>
                <td className="flow-near">{near("to", "from")}</td>
                <td className="flow-near wide">{near("from", "to")}</td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}

function Side({ node, flow, close }: { node: FlowNode; flow: Flow; close: () => void }) {
  const { overview } = useLive();
  const table = overview?.tables.find((one) => one.table === node.table);
  const labels = new Map(flow.nodes.map((one) => [one.id, one]));
  const near = (here: "from" | "to", there: "from" | "to"): FlowNode[] => flow.edges.flatMap((edge) => (edge[here] === node.id ? (labels.get(edge[there]) ?? []) : []));
  const facts: [string, React.ReactNode][] = [
    ["state", <State key="state" state={table?.state ?? node.state} />],
    ["rows/s", rate(table?.rate_per_s ?? node.rate_per_s)],
  ];
  if (node.kind === "table" && table && overview) {
    facts.push(
      ["newest event", said(freshness(table, overview), overview)],
      ["last commit", table.last_commit_us === null ? "–" : timeOf(new Date(table.last_commit_us / 1000).toISOString())],
      ["version", table.version ?? "–"],
      ["rows", count(table.rows)],
      ["waiting upstream", count(table.backlog)],
      ["quarantine", count(table.quarantine_open)],
    );
  }
  return (
    <aside className="flow-side" aria-label={node.label}>
      <header>
        <LayerMark layer={node.layer} />
        <h2>{node.label}</h2>
        <Button kind="quiet" icon="cross" aria-label="Close" onClick={close} />
      </header>
      {table?.error && node.kind === "table" && <Problem error={new Error(table.error)} />}
      <dl className="facts num">
        {facts.map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
      <Near title="From" nodes={near("to", "from")} />
      <Near title="To" nodes={near("from", "to")} />
      {node.kind === "table" && (
        <div className="flow-links">
          <Link to="/tables/$table" params={{ table: node.table }} className="link">
            Open the table
          </Link>
          <Link to="/quality/$table" params={{ table: node.table }} className="link">
            Quality
          </Link>
          <Link to="/sql" search={{ q: `select * from ${node.table} limit 100` }} className="link">
            Query
          </Link>
        </div>
      )}
    </aside>
  );
}

function Near({ title, nodes }: { title: string; nodes: FlowNode[] }) {
  if (nodes.length === 0) return null;
  return (
    <section className="flow-near-list">
      <h3>{title}</h3>
      <ul>
        {nodes.map((node) => (
          <li key={node.id}>
            <Link to="/flow" search={(known) => ({ ...known, node: node.id })}>
              <LayerMark layer={node.layer} /> {node.label}
            </Link>
          </li>
        ))}
      </ul>
    </section>
  );
}
