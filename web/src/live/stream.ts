/** The one live stream of a tab: connects, resumes after the last event id, and tells whoever draws, at most once per frame. */

import { useSyncExternalStore } from "react";

import { ApiError, send } from "../api/client";
import type { Overview, TableState } from "../api/types";
import { EventReader, type ServerEvent } from "./events";
import { merged, type OverviewChange } from "./merge";

export type Connection = "connecting" | "live" | "paused" | "lost";

export interface Live {
  connection: Connection;
  overview: Overview | null;
  /** When the last event came, in milliseconds of this page's clock. */
  heard: number | null;
  /** Why the stream is lost. */
  reason: string | null;
}

const RETRY_MS = [500, 1000, 2000, 5000, 10_000];
/** The server says something at least every 15 s, a comment if nothing else; three missed are a dead connection. */
const SILENCE_MS = 45_000;

class LiveStream {
  private state: Live = { connection: "connecting", overview: null, heard: null, reason: null };
  private shown: Live = this.state;
  private readonly listeners = new Set<() => void>();
  private abort: AbortController | null = null;
  private lastId: string | null = null;
  private tries = 0;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private frame: number | null = null;

  readonly subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  readonly snapshot = (): Live => this.shown;

  start(): void {
    if (this.abort !== null || this.state.connection === "paused") return;
    void this.follow();
  }

  /** Forget everything: another person may sign in. */
  stop(): void {
    this.close();
    this.lastId = null;
    this.set({ connection: "connecting", overview: null, heard: null, reason: null });
  }

  /** Stand still at what is shown; before there is anything, nothing happens. */
  pause(): void {
    if (this.state.overview === null) return;
    this.close();
    this.set({ connection: "paused", reason: null });
  }

  resume(): void {
    this.set({ connection: "connecting" });
    this.tries = 0;
    this.start();
  }

  private close(): void {
    clearTimeout(this.timer);
    this.abort?.abort();
    this.abort = null;
  }

  private async follow(): Promise<void> {
    const abort = new AbortController();
    this.abort = abort;
    let silence: ReturnType<typeof setTimeout> | undefined;
    const heard = (): void => {
      clearTimeout(silence);
      silence = setTimeout(() => abort.abort(), SILENCE_MS);
    };
    let reason = "the stream ended";
    try {
      heard();
      const headers: Record<string, string> = this.lastId === null ? {} : { "Last-Event-ID": this.lastId };
      const answer = await send("/api/live", { accept: "text/event-stream", signal: abort.signal, headers });
      const reader = answer.body?.pipeThrough(new TextDecoderStream()).getReader();
      const events = new EventReader();
      this.tries = 0;
      for (;;) {
        const piece = await reader?.read();
        if (piece === undefined || piece.done) break;
        heard();
        for (const event of events.read(piece.value)) this.take(event);
      }
    } catch (error) {
      reason = error instanceof Error ? error.message : String(error);
      if (error instanceof ApiError && error.status === 401) this.lastId = null;
    }
    clearTimeout(silence);
    if (this.abort !== abort) return;
    this.abort = null;
    this.set({ connection: "lost", reason });
    const wait = RETRY_MS[Math.min(this.tries, RETRY_MS.length - 1)] ?? 10_000;
    this.tries += 1;
    this.timer = setTimeout(() => this.start(), wait);
  }

  private take(event: ServerEvent): void {
    if (event.id !== null) this.lastId = event.id;
    const state: Partial<Live> = { connection: "live", heard: Date.now(), reason: null };
    if (event.event === "overview" || event.event === "delta") {
      state.overview = merged(this.state.overview, JSON.parse(event.data) as OverviewChange, event.event === "overview");
    }
    this.set(state);
  }

  private set(change: Partial<Live>): void {
    this.state = { ...this.state, ...change };
    // Events that come between two frames are drawn together. A hidden tab has no frames: it draws when it is seen again.
    if (this.frame !== null) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = null;
      this.shown = this.state;
      for (const listener of this.listeners) listener();
    });
  }
}

export const live = new LiveStream();

export function useLive(): Live {
  return useSyncExternalStore(live.subscribe, live.snapshot);
}

/** The part of an overview about one table. */
export function tableState(overview: Overview | null, table: string): TableState | null {
  return overview?.tables.find((one) => one.table === table) ?? null;
}
