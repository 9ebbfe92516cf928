/** Quality: which tables set rows aside, and why. */

import { useQuery } from "@tanstack/react-query";
import { Link, Outlet, useParams } from "@tanstack/react-router";

import * as queries from "../../api/queries";
import { byLayer, layerOf, type QualityLine } from "../../api/types";
import { count, short } from "../../format";
import { tableState, useLive } from "../../live/stream";
import { Badge, Empty, LayerMark, Problem, Waiting } from "../../parts/parts";
import "./quality.css";

export function QualityScreen() {
  const table = useParams({ strict: false }).table;
  const { data, error, refetch } = useQuery({ ...queries.qualities, refetchInterval: 10_000 });
  const { overview } = useLive();
  if (error) return <Problem error={error} retry={() => void refetch()} />;
  if (data === undefined) return <Waiting lines={8} />;
  if (data.length === 0) {
    return (
      <Empty title="Nothing to judge yet" command="lodestream run">
        Tables that take rows in are listed here with their rules and the rows they set aside.
      </Empty>
    );
  }
  const open = (line: QualityLine): number => tableState(overview, line.table)?.quarantine_open ?? line.quarantine_open ?? 0;
  const placed = (line: QualityLine) => ({ table: line.table, layer: layerOf(line.table) });
  const lines = data.toSorted((one, other) => open(other) - open(one) || byLayer(placed(one), placed(other)));
  return (
    <div className="quality">
      <nav className="quality-side" aria-label="Tables by rows in quarantine">
        <h1>Quality</h1>
        <ul>
          {lines.map((line) => (
            <li key={line.table}>
              <Link to="/quality/$table" params={{ table: line.table }} className="quality-table" activeProps={{ "aria-current": "page" }}>
                <LayerMark layer={layerOf(line.table)} />
                <span className="quality-name">{line.table}</span>
                {open(line) > 0 ? <Badge tone="warn">{short(open(line))}</Badge> : <span className="quiet num">{line.rules > 0 ? count(line.rules) : ""}</span>}
              </Link>
            </li>
          ))}
        </ul>
      </nav>
      <div className="quality-main">{table === undefined ? <Summary lines={lines} open={open} /> : <Outlet />}</div>
    </div>
  );
}

const FATES = ["input", "output", "quarantine", "late", "duplicate", "dropped"] as const;

function Summary({ lines, open }: { lines: QualityLine[]; open: (line: QualityLine) => number }) {
  return (
    <div className="scroll-x">
      <table className="list">
        <thead>
          <tr>
            <th>table</th>
            <th className="right">rules</th>
            <th className="right">rules broken</th>
            {FATES.map((fate) => (
              <th key={fate} className="right">
                {fate}
              </th>
            ))}
            <th className="right">open now</th>
          </tr>
        </thead>
        <tbody>
          {lines.map((line) => (
            <tr key={line.table}>
              <td className="wide">
                <LayerMark layer={layerOf(line.table)} />{" "}
                <Link to="/quality/$table" params={{ table: line.table }} className="quality-link">
                  {line.table}
                </Link>
              </td>
              <td className="right">{line.rules}</td>
              <td className="right">{line.failed === null ? "–" : Object.values(line.failed).filter((rows) => rows > 0).length}</td>
              {FATES.map((fate) => (
                <td key={fate} className={`right ${line.counts[fate] ? "" : "quiet"}`}>
                  {count(line.counts[fate])}
                </td>
              ))}
              <td className="right">{open(line) > 0 ? <Badge tone="warn">{count(open(line))}</Badge> : <span className="quiet">0</span>}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
