/** Home: does the data move, is it fresh, is every row accounted for? */

import { Link, useNavigate } from "@tanstack/react-router";

import { byLayer, LAYERS, type Layer, type Overview, type TableState } from "../../api/types";
import { Spark } from "../../charts/Spark";
import { TimeChart } from "../../charts/TimeChart";
import { bytes, count, plural, rate, short } from "../../format";
import { freshness, newest, said } from "../../live/freshness";
import { useLive } from "../../live/stream";
import { Icon } from "../../parts/Icon";
import { Badge, Empty, LayerMark, Panel, State, tone, Waiting } from "../../parts/parts";
import { parts } from "./accounting";
import "./home.css";

export function Home() {
  const { overview, connection, reason } = useLive();
  if (overview === null) {
    return (
      <div className="page">
        {connection === "lost" ? <Empty title="The server does not send live updates">{reason}</Empty> : <Waiting lines={6} />}
      </div>
    );
  }
  if (overview.tables.length === 0) return <NoTables />;
  return (
    <div className="page">
      <Sentence overview={overview} />
      <div className="home-layers">
        {LAYERS.map((layer) => (
          <LayerCard key={layer} layer={layer} overview={overview} />
        ))}
        <QuarantineCard overview={overview} />
      </div>
      <Panel title="Rows per second" className="home-chart">
        <TimeChart
            label="Rows per second written to each layer"
            times={overview.history.t_us}
            series={LAYERS.map((layer) => ({ name: layer, color: `--${layer}`, values: overview.history.rate[layer] ?? [] }))}
            format={rate}
            height={180}
        />
      </Panel>
      <TableList overview={overview} />
    </div>
  );
}

function NoTables() {
  return (
    <div className="page">
      <Empty title="No tables yet" command="lodestream run">
        Declared tables appear here with their first rows. If you see none although there are some, nobody has granted you any: lodestream grant.
      </Empty>
    </div>
  );
}

/** The promise first: whether every row that came in is accounted for; then how the tables stand, in the server's words. */
function Sentence({ overview }: { overview: Overview }) {
  const failed = overview.tables.some((table) => tone(table.state) === "bad");
  const open = overview.tables.filter((table) => table.accounted === false);
  const told = overview.tables.filter((table) => table.accounted !== null);
  const good = !failed && open.length === 0;
  const rows = told.reduce((sum, table) => sum + (table.counts.input ?? 0), 0);
  const title =
    open.length > 0 ? `Rows of ${open.map((table) => table.table).join(", ")} are not accounted for` : told.length > 0 ? "Every row accounted for" : overview.sentence;
  return (
    <header className={`sentence ${good ? "sentence-good" : "sentence-bad"}`}>
      <span className="sentence-mark">
        <Icon name={good ? "check" : "warn"} size={18} />
      </span>
      <div>
        <h1>{title}</h1>
        <p className="quiet num">
          {told.length > 0 && <>{overview.sentence} </>}
          {rows > 0 && <span data-figure="input">{count(rows)} rows counted, each with a fate on record.</span>}
        </p>
      </div>
    </header>
  );
}

function LayerCard({ layer, overview }: { layer: Layer; overview: Overview }) {
  const tables = overview.tables.filter((table) => table.layer === layer);
  const rows = tables.reduce((sum, table) => sum + (table.rows ?? 0), 0);
  return (
    <Link to="/tables" search={{ find: `${layer}.` }} className="panel layer-card" data-layer={layer}>
      <div className="layer-card-head">
        <LayerMark layer={layer} word />
        <span className="quiet num">{plural(tables.length, "table")}</span>
      </div>
      <p className="figure num">
        <span data-figure={`rate-${layer}`}>{rate(overview.totals.rate_per_s[layer] ?? 0)}</span>
        <small>rows/s</small>
      </p>
      <Spark values={overview.history.rate[layer] ?? []} color={`var(--${layer})`} width={200} height={30} label={`rows per second into ${layer}`} />
      <dl className="layer-card-facts num">
        <div>
          <dt>rows</dt>
          <dd data-figure={`rows-${layer}`}>{count(rows)}</dd>
        </div>
        <div>
          <dt>newest event</dt>
          <dd>{said(newest(layer, overview), overview)}</dd>
        </div>
      </dl>
    </Link>
  );
}

