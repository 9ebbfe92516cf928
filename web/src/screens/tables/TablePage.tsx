/** One table: what is in it, what it is made of, how it came to be. */

import { Link, useNavigate, useParams, useSearch } from "@tanstack/react-router";
import { useQuery } from "@tanstack/react-query";
import { useState } from "react";

import * as queries from "../../api/queries";
import { layerOf } from "../../api/types";
import { bytes, count, plural, rate } from "../../format";
import { freshness, said } from "../../live/freshness";
import { tableState, useLive } from "../../live/stream";
import { Icon } from "../../parts/Icon";
import { Badge, Button, LayerMark, Problem, State, Tabs } from "../../parts/parts";
import { TABLE_TABS, type TableTab } from "../../routes";
import { Lineage } from "./Lineage";
import { Preview } from "./Preview";
import { Schema } from "./Schema";
import "../quality/quality.css";
import { TableRules } from "./TableRules";
import { Versions } from "./Versions";

const LABELS: Record<TableTab, string> = { preview: "Preview", schema: "Schema", versions: "Versions", quality: "Quality", lineage: "Lineage" };

export function TablePage() {
  const { table } = useParams({ from: "/tables/$table" });
  const search = useSearch({ from: "/tables/$table" });
  const navigate = useNavigate({ from: "/tables/$table" });
  const { overview } = useLive();
  const live = tableState(overview, table);
  const schema = useQuery(queries.schema(table, search.as_of));
  const tab = search.tab ?? "preview";
  const put = (change: Partial<typeof search>): void => void navigate({ search: (known) => ({ ...known, ...change }), replace: true });

  return (
    <div className="table-page">
      <header className="table-head">
        <div className="table-title">
          <LayerMark layer={layerOf(table)} />
          <h1>{table}</h1>
          {live && <State state={live.state} />}
          <div className="table-actions">
            <AsOf key={search.as_of} value={search.as_of} change={(as_of) => put({ as_of })} />
            <Link to="/sql" search={{ q: `select *\nfrom ${table}\nlimit 100` }} className="button button-plain">
              <Icon name="sql" size={14} />
              Query
            </Link>
          </div>
        </div>
        {live && overview && (
          <p className="table-facts num">
            <span>
              <b data-figure="table-rows">{count(live.rows)}</b> rows
            </span>
            <span>
              <b>{rate(live.rate_per_s)}</b> rows/s
            </span>
            <span>
              newest event <b>{said(freshness(live, overview), overview)}</b>
            </span>
            <span>
              version <b>{live.version ?? "–"}</b>
            </span>
            <span>
              <b>{bytes(live.size_bytes)}</b>{live.files === null ? "" : ` in ${plural(live.files, "file")}`}
            </span>
            {live.quarantine_open ? (
              <Link to="/quality/$table" params={{ table }}>
                <Badge tone="warn">{count(live.quarantine_open)} in quarantine</Badge>
              </Link>
            ) : null}
            {live.filtered && <Badge title="A policy shows you a part of the rows; figures of the whole are withheld.">filtered for you</Badge>}
          </p>
        )}
        {live?.error && <Problem error={new Error(live.error)} />}
      </header>
      <Tabs
        label="About the table"
        items={TABLE_TABS.map((id) => ({ id, label: LABELS[id], ...(id === "schema" && schema.data ? { note: schema.data.columns.length } : {}) }))}
        current={tab}
        choose={(id) => put({ tab: id === "preview" ? undefined : id })}
      />
      <div className="table-body" role="tabpanel" aria-label={LABELS[tab]}>
        {schema.error ? (
          <Problem error={schema.error} retry={() => void schema.refetch()} />
        ) : tab === "preview" ? (
          <Preview key={table} table={table} columns={schema.data?.columns ?? null} search={search} put={put} />
        ) : tab === "schema" ? (
          <Schema table={table} asOf={search.as_of} schema={schema.data ?? null} />
        ) : tab === "versions" ? (
          <Versions table={table} look={(version) => put({ as_of: String(version), tab: undefined })} />
        ) : tab === "quality" ? (
          <TableRules table={table} />
        ) : (
          <Lineage table={table} columns={schema.data?.columns ?? []} column={search.column} choose={(column) => put({ column })} />
        )}
      </div>
    </div>
  );
}

/** A version or a time: the table as it was then. */
function AsOf({ value, change }: { value: string | undefined; change: (asOf: string | undefined) => void }) {
  const [text, setText] = useState(value ?? "");
  return (
    <form
      className={`as-of ${value ? "as-of-set" : ""}`}
      onSubmit={(event) => {
        event.preventDefault();
        change(text.trim() || undefined);
      }}
    >
      <label>
        <Icon name="clock" size={14} />
        <span className="hidden-text">As of a version or a time</span>
        <input value={text} onChange={(event) => setText(event.target.value)} placeholder="as of: version or time" spellCheck={false} />
      </label>
      {value && <Button kind="quiet" icon="cross" aria-label="Back to now" title="Back to now" onClick={() => change(undefined)} />}
    </form>
  );
}
