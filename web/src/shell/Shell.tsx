/** What is around every page: where one is, how fresh it is, who one is. */

import { useQuery } from "@tanstack/react-query";
import { Link, Outlet } from "@tanstack/react-router";
import { lazy, Suspense, useEffect, useState } from "react";

import * as queries from "../api/queries";
import { count } from "../format";
import { live, useLive } from "../live/stream";
import { Icon, type IconName, Mark } from "../parts/Icon";
import { Button } from "../parts/parts";
import { signOut } from "./session";
import { toggle, useTheme } from "./theme";
import "./shell.css";

const palette = () => import("./Palette").then((module) => ({ default: module.Palette }));
const Palette = lazy(palette);

const PLACES: readonly { to: "/" | "/flow" | "/tables" | "/sql" | "/quality" | "/dashboards"; label: string; icon: IconName }[] = [
  { to: "/", label: "Home", icon: "home" },
  { to: "/flow", label: "Flow", icon: "flow" },
  { to: "/tables", label: "Tables", icon: "tables" },
  { to: "/sql", label: "SQL", icon: "sql" },
  { to: "/quality", label: "Quality", icon: "quality" },
  { to: "/dashboards", label: "Dashboards", icon: "dashboards" },
];

export function Shell() {
  const [asked, setAsked] = useState(false);

  // Fetched once the page stands, so that the first letters after Ctrl-K are not lost.
  useEffect(() => {
    const timer = setTimeout(() => void palette(), 1000);
    return () => clearTimeout(timer);
  }, []);

  useEffect(() => {
    const pressed = (event: KeyboardEvent): void => {
      if ((event.metaKey || event.ctrlKey) && event.key.toLowerCase() === "k") {
        event.preventDefault();
        setAsked((open) => !open);
      }
    };
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  }, []);

  return (
    <div className="shell">
      <a className="skip" href="#main">
        To the content
      </a>
      <Sidebar openPalette={() => setAsked(true)} />
      <main id="main" className="main" tabIndex={-1}>
        <Outlet />
      </main>
      {asked && (
        <Suspense fallback={null}>
          <Palette close={() => setAsked(false)} />
        </Suspense>
      )}
    </div>
  );
}

function Sidebar({ openPalette }: { openPalette: () => void }) {
  const { overview } = useLive();
  const open = overview?.totals.quarantine_open ?? 0;
  return (
    <nav className="sidebar" aria-label="Console">
      <div className="brand">
        <Mark />
        <div className="brand-text">
          <strong>Lodestream</strong>
          <span>{overview?.project ?? " "}</span>
        </div>
      </div>
      <button type="button" className="sidebar-search" onClick={openPalette} aria-keyshortcuts="Control+K Meta+K">
        <Icon name="search" size={14} />
        <span>Search</span>
        <kbd aria-hidden="true">{/Mac|iP/.test(navigator.platform) ? "⌘K" : "Ctrl K"}</kbd>
      </button>
      <ul>
        {PLACES.map((place) => (
          <li key={place.to}>
            <Link to={place.to} className="place" activeProps={{ "aria-current": "page" }} activeOptions={{ exact: place.to === "/", includeSearch: false }}>
              <Icon name={place.icon} />
              <span>{place.label}</span>
              {place.to === "/quality" && open > 0 && (
                <span className="place-note num" title={`${count(open)} rows in quarantine`}>
                  {count(open)}
                </span>
              )}
            </Link>
          </li>
        ))}
      </ul>
      <div className="sidebar-foot">
        <LiveStatus />
        <Who />
      </div>
    </nav>
  );
}

const SAID = { connecting: "Connecting", live: "Live", paused: "Paused", lost: "Reconnecting" } as const;

/** A dot, a word and a pause button; what went wrong is its title, never a message that pops up. */
function LiveStatus() {
  const { connection, overview, reason } = useLive();
  const paused = connection === "paused";
  return (
    <div className={`live live-${connection}`} title={reason ?? undefined} data-connection={connection}>
      <i aria-hidden="true" />
      <span role="status">{SAID[connection]}</span>
      <Button
        kind="quiet"
        icon={paused ? "play" : "pause"}
        aria-label={paused ? "Go on with live updates" : "Pause live updates"}
        title={paused ? "Go on" : "Pause"}
        disabled={overview === null}
        onClick={() => (paused ? live.resume() : live.pause())}
      />
    </div>
  );
}

function Who() {
  const who = useQuery(queries.session).data;
  const theme = useTheme();
  return (
    <div className="who">
      <span className="who-name" title={who ? [who.kind, ...who.groups].join(" · ") : undefined}>
        <Icon name="user" size={14} />
        <span>{who?.name}</span>
      </span>
      <Button kind="quiet" icon={theme === "dark" ? "sun" : "moon"} aria-label={theme === "dark" ? "Light colours" : "Dark colours"} title={theme === "dark" ? "Light" : "Dark"} onClick={toggle} />
      <Button kind="quiet" icon="out" aria-label="Sign out" title="Sign out" onClick={() => void signOut()} />
    </div>
  );
}
