/** SQL: ask anything one may see. */

import { useQuery } from "@tanstack/react-query";
import { useNavigate, useSearch } from "@tanstack/react-router";
import type { SQLNamespace } from "@codemirror/lang-sql";
import { lazy, Suspense, useCallback, useEffect, useMemo, useRef, useState } from "react";

import { send } from "../../api/client";
import * as queries from "../../api/queries";
import type { Answer } from "../../api/types";
import { count, plural } from "../../format";
import { Grid } from "../../parts/Grid";
import { Icon } from "../../parts/Icon";
import { Button, Choice, CopyButton, Empty, Problem, Waiting } from "../../parts/parts";
import { Catalog } from "../../parts/Catalog";
import { picture } from "./chart";
import { Editor } from "./Editor";
import { load, newId, save, titleOf } from "./tabs";
import "./sql.css";

const Picture = lazy(() => import("../../charts/Picture").then((module) => ({ default: module.Picture })));

const TIMES = [5, 10, 30, 60] as const;
const ROWS = [1000, 10_000, 100_000] as const;
/** Longer queries are not put into the address: servers and chats cut it. */
const ADDRESS_MAX = 6000;
const FORMATS = [
  { id: "csv", label: "CSV", type: "text/csv" },
  { id: "arrow", label: "Arrow", type: "application/vnd.apache.arrow.stream" },
  { id: "parquet", label: "Parquet", type: "application/vnd.apache.parquet" },
] as const;

type Outcome =
  | { state: "running"; sql: string; started: number; abort: AbortController }
  | { state: "done"; sql: string; took: number; answer: Answer }
  | { state: "failed"; sql: string; error: unknown }
  | { state: "cancelled"; sql: string };

