/** The quarantine of a table: why rows were set aside, the rows themselves, mending and taking them again. */

import { useInfiniteQuery, useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Link, useNavigate, useParams, useSearch } from "@tanstack/react-router";
import { useEffect, useState } from "react";

import * as queries from "../../api/queries";
import type { Quarantine, QuarantineRow } from "../../api/types";
import { count, plural, timeOf } from "../../format";
import { tableState, useLive } from "../../live/stream";
import { Icon } from "../../parts/Icon";
import { Badge, Button, CopyButton, Empty, Panel, Problem, Waiting } from "../../parts/parts";
import { changes, type Edits, fieldsOf, keyOf, laidOut, textOf } from "./mend";
import { Rules } from "./Rules";
import "./quality.css";

export function TableQuality() {
  const { table } = useParams({ from: "/quality/$table" });
  const quality = useQuery({ ...queries.quality(table), refetchInterval: 5000 });
  return (
    <div className="page">
      <header className="page-head">
        <h1>{table}</h1>
        <div className="page-actions">
          <Link to="/tables/$table" params={{ table }} className="button button-plain">
            <Icon name="tables" size={14} />
            Table
          </Link>
        </div>
      </header>
      <Panel title="Rules">{quality.error ? <Problem error={quality.error} retry={() => void quality.refetch()} /> : quality.data ? <Rules quality={quality.data} /> : <Waiting />}</Panel>
      <QuarantineBrowser key={table} table={table} />
    </div>
  );
}