function QuarantineCard({ overview }: { overview: Overview }) {
  const open = overview.totals.quarantine_open;
  const worst = overview.tables
    .map(({ table, quarantine_open }) => ({ table, rows: quarantine_open ?? 0 }))
    .filter(({ rows }) => rows > 0)
    .sort((one, other) => other.rows - one.rows)
    .slice(0, 3);
  return (
    <Link to="/quality" className="panel layer-card">
      <div className="layer-card-head">
        <span className="layer">Quarantine</span>
        <span className="quiet">open</span>
      </div>
      <p className="figure num">
        <span data-figure="quarantine">{count(open)}</span>
        <small>{open === 1 ? "row" : "rows"}</small>
      </p>
      <ul className="quarantine-worst num">
        {worst.map(({ table, rows }) => (
          <li key={table}>
            <span>{table}</span>
            <b>{count(rows)}</b>
          </li>
        ))}
        {worst.length === 0 && <li className="quiet">Nothing is set aside.</li>}
      </ul>
    </Link>
  );
}

function TableList({ overview }: { overview: Overview }) {
  const tables = overview.tables.toSorted(byLayer);
  const navigate = useNavigate();
  const states = new Map<string, number>();
  for (const table of tables) states.set(table.state, (states.get(table.state) ?? 0) + 1);
  return (
    <Panel
      title="Tables"
      actions={[...states].sort().map(([state, number]) => (
        <span key={state} className="home-states num">
          <State state={state} /> {number}
        </span>
      ))}
    >
      <div className="scroll-x">
        <table className="list home-tables">
          <thead>
            <tr>
              <th>table</th>
              <th>state</th>
              <th className="right">rows</th>
              <th className="right">rows/s</th>
              <th className="right">newest event</th>
              <th>where its input went</th>
              <th className="right">quarantine</th>
              <th className="right">version</th>
              <th className="right">size</th>
            </tr>
          </thead>
          <tbody>
            {tables.map((table) => (
              <tr key={table.table} className="clickable" onClick={() => void navigate({ to: "/tables/$table", params: { table: table.table } })}>
                <td>
                  <LayerMark layer={table.layer} />{" "}
                  <Link to="/tables/$table" params={{ table: table.table }} className="home-name" onClick={(event) => event.stopPropagation()}>
                    {table.table}
                  </Link>
                </td>
                <td title={table.error ?? undefined}>
                  <State state={table.state} />
                </td>
                <td className="right" data-rows={table.table}>
                  {count(table.rows)}
                </td>
                <td className="right">{table.rate_per_s ? rate(table.rate_per_s) : <span className="quiet">{table.rate_per_s ?? "–"}</span>}</td>
                <td className="right">{said(freshness(table, overview), overview)}</td>
                <td className="wide">
                  <Accounting table={table} />
                </td>
                <td className="right">{table.quarantine_open ? <Badge tone="warn">{short(table.quarantine_open)}</Badge> : <span className="quiet">{table.quarantine_open ?? "–"}</span>}</td>
                <td className="right quiet">{table.version ?? "–"}</td>
                <td className="right quiet">{bytes(table.size_bytes)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </Panel>
  );
}

function Accounting({ table }: { table: TableState }) {
  const ways = parts(table.counts);
  if (table.filtered) return <span className="quiet">withheld: a policy shows you a part of it</span>;
  if (ways.length === 0) return <span className="quiet">{table.layer === "gold" ? "computed from its inputs" : "–"}</span>;
  const said = ways.map((way) => `${count(way.rows)} ${way.label}`).join(", ");
  return (
    <span className="accounting" title={said}>
      <span className="accounting-bar" role="img" aria-label={said}>
        {ways.map((way) => (
          <i key={way.name} style={{ width: `${way.share * 100}%`, background: `var(${way.color})` }} />
        ))}
      </span>
      {table.accounted === false ? <Badge tone="bad">not accounted for</Badge> : <Icon name="check" size={13} />}
    </span>
  );
}
