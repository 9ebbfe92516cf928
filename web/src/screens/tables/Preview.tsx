/** Rows of a table: filtered and sorted by the server, fetched as they come into sight, all of one version. */

import { useInfiniteQuery } from "@tanstack/react-query";
import { type FormEvent, useCallback, useMemo, useState } from "react";

import * as queries from "../../api/queries";
import type { Column } from "../../api/types";
import { count } from "../../format";
import { tableState, useLive } from "../../live/stream";
import { Grid } from "../../parts/Grid";
import { Icon } from "../../parts/Icon";
import { Button, Empty, Problem, Waiting } from "../../parts/parts";
import type { Sort } from "../../parts/rows";
import type { TableSearch } from "../../routes";
import { filterOf, inWords, OPERATORS, type Operator, operatorsOf, parse, write } from "./where";

interface Props {
  table: string;
  columns: Column[] | null;
  search: TableSearch;
  put: (change: Partial<TableSearch>) => void;
}

export function Preview({ table, columns, search, put }: Props) {
  const where = useMemo(() => parse(search.where), [search.where]);
  const found = useInfiniteQuery(queries.rows(table, where, search.sort, search.as_of));
  const newest = tableState(useLive().overview, table)?.version ?? null;
  const pages = found.data?.pages;
  const shown = useMemo(() => pages?.flatMap((page) => page.rows) ?? [], [pages]);
  const sort = useMemo<Sort | null>(() => {
    if (search.sort === undefined) return null;
    return search.sort.endsWith(".desc") ? { column: search.sort.slice(0, -5), down: true } : { column: search.sort, down: false };
  }, [search.sort]);
  const { fetchNextPage, hasNextPage, isFetchingNextPage } = found;
  const more = useCallback(() => {
    if (hasNextPage && !isFetchingNextPage) void fetchNextPage();
  }, [fetchNextPage, hasNextPage, isFetchingNextPage]);
  const version = pages?.[0]?.version;

  return (
    <div className="preview">
      <div className="preview-bar">
        <Icon name="filter" size={14} />
        {where.map((condition, index) => (
          <span key={`${condition[0]} ${index}`} className="condition">
            {inWords(condition)}
            <button type="button" aria-label={`Without ${inWords(condition)}`} onClick={() => put({ where: write(where.filter((_, at) => at !== index)) })}>
              <Icon name="cross" size={11} />
            </button>
          </span>
        ))}
        <AddCondition columns={columns ?? []} add={(column, filter) => put({ where: write([...where, [column, filter]]) })} />
        <span className="preview-told num">
          {version !== undefined && (
            <>
              {count(shown.length)}
              {found.hasNextPage ? " rows so far" : " rows"} of version {version}
            </>
          )}
          {version !== undefined && search.as_of === undefined && newest !== null && newest > version && (
            <Button kind="quiet" icon="replay" onClick={() => void found.refetch()}>
              {newest - version} newer
            </Button>
          )}
        </span>
      </div>
      {found.error ? (
        <Problem error={found.error} retry={() => void found.refetch()} />
      ) : pages === undefined || pages[0] === undefined ? (
        <Waiting lines={8} />
      ) : shown.length === 0 ? (
        where.length > 0 ? (
          <Empty title="No row fits">Take a filter away.</Empty>
        ) : (
          <Empty title="No rows yet" command="lodestream run">
            The table is declared, and nothing has come into it.
          </Empty>
        )
      ) : (
        <Grid
          columns={pages[0].columns}
          rows={shown}
          label={`Rows of ${table}`}
          sort={sort}
          onSort={(next) => put({ sort: next === null ? undefined : `${next.column}${next.down ? ".desc" : ""}` })}
          onEnd={more}
        />
      )}
    </div>
  );
}

function AddCondition({ columns, add }: { columns: Column[]; add: (column: string, filter: string) => void }) {
  const [open, setOpen] = useState(false);
  const [column, setColumn] = useState("");
  const [operator, setOperator] = useState<Operator>("eq");
  const [value, setValue] = useState("");
  const chosen = columns.find((one) => one.name === column) ?? columns[0];
  const fitting = operatorsOf(chosen?.type ?? "string");
  const used = fitting.includes(operator) ? operator : (fitting[0] ?? "is");
  const free = used === "is" || used === "not.is";
  if (!open || chosen === undefined) {
    return (
      <Button kind="quiet" icon="plus" disabled={chosen === undefined} onClick={() => setOpen(true)}>
        Filter
      </Button>
    );
  }
  const submit = (event: FormEvent): void => {
    event.preventDefault();
    add(chosen.name, filterOf(used, value));
    setValue("");
    setOpen(false);
  };
  return (
    <form className="condition-form" onSubmit={submit} onKeyDown={(event) => event.key === "Escape" && setOpen(false)}>
      <select className="field" aria-label="Column" value={chosen.name} onChange={(event) => setColumn(event.target.value)} autoFocus>
        {columns.map((one) => (
          <option key={one.name}>{one.name}</option>
        ))}
      </select>
      <select className="field" aria-label="Condition" value={used} onChange={(event) => setOperator(event.target.value as Operator)}>
        {OPERATORS.filter((one) => fitting.includes(one.id)).map((one) => (
          <option key={one.id} value={one.id}>
            {one.label}
          </option>
        ))}
      </select>
      {!free && <input className="field" aria-label="Value" value={value} onChange={(event) => setValue(event.target.value)} placeholder={chosen.type} />}
      <Button kind="primary" type="submit">
        Add
      </Button>
      <Button kind="quiet" icon="cross" aria-label="No filter" onClick={() => setOpen(false)} />
    </form>
  );
}