function QuarantineBrowser({ table }: { table: string }) {
  const { reason } = useSearch({ from: "/quality/$table" });
  const navigate = useNavigate({ from: "/quality/$table" });
  const found = useInfiniteQuery(queries.quarantine(table, reason));
  const open = tableState(useLive().overview, table)?.quarantine_open;
  const privileges = useQuery(queries.tables).data?.find((one) => one.table === table)?.privileges;
  const [chosen, setChosen] = useState<ReadonlySet<string>>(new Set());
  const [shown, setShown] = useState<string | null>(null);
  const client = useQueryClient();
  const refetch = found.refetch;

  // When rows come or go, the list is asked for anew; what is open and chosen stays.
  useEffect(() => {
    if (open !== undefined) void refetch();
  }, [open, refetch]);

  const again = useMutation({
    mutationFn: (body: queries.ReplayAsked) => queries.replay(table, body),
    onSuccess: async () => {
      setChosen(new Set());
      await Promise.all([client.invalidateQueries({ queryKey: ["quarantine", table] }), client.invalidateQueries({ queryKey: ["quality", table] })]);
    },
  });

  if (found.error) {
    return (
      <Panel title="Quarantine">
        <Problem error={found.error} retry={() => void refetch()} />
      </Panel>
    );
  }
  const first: Quarantine | undefined = found.data?.pages[0];
  if (first === undefined) {
    return (
      <Panel title="Quarantine">
        <Waiting />
      </Panel>
    );
  }
  const rows = found.data?.pages.flatMap((page) => page.rows) ?? [];
  const all = first.groups.reduce((sum, group) => sum + group.rows, 0);
  const picked = rows.filter((row) => chosen.has(keyOf(row)));
  const late = picked.some((row) => row.kind === "late");
  const may = privileges === undefined || privileges.includes("replay");
  const group = first.groups.find((one) => one.reason === reason);

  return (
    <Panel
      title={
        <>
          Quarantine <span className="quiet num">{plural(all, "open row")}</span>
        </>
      }
      actions={
        <>
          {again.data && !again.isPending && <Told replayed={again.data} />}
          {picked.length > 0 && (
            <Button kind="primary" icon="replay" disabled={again.isPending || !may} onClick={() => again.mutate({ rows: picked.map((row) => row.id), ...(late ? { accept_late: true } : {}) })}>
              Take {plural(picked.length, "row")} again
            </Button>
          )}
          {picked.length === 0 && group !== undefined && group.rows > 0 && (
            <Button icon="replay" disabled={again.isPending || !may} title={may ? "As they came: after the rule was mended" : "You may look, and not take rows again"} onClick={() => again.mutate({ reason: group.reason, ...(group.kind === "late" ? { accept_late: true } : {}) })}>
              Take all {count(group.rows)} again
            </Button>
          )}
        </>
      }
    >
      {again.error && <Problem error={again.error} />}
      {all === 0 ? (
        <Empty title="Nothing is set aside" command={`lodestream quarantine list ${table}`}>
          A row that cannot go into the table is kept here with its reason, until it is mended and taken again. The same in a terminal:
        </Empty>
      ) : (
        <>
          <div className="groups" role="group" aria-label="Reasons">
            <button type="button" aria-pressed={reason === undefined} onClick={() => void navigate({ search: {}, replace: true })}>
              every reason <b className="num">{count(all)}</b>
            </button>
            {first.groups.map((one) => (
              <button key={one.reason} type="button" aria-pressed={one.reason === reason} onClick={() => void navigate({ search: { reason: one.reason }, replace: true })}>
                {one.reason} <b className="num">{count(one.rows)}</b>
              </button>
            ))}
          </div>
          <div className="scroll-x">
            <table className="list aside">
              <thead>
                <tr>
                  <th className="aside-pick">
                    <input
                      type="checkbox"
                      aria-label="Choose all rows"
                      checked={rows.length > 0 && picked.length === rows.length}
                      onChange={(event) => setChosen(event.target.checked ? new Set(rows.map(keyOf)) : new Set())}
                    />
                  </th>
                  <th>reason</th>
                  <th>from</th>
                  <th className="wide">the record</th>
                  <th className="right">when (UTC)</th>
                </tr>
              </thead>
              <tbody>
                {rows.map((row) => (
                  <AsideRow
                    key={keyOf(row)}
                    row={row}
                    open={shown === keyOf(row)}
                    turn={() => setShown(shown === keyOf(row) ? null : keyOf(row))}
                    chosen={chosen.has(keyOf(row))}
                    choose={(yes) => setChosen(new Set(yes ? [...chosen, keyOf(row)] : [...chosen].filter((key) => key !== keyOf(row))))}
                    busy={again.isPending}
                    may={may}
                    again={(set, raw) =>
                      again.mutate({
                        rows: [{ ...row.id, ...(Object.keys(set).length > 0 ? { set } : {}), ...(raw === undefined ? {} : { raw }) }],
                        ...(row.kind === "late" ? { accept_late: true } : {}),
                      })
                    }
                  />
                ))}
              </tbody>
            </table>
          </div>
          {found.hasNextPage && (
            <p className="table-more">
              <Button onClick={() => void found.fetchNextPage()} disabled={found.isFetchingNextPage}>
                More
              </Button>
            </p>
          )}
        </>
      )}
    </Panel>
  );
}

function Told({ replayed }: { replayed: queries.Replayed }) {
  const back = replayed.replayed - replayed.passed;
  return (
    <span className="num" role="status" data-testid="replayed">
      <Badge tone={back === 0 ? "good" : "warn"}>
        {plural(replayed.passed, "row")} passed{back > 0 && `, ${count(back)} set aside again`}
      </Badge>
    </span>
  );
}

interface RowProps {
  row: QuarantineRow;
  open: boolean;
  turn: () => void;
  chosen: boolean;
  choose: (yes: boolean) => void;
  busy: boolean;
  may: boolean;
  again: (set: Record<string, unknown>, raw?: string) => void;
}

