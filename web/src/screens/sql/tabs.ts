/** The tabs of the SQL page, kept in this browser. */

export interface SqlTab {
  id: string;
  text: string;
}

export interface SqlTabs {
  tabs: SqlTab[];
  current: string;
}

const KEY = "lodestream.sql";

/** A title out of the text: the first table that is read, else the first words. */
export function titleOf(text: string): string {
  const table = /\b(?:from|join|describe)\s+([\w".]+)/i.exec(text)?.[1]?.replaceAll('"', "");
  const title = table ?? text.trim().split(/\s+/).slice(0, 3).join(" ");
  return title === "" ? "New query" : title.slice(0, 28);
}

/** What was open, with the query of the address in a tab of its own unless it is open already. */
export function opened(stored: string | null, asked: string | undefined, id: () => string): SqlTabs {
  let known: SqlTabs = { tabs: [], current: "" };
  try {
    const found = JSON.parse(stored ?? "null") as SqlTabs | null;
    if (Array.isArray(found?.tabs)) known = { tabs: found.tabs.filter((tab) => typeof tab.id === "string" && typeof tab.text === "string"), current: found.current };
  } catch {
    // What another version kept, or somebody edited: begin anew.
  }
  if (asked !== undefined) {
    const same = known.tabs.find((tab) => tab.text.trim() === asked.trim()) ?? known.tabs.find((tab) => tab.text.trim() === "");
    if (same) return { tabs: known.tabs.map((tab) => (tab === same ? { ...tab, text: asked } : tab)), current: same.id };
    const tab = { id: id(), text: asked };
    return { tabs: [...known.tabs, tab], current: tab.id };
  }
  if (known.tabs.length === 0) {
    const tab = { id: id(), text: "" };
    return { tabs: [tab], current: tab.id };
  }
  return known.tabs.some((tab) => tab.id === known.current) ? known : { ...known, current: known.tabs[0]?.id ?? "" };
}

export function load(asked: string | undefined): SqlTabs {
  return opened(localStorage.getItem(KEY), asked, newId);
}

export function save(tabs: SqlTabs): void {
  localStorage.setItem(KEY, JSON.stringify(tabs));
}

/** `crypto.randomUUID` is not there where the page came over plain HTTP from another host. */
export function newId(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
