/** The tree of tables that one may see, with a filter. */

import { useQuery } from "@tanstack/react-query";
import { useDeferredValue, useState } from "react";

import * as queries from "../api/queries";
import { LAYERS, type TableEntry } from "../api/types";
import { best } from "../shell/find";
import { Icon } from "./Icon";
import { Empty, LayerMark, Problem, SearchBox, Waiting } from "./parts";
import "./catalog.css";

interface Props {
  pick: (table: string) => void;
  label: string;
  current?: string;
  find?: string;
  setFind?: (text: string) => void;
  note?: (table: TableEntry) => React.ReactNode;
}

const SHOWN_MAX = 500;

/** Quarantines are tables too; they are listed when somebody looks for them. */
export function listed(tables: TableEntry[], wanted: string): TableEntry[] {
  return wanted.includes("__") || /quar/i.test(wanted) ? tables : tables.filter((table) => !table.table.endsWith("__quarantine"));
}

export function Catalog({ pick, label, current, find, setFind, note }: Props) {
  const [own, setOwn] = useState("");
  const [shut, setShut] = useState<ReadonlySet<string>>(new Set());
  const text = find ?? own;
  const wanted = useDeferredValue(text);
  const { data, error, refetch } = useQuery(queries.tables);
  if (error) return <Problem error={error} retry={() => void refetch()} />;
  if (data === undefined) return <Waiting lines={8} />;
  const fitting = best(wanted, listed(data, wanted), (table) => table.table, SHOWN_MAX);
  const turn = (layer: string): void => setShut((known) => new Set(known.has(layer) ? [...known].filter((one) => one !== layer) : [...known, layer]));
  return (
    <div className="catalog">
      <div className="catalog-find">
        <SearchBox value={text} change={setFind ?? setOwn} label="Find a table" />
      </div>
      <div className="catalog-tree" title={label}>
        {LAYERS.map((layer) => {
          const tables = fitting.filter((table) => table.layer === layer).sort((one, other) => (one.name < other.name ? -1 : 1));
          if (tables.length === 0) return null;
          return (
            <section key={layer}>
              <button type="button" className="catalog-layer" aria-expanded={!shut.has(layer)} onClick={() => turn(layer)}>
                <Icon name={shut.has(layer) ? "right" : "down"} size={12} />
                <LayerMark layer={layer} word />
                <span className="quiet num">{tables.length}</span>
              </button>
              {!shut.has(layer) && (
                <ul>
                  {tables.map((table) => (
                    <li key={table.table}>
                      <button type="button" className="catalog-table" aria-current={table.table === current ? "true" : undefined} title={table.table} onClick={() => pick(table.table)}>
                        <span>{table.name}</span>
                        {note?.(table)}
                      </button>
                    </li>
                  ))}
                </ul>
              )}
            </section>
          );
        })}
        {data.length > 0 && fitting.length === 0 && <p className="catalog-none quiet">No table fits.</p>}
        {data.length === 0 && <Empty title="No tables">You see tables that somebody granted you: lodestream grant.</Empty>}
      </div>
    </div>
  );
}
