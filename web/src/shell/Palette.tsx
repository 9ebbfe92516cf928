/** Ctrl-K: go anywhere, do anything, by a few letters. */

import { useQuery } from "@tanstack/react-query";
import { useNavigate } from "@tanstack/react-router";
import { useEffect, useRef, useState } from "react";

import * as queries from "../api/queries";
import { live, useLive } from "../live/stream";
import { Icon, type IconName } from "../parts/Icon";
import { LayerMark } from "../parts/parts";
import type { Layer } from "../api/types";
import { best } from "./find";
import { signOut } from "./session";
import { toggle } from "./theme";

interface Entry {
  id: string;
  label: string;
  note: string;
  icon?: IconName;
  layer?: Layer;
  run: () => void;
}

export function Palette({ close }: { close: () => void }) {
  const [text, setText] = useState("");
  const [at, setAt] = useState(0);
  const list = useRef<HTMLUListElement>(null);
  const before = useRef(document.activeElement);
  const shown = best(text, useEntries(), (entry) => `${entry.label} ${entry.note}`, 40);
  const chosen = Math.min(at, shown.length - 1);

  useEffect(() => {
    const element = before.current;
    return () => (element instanceof HTMLElement ? element.focus() : undefined);
  }, []);
  useEffect(() => {
    list.current?.children[chosen]?.scrollIntoView({ block: "nearest" });
  }, [chosen]);

  const run = (entry: Entry | undefined): void => {
    if (entry === undefined) return;
    close();
    entry.run();
  };
  const pressed = (event: React.KeyboardEvent): void => {
    if (event.key === "Escape") close();
    else if (event.key === "Enter") run(shown[chosen]);
    else if (event.key === "ArrowDown") setAt(Math.min(chosen + 1, shown.length - 1));
    else if (event.key === "ArrowUp") setAt(Math.max(chosen - 1, 0));
    else if (event.key !== "Tab") return;
    event.preventDefault();
  };

  return (
    <div className="palette-back" onMouseDown={(event) => event.target === event.currentTarget && close()}>
      <div className="palette" role="dialog" aria-modal="true" aria-label="Search and commands">
        <input
          autoFocus
          value={text}
          placeholder="Go to a table, a dashboard, a page…"
          aria-label="Search and commands"
          role="combobox"
          aria-expanded="true"
          aria-controls="palette-list"
          aria-activedescendant={shown[chosen] ? `palette-${chosen}` : undefined}
          onChange={(event) => {
            setText(event.target.value);
            setAt(0);
          }}
          onKeyDown={pressed}
        />
        {shown.length === 0 && <p className="palette-none">Nothing fits.</p>}
        <ul ref={list} id="palette-list" role="listbox" aria-label="What fits">
          {shown.map((entry, index) => (
            <li key={entry.id} id={`palette-${index}`} role="option" aria-selected={index === chosen} onMouseMove={() => setAt(index)} onClick={() => run(entry)}>
              {entry.layer ? <LayerMark layer={entry.layer} /> : <Icon name={entry.icon ?? "right"} size={14} />}
              <strong>{entry.label}</strong>
              <span className="quiet">{entry.note}</span>
            </li>
          ))}
        </ul>
      </div>
    </div>
  );
}

function useEntries(): Entry[] {
  const navigate = useNavigate();
  const tables = (useQuery(queries.tables).data ?? []).filter((table) => !table.table.endsWith("__quarantine"));
  const dashboards = useQuery(queries.dashboards).data ?? [];
  const paused = useLive().connection === "paused";
  const go = (to: string) => () => void navigate({ to });
  return [
    { id: "home", label: "Home", note: "page", icon: "home", run: go("/") },
    { id: "flow", label: "Flow", note: "page", icon: "flow", run: go("/flow") },
    { id: "tables", label: "Tables", note: "page", icon: "tables", run: go("/tables") },
    { id: "sql", label: "SQL", note: "page", icon: "sql", run: go("/sql") },
    { id: "quality", label: "Quality", note: "page", icon: "quality", run: go("/quality") },
    { id: "dashboards", label: "Dashboards", note: "page", icon: "dashboards", run: go("/dashboards") },
    ...tables.map((table): Entry => ({ id: `t:${table.table}`, label: table.table, note: "table", layer: table.layer, run: go(`/tables/${encodeURIComponent(table.table)}`) })),
    ...dashboards.map((one): Entry => ({ id: `d:${one.name}`, label: one.title, note: "dashboard", icon: "dashboards", run: go(`/dashboards/${encodeURIComponent(one.name)}`) })),
    ...tables.map((table): Entry => ({
      id: `q:${table.table}`,
      label: `select from ${table.table}`,
      note: "SQL",
      icon: "sql",
      run: () => void navigate({ to: "/sql", search: { q: `select * from ${table.table} limit 100` } }),
    })),
    { id: "theme", label: "Change between dark and light", note: "command", icon: "moon", run: toggle },
    { id: "pause", label: paused ? "Go on with live updates" : "Pause live updates", note: "command", icon: paused ? "play" : "pause", run: () => (paused ? live.resume() : live.pause()) },
    { id: "out", label: "Sign out", note: "command", icon: "out", run: () => void signOut() },
  ];
}