export function SqlScreen() {
  const { q } = useSearch({ from: "/sql" });
  const navigate = useNavigate();
  const [tabs, setTabs] = useState(() => load(q));
  const [outcomes, setOutcomes] = useState<Record<string, Outcome>>({});
  const [budget, setBudget] = useState<{ time_s: number; rows_max: number }>({ time_s: 30, rows_max: 10_000 });
  const schema = useSchema(tabs.tabs.find((tab) => tab.id === tabs.current)?.text ?? "");
  const trigger = useRef<(() => void) | null>(null);
  const current = tabs.tabs.find((tab) => tab.id === tabs.current);
  const outcome = outcomes[tabs.current];

  useEffect(() => save(tabs), [tabs]);
  // A link to another query, from the palette or a table, while this page is open.
  useEffect(() => {
    if (q !== undefined && q.trim() !== current?.text.trim()) setTabs(load(q));
  }, [q]);

  const change = (text: string): void => setTabs((known) => ({ ...known, tabs: known.tabs.map((tab) => (tab.id === known.current ? { ...tab, text } : tab)) }));
  const add = (text = ""): void => {
    const tab = { id: newId(), text };
    setTabs((known) => ({ tabs: [...known.tabs, tab], current: tab.id }));
  };
  const close = (id: string): void => {
    const running = outcomes[id];
    if (running?.state === "running") running.abort.abort();
    setTabs((known) => {
      const at = known.tabs.findIndex((tab) => tab.id === id);
      const kept = known.tabs.filter((tab) => tab.id !== id);
      const left = kept.length > 0 ? kept : [{ id: newId(), text: "" }];
      const next = left[Math.min(at, left.length - 1)]?.id ?? "";
      return { tabs: left, current: known.current === id ? next : known.current };
    });
  };

  const run = (sql: string): void => {
    const id = tabs.current;
    const before = outcomes[id];
    if (before?.state === "running") before.abort.abort();
    const abort = new AbortController();
    const started = performance.now();
    const tell = (now: Outcome): void => setOutcomes((known) => (abort === (known[id] as { abort?: AbortController } | undefined)?.abort ? { ...known, [id]: now } : known));
    setOutcomes((known) => ({ ...known, [id]: { state: "running", sql, started, abort } }));
    queries.ask({ sql, ...budget }, abort.signal).then(
      (answer) => tell({ state: "done", sql, took: performance.now() - started, answer }),
      (error: unknown) => tell(abort.signal.aborted ? { state: "cancelled", sql } : { state: "failed", sql, error }),
    );
    void navigate({ to: "/sql", search: { q: sql.length <= ADDRESS_MAX ? sql : undefined }, replace: true });
  };

  return (
    <div className="sql">
      <aside className="sql-side">
        <Catalog pick={(name) => add(`select *\nfrom ${name}\nlimit 100`)} label="Put a query of the table into a new tab" />
      </aside>
      <div className="sql-work">
        <h1 className="hidden-text">SQL</h1>
        <div className="sql-tabs" role="group" aria-label="Queries">
          {tabs.tabs.map((tab) => (
            <span key={tab.id} className={`sql-tab ${tab.id === tabs.current ? "sql-tab-current" : ""}`}>
              <button type="button" aria-current={tab.id === tabs.current ? "true" : undefined} onClick={() => setTabs({ ...tabs, current: tab.id })}>
                {titleOf(tab.text)}
              </button>
              <button type="button" className="sql-close" aria-label={`Close ${titleOf(tab.text)}`} onClick={() => close(tab.id)}>
                <Icon name="cross" size={12} />
              </button>
            </span>
          ))}
          <Button kind="quiet" icon="plus" aria-label="New query" title="New query" onClick={() => add()} />
        </div>
        <div className="sql-edit">
          {current && <Editor key={current.id} text={current.text} change={change} run={run} schema={schema} label="SQL" trigger={trigger} />}
        </div>
        <div className="sql-bar">
          {outcome?.state === "running" ? (
            <Button kind="danger" icon="stop" onClick={() => outcome.abort.abort()}>
              Cancel
            </Button>
          ) : (
            <Button kind="primary" icon="play" onClick={() => trigger.current?.()} title="Ctrl+Enter: the selection, or the statement at the cursor">
              Run
            </Button>
          )}
          <label className="sql-budget">
            at most
            <select className="field" value={budget.time_s} onChange={(event) => setBudget({ ...budget, time_s: Number(event.target.value) })} aria-label="Time">
              {TIMES.map((seconds) => (
                <option key={seconds} value={seconds}>
                  {seconds} s
                </option>
              ))}
            </select>
          </label>
          <label className="sql-budget">
            and
            <select className="field" value={budget.rows_max} onChange={(event) => setBudget({ ...budget, rows_max: Number(event.target.value) })} aria-label="Rows">
              {ROWS.map((rows) => (
                <option key={rows} value={rows}>
                  {count(rows)} rows
                </option>
              ))}
            </select>
          </label>
          <Told outcome={outcome} />
        </div>
        <Result key={tabs.current} outcome={outcome} />
      </div>
    </div>
  );
}

/** What the last run was: rows, time, and the versions it read. */
function Told({ outcome }: { outcome: Outcome | undefined }) {
  if (outcome?.state === "running") return <Elapsed started={outcome.started} />;
  if (outcome?.state === "cancelled") return <span className="sql-told">cancelled</span>;
  if (outcome?.state !== "done") return <span className="sql-told quiet">Ctrl+Enter runs the statement at the cursor, or the selection</span>;
  const { answer, took } = outcome;
  const versions = Object.entries(answer.versions).map(([table, version]) => `${table} @ ${version}`);
  return (
    <span className="sql-told num" data-testid="sql-told">
      {plural(answer.rows.length, "row")}
      {answer.truncated && <b className="sql-cut"> · cut at the limit</b>} · {Math.round(took)} ms
      {versions.length > 0 && (
        <span className="quiet" title={`the versions that were read: ${versions.join(", ")}`}>
          {" · "}
          {versions.slice(0, 3).join(", ")}
          {versions.length > 3 && ` and ${versions.length - 3} more`}
        </span>
      )}
    </span>
  );
}

function Elapsed({ started }: { started: number }) {
  const [now, setNow] = useState(() => performance.now());
  useEffect(() => {
    const timer = setInterval(() => setNow(performance.now()), 100);
    return () => clearInterval(timer);
  }, []);
  return <span className="sql-told num">{(Math.max(0, now - started) / 1000).toFixed(1)} s</span>;
}

