/** The small parts every screen is made of. */

import { type ButtonHTMLAttributes, type ReactNode, useState } from "react";

import { ApiError } from "../api/client";
import type { Layer } from "../api/types";
import { Icon, type IconName } from "./Icon";
import "./parts.css";

export function Button({
  icon,
  kind = "plain",
  children,
  ...rest
}: { icon?: IconName; kind?: "plain" | "primary" | "quiet" | "danger" } & ButtonHTMLAttributes<HTMLButtonElement>) {
  return (
    <button type="button" {...rest} className={`button button-${kind} ${children === undefined ? "button-icon" : ""} ${rest.className ?? ""}`}>
      {icon && <Icon name={icon} size={14} />}
      {children}
    </button>
  );
}

export function Panel({ title, actions, children, className = "" }: { title?: ReactNode; actions?: ReactNode; children: ReactNode; className?: string }) {
  return (
    <section className={`panel ${className}`}>
      {(title !== undefined || actions !== undefined) && (
        <header className="panel-head">
          {title !== undefined && <h2>{title}</h2>}
          {actions !== undefined && <div className="panel-actions">{actions}</div>}
        </header>
      )}
      {children}
    </section>
  );
}

/** A page that has nothing yet says what fills it. */
export function Empty({ title, children, command }: { title: string; children?: ReactNode; command?: string }) {
  return (
    <div className="empty">
      <p className="empty-title">{title}</p>
      {children && <div className="empty-text">{children}</div>}
      {command && <Command text={command} />}
    </div>
  );
}

/** A command to copy. */
export function Command({ text }: { text: string }) {
  return (
    <div className="command">
      <code>{text}</code>
      <CopyButton text={text} label="Copy the command" />
    </div>
  );
}

export function CopyButton({ text, label = "Copy" }: { text: string; label?: string }) {
  const [done, setDone] = useState(false);
  const copy = (): void => {
    void navigator.clipboard.writeText(text).then(() => {
      setDone(true);
      setTimeout(() => setDone(false), 1200);
    });
  };
  return <Button kind="quiet" icon={done ? "check" : "copy"} aria-label={done ? "Copied" : label} title={label} onClick={copy} />;
}

/** An error, and what to do about it. */
export function Problem({ error, retry }: { error: unknown; retry?: () => void }) {
  const message = error instanceof Error ? error.message : String(error);
  const known = error instanceof ApiError ? error : null;
  return (
    <div className="problem" role="alert">
      <Icon name="warn" />
      <div className="problem-text">
        <p>{message}</p>
        {known && known.facts.length > 0 && (
          <dl className="problem-facts">
            {known.facts.map(([name, value]) => (
              <div key={name}>
                <dt>{name}</dt>
                <dd className="mono">{value}</dd>
              </div>
            ))}
          </dl>
        )}
        {known?.fix && <p className="problem-fix">{known.fix}</p>}
        {known?.retryAfter && <p className="problem-fix">Try again in {known.retryAfter} s.</p>}
      </div>
      {retry && (
        <Button kind="plain" icon="replay" onClick={retry}>
          Again
        </Button>
      )}
    </div>
  );
}

/** Loading: quiet bars that hold the place, shown only when it takes a while. */
export function Waiting({ lines = 3 }: { lines?: number }) {
  return (
    <div className="waiting" role="status" aria-label="Loading">
      {Array.from({ length: lines }, (_, index) => (
        <span key={index} />
      ))}
    </div>
  );
}

const TONES: Record<string, "good" | "warn" | "bad"> = { running: "good", idle: "good", stalled: "warn", failed: "bad", damaged: "bad" };

/** How a state is coloured. */
export function tone(state: string): "good" | "warn" | "bad" | "none" {
  return TONES[state] ?? "none";
}

export function State({ state, quiet = false }: { state: string; quiet?: boolean }) {
  return (
    <span className={`state state-${tone(state)} state-is-${state}`}>
      <i aria-hidden="true" />
      <span className={quiet ? "hidden-text" : ""}>{state.replaceAll("_", " ")}</span>
    </span>
  );
}

export function LayerMark({ layer, word = false }: { layer: Layer | null; word?: boolean }) {
  return (
    <span className={`layer layer-${layer ?? "none"}`} title={layer ?? undefined}>
      <i aria-hidden="true" />
      {word ? layer : <span className="hidden-text">{layer}</span>}
    </span>
  );
}

export function Badge({ children, tone: kind = "none", title }: { children: ReactNode; tone?: "none" | "good" | "warn" | "bad" | "gold"; title?: string }) {
  return (
    <span className={`badge badge-${kind}`} title={title}>
      {children}
    </span>
  );
}

export interface TabItem<T extends string> {
  id: T;
  label: string;
  note?: ReactNode;
}

/** Tabs with the keys of the ARIA pattern: arrows move, Home and End jump. */
export function Tabs<T extends string>({ items, current, choose, label }: { items: readonly TabItem<T>[]; current: T; choose: (id: T) => void; label: string }) {
  const move = (event: React.KeyboardEvent<HTMLDivElement>): void => {
    const at = items.findIndex((item) => item.id === current);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: items.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const next = items[(to + items.length) % items.length];
    if (next === undefined) return;
    choose(next.id);
    const buttons = event.currentTarget.querySelectorAll<HTMLButtonElement>("[role=tab]");
    buttons[items.indexOf(next)]?.focus();
  };
  return (
    <div className="tabs" role="tablist" aria-label={label} onKeyDown={move}>
      {items.map((item) => (
        <button
          key={item.id}
          type="button"
          role="tab"
          aria-selected={item.id === current}
          tabIndex={item.id === current ? 0 : -1}
          className="tab"
          onClick={() => choose(item.id)}
        >
          {item.label}
          {item.note !== undefined && <span className="tab-note">{item.note}</span>}
        </button>
      ))}
    </div>
  );
}

/** Two or three choices side by side. */
export function Choice<T extends string>({ items, current, choose, label }: { items: readonly { id: T; label: string; icon?: IconName }[]; current: T; choose: (id: T) => void; label: string }) {
  return (
    <div className="choice" role="group" aria-label={label}>
      {items.map((item) => (
        <button key={item.id} type="button" aria-pressed={item.id === current} onClick={() => choose(item.id)}>
          {item.icon && <Icon name={item.icon} size={14} />}
          {item.label}
        </button>
      ))}
    </div>
  );
}

export function SearchBox({ value, change, label, placeholder, autoFocus }: { value: string; change: (text: string) => void; label: string; placeholder?: string; autoFocus?: boolean }) {
  return (
    <label className="search">
      <Icon name="search" size={14} />
      <span className="hidden-text">{label}</span>
      <input type="search" value={value} placeholder={placeholder ?? label} onChange={(event) => change(event.target.value)} spellCheck={false} autoComplete="off" autoFocus={autoFocus} />
    </label>
  );
}
