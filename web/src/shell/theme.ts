/** Dark or light: the system's choice until a person makes theirs. */

import { useSyncExternalStore } from "react";

export type Theme = "system" | "light" | "dark";
const KEY = "lodestream.theme";
const listeners = new Set<() => void>();
const system = matchMedia("(prefers-color-scheme: dark)");
system.addEventListener("change", tell);

function stored(): Theme {
  const text = localStorage.getItem(KEY);
  return text === "light" || text === "dark" ? text : "system";
}

function tell(): void {
  apply();
  for (const listener of listeners) listener();
}

export function apply(): void {
  document.documentElement.dataset["theme"] = shown();
}

export function shown(): "light" | "dark" {
  const theme = stored();
  return theme === "system" ? (system.matches ? "dark" : "light") : theme;
}

export function choose(theme: Theme): void {
  if (theme === "system") localStorage.removeItem(KEY);
  else localStorage.setItem(KEY, theme);
  tell();
}

export function toggle(): void {
  const next = shown() === "dark" ? "light" : "dark";
  choose(next === (system.matches ? "dark" : "light") ? "system" : next);
}

export function useTheme(): "light" | "dark" {
  return useSyncExternalStore(
    (listener) => {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    shown,
  );
}
