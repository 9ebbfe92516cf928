/** Where a table comes from and who uses it: the part of the flow that touches it. */

import { useQuery } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { useMemo } from "react";

import * as queries from "../../api/queries";
import type { Column } from "../../api/types";
import { Empty, Problem, Waiting } from "../../parts/parts";
import { Graph } from "../flow/Graph";
import { connected } from "../flow/layout";
import "../flow/flow.css";

export function Lineage({ table, columns, column, choose }: { table: string; columns: Column[]; column: string | undefined; choose: (column: string | undefined) => void }) {
  const flow = useQuery(queries.flow);
  const navigate = useNavigate();
  const part = useMemo(() => {
    if (flow.data === undefined) return null;
    const near = connected(table, flow.data);
    return { nodes: flow.data.nodes.filter((node) => near.has(node.id)), edges: flow.data.edges.filter((edge) => near.has(edge.from) && near.has(edge.to)) };
  }, [flow.data, table]);
  if (flow.error) return <Problem error={flow.error} retry={() => void flow.refetch()} />;
  if (part === null) return <Waiting />;
  if (part.nodes.length === 0) return <Empty title="Nothing is known of where it comes from" />;
  void columns;
  void column;
  void choose;
  return (
    <div className="lineage">
      <div className="flow-canvas">
        <Graph
          flow={part}
          selected={undefined}
          select={(id) => {
            const node = part.nodes.find((one) => one.id === id);
            if (node?.kind === "table") void navigate({ to: "/tables/$table", params: { table: node.table }, search: { tab: "lineage" } });
          }}
        />
      </div>
    </div>
  );
}