function AsideRow({ row, open, turn, chosen, choose, busy, may, again }: RowProps) {
  const fields = fieldsOf(row);
  const sample = fields ? fields.map(([name, value]) => `${name} ${value === null ? "null" : textOf(value)}`).join("  ") : (row.raw ?? "");
  const where = `${row.id.source}:${row.id.position}`;
  return (
    <>
      <tr className={open ? "aside-open" : ""}>
        <td className="aside-pick">
          <input type="checkbox" aria-label={`Choose ${where}`} checked={chosen} onChange={(event) => choose(event.target.checked)} />
        </td>
        <td>
          <button type="button" className="aside-turn" aria-expanded={open} onClick={turn}>
            <Icon name={open ? "down" : "right"} size={12} />
            {row.reasons[0] ?? row.kind}
          </button>
          {row.reasons.length > 1 && <span className="quiet"> +{row.reasons.length - 1}</span>}
        </td>
        <td className="mono quiet aside-from" title={where}>
          {where}
        </td>
        <td className="wide">
          <span className="aside-sample mono" title={sample}>
            {sample}
          </span>
        </td>
        <td className="right quiet">{timeOf(row.time)}</td>
      </tr>
      {open && (
        <tr className="aside-detail">
          <td colSpan={5}>
            <Detail row={row} fields={fields} busy={busy} may={may} again={again} />
          </td>
        </tr>
      )}
    </>
  );
}

function Detail({ row, fields, busy, may, again }: { row: QuarantineRow; fields: [string, unknown][] | null } & Pick<RowProps, "busy" | "may" | "again">) {
  const [edits, setEdits] = useState<Edits>({});
  const [raw, setRaw] = useState<string | null>(null);
  const read = changes(row, edits);
  const wrong = "wrong" in read ? read : null;
  const set = "set" in read ? read.set : {};
  const changed = Object.keys(set).length;
  const mendable = row.raw_encoding === "text" && row.raw !== null && fields === null;
  const rawChanged = raw !== null && raw !== row.raw;
  return (
    <div className="aside-body">
      <section>
        <h3>Why</h3>
        <ul className="aside-why">
          {row.reasons.map((one) => (
            <li key={one}>
              <Badge tone={row.kind === "late" ? "warn" : "bad"}>{one}</Badge>
            </li>
          ))}
        </ul>
        {row.detail !== null && row.detail !== undefined && <pre className="aside-raw">{typeof row.detail === "string" ? row.detail : JSON.stringify(row.detail, null, 2)}</pre>}
        {row.raw !== null && !mendable && (
          <>
            <h3>
              As it came {row.raw_encoding === "base64" && <span className="quiet">(base64)</span>} <CopyButton text={row.raw} label="Copy the record" />
            </h3>
            <pre className="aside-raw">{laidOut(row.raw)}</pre>
          </>
        )}
        <div className="aside-actions">
          <Button kind="primary" icon="replay" disabled={busy || !may || wrong !== null} onClick={() => again(set, rawChanged ? (raw ?? undefined) : undefined)}>
            {changed > 0 || rawChanged ? "Mend and take again" : row.kind === "late" ? "Accept and take again" : "Take again"}
          </Button>
          {(changed > 0 || rawChanged || wrong) && (
            <Button
              kind="quiet"
              onClick={() => {
                setEdits({});
                setRaw(null);
              }}
            >
              Undo
            </Button>
          )}
          {!may && <span className="quiet">You may look, and not take rows again: it needs the privilege replay.</span>}
          {wrong && (
            <span className="aside-wrong" role="alert">
              {wrong.column} must be {wrong.wrong}
            </span>
          )}
        </div>
      </section>
      {fields !== null && (
        <section>
          <h3>Values {changed > 0 && <Badge tone="gold">{changed} changed</Badge>}</h3>
          <div className="aside-values">
            {fields.map(([name, value]) => {
              const text = edits[name] ?? textOf(value);
              return (
                <label key={name} className={name in set ? "changed" : ""}>
                  <span title={name}>{name}</span>
                  <input className="field mono" value={text} placeholder="null" spellCheck={false} onChange={(event) => setEdits({ ...edits, [name]: event.target.value })} />
                </label>
              );
            })}
          </div>
        </section>
      )}
      {mendable && (
        <section>
          <h3>The record {rawChanged && <Badge tone="gold">changed</Badge>}</h3>
          <textarea className="field mono aside-text" aria-label="The record" spellCheck={false} rows={8} value={raw ?? row.raw ?? ""} onChange={(event) => setRaw(event.target.value)} />
        </section>
      )}
    </div>
  );
}