function Result({ outcome }: { outcome: Outcome | undefined }) {
  const [view, setView] = useState<"grid" | "chart">("grid");
  const chosen = useMemo(() => (outcome?.state === "done" ? picture(outcome.answer) : null), [outcome]);
  if (outcome === undefined || outcome.state === "cancelled") {
    return (
      <div className="sql-result">
        <Empty title={outcome ? "Cancelled" : "Ask something"} command={outcome ? undefined : 'lodestream query "select * from gold.orders"'}>
          {outcome ? "The server stopped working on it." : "Pick a table on the left, or write a query. The same runs in a terminal, with the same grants:"}
        </Empty>
      </div>
    );
  }
  if (outcome.state === "failed") {
    return (
      <div className="sql-result">
        <Problem error={outcome.error} />
      </div>
    );
  }
  if (outcome.state === "running") {
    return (
      <div className="sql-result">
        <Waiting lines={5} />
      </div>
    );
  }
  const { answer, sql } = outcome;
  return (
    <div className="sql-result">
      <div className="sql-result-bar">
        <Choice
          label="Result as"
          items={[
            { id: "grid", label: "Grid", icon: "grid" },
            { id: "chart", label: "Chart", icon: "chart" },
          ]}
          current={view}
          choose={setView}
        />
        <div className="sql-export">
          {FORMATS.map((format) => (
            <Export key={format.id} sql={sql} format={format} />
          ))}
          <span className="sql-share">
            <CopyButton text={location.href} label="Copy a link to this query" />
          </span>
        </div>
      </div>
      <div className="sql-result-body">
        {view === "grid" ? (
          answer.rows.length === 0 ? <Empty title="No rows">The query ran; nothing fits it.</Empty> : <Grid columns={answer.columns} rows={answer.rows} label="Result" />
        ) : chosen === null ? (
          <Empty title="No picture fits">A chart needs a column of numbers, and a time or a name to draw it by.</Empty>
        ) : (
          <Suspense fallback={<Waiting />}>
            <div className="sql-chart">
              <Picture chosen={chosen} height={280} label="The result as a chart" />
            </div>
          </Suspense>
        )}
      </div>
    </div>
  );
}

/** Runs the query once more, with all its rows, into a file. */
function Export({ sql, format }: { sql: string; format: (typeof FORMATS)[number] }) {
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<string | null>(null);
  const save = useCallback(async () => {
    setBusy(true);
    setError(null);
    try {
      const answer = await send("/api/sql", { method: "POST", body: { sql, format: format.id, csv_guard: true }, accept: format.type });
      const url = URL.createObjectURL(await answer.blob());
      const link = document.createElement("a");
      link.href = url;
      link.download = `${titleOf(sql).replaceAll(/[^\w.-]+/g, "_")}.${format.id}`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(url), 60_000);
    } catch (failed) {
      setError(failed instanceof Error ? failed.message : String(failed));
    }
    setBusy(false);
  }, [sql, format]);
  return (
    <Button kind="quiet" icon={error ? "warn" : "download"} disabled={busy} title={error ?? `Save all rows as ${format.label}`} onClick={() => void save()}>
      {format.label}
    </Button>
  );
}

/** Tables for completion, and the columns of those the text names. */
function useSchema(text: string): SQLNamespace {
  const tables = useQuery(queries.tables).data;
  const [columns, setColumns] = useState<Record<string, string[]>>({});
  const named = useMemo(() => (tables ?? []).map((one) => one.table).filter((name) => text.includes(name)).join(" "), [tables, text]);
  useEffect(() => {
    let over = false;
    for (const name of named.split(" ").filter((one) => one !== "" && !(one in columns))) {
      queries
        .columns(name)
        .then((found) => over || setColumns((known) => ({ ...known, [name]: found })))
        .catch(() => undefined);
    }
    return () => {
      over = true;
    };
  }, [named]);
  return useMemo(() => {
    const layers: Record<string, Record<string, string[]>> = {};
    for (const { layer, name, table } of tables ?? []) (layers[layer] ??= {})[name] = columns[table] ?? [];
    return layers;
  }, [tables, columns]);
}
