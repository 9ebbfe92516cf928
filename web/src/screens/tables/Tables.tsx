/** Tables: the catalog on the left, one table on the right. */

import { Outlet, useNavigate, useParams, useSearch } from "@tanstack/react-router";

import { tableState, useLive } from "../../live/stream";
import { Catalog } from "../../parts/Catalog";
import { Empty, State } from "../../parts/parts";
import "./tables.css";

export function TablesScreen() {
  const { find } = useSearch({ from: "/tables" });
  const table = useParams({ strict: false }).table;
  const navigate = useNavigate();
  const { overview } = useLive();
  return (
    <div className="tables">
      <aside className="tables-side">
        <Catalog
          label="Open a table"
          {...(table === undefined ? {} : { current: table })}
          find={find ?? ""}
          setFind={(text) => void navigate({ to: ".", search: (known: Record<string, unknown>) => ({ ...known, find: text || undefined }), replace: true })}
          pick={(name) => void navigate({ to: "/tables/$table", params: { table: name }, search: { find } })}
          note={(one) => {
            const state = tableState(overview, one.table)?.state;
            return state ? <State state={state} quiet /> : null;
          }}
        />
      </aside>
      <div className="tables-main">
        {table === undefined ? (
          <Empty title="Pick a table" command="lodestream query 'select * from gold.orders limit 10'">
            Its rows, columns, versions, quality and lineage are shown here. In a terminal:
          </Empty>
        ) : (
          <Outlet />
        )}
      </div>
    </div>
  );
}
