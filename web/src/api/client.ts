/** Requests to the server that served this page; every error comes out as an ApiError with its fix. */

/** What the server refused, or that it could not be reached (status 0). */
export class ApiError extends Error {
  readonly status: number;
  readonly title: string;
  readonly fix: string | null;
  readonly retryAfter: number | null;
  /** What else the server says of it: `nearest`, `column`, `line`. */
  readonly facts: [string, string][];

  constructor(status: number, title: string, detail: string, fix: string | null = null, retryAfter: number | null = null, facts: [string, string][] = []) {
    super(detail);
    this.status = status;
    this.title = title;
    this.fix = fix;
    this.retryAfter = retryAfter;
    this.facts = facts;
  }
}

let csrf = "";
let signedOut: () => void = () => undefined;

/** Remember the token that writes carry, and whom to tell when the session is over. */
export function setCsrf(token: string): void {
  csrf = token;
}

export function onSignedOut(tell: () => void): void {
  signedOut = tell;
}

interface Ask {
  method?: string;
  body?: unknown;
  accept?: string;
  signal?: AbortSignal | undefined;
  headers?: Record<string, string>;
  /** A 401 is an answer here (sign-in, who am I), not the end of the session. */
  mayBeSignedOut?: boolean;
}

/** One request; the answer as it came. */
export async function send(path: string, ask: Ask = {}): Promise<Response> {
  const method = ask.method ?? "GET";
  const headers: Record<string, string> = { Accept: ask.accept ?? "application/json", ...ask.headers };
  if (ask.body !== undefined) headers["Content-Type"] = "application/json";
  if (method !== "GET") headers["X-Lodestream-CSRF"] = csrf;
  let answer: Response;
  try {
    answer = await fetch(path, {
      method,
      headers,
      body: ask.body === undefined ? null : JSON.stringify(ask.body),
      signal: ask.signal ?? null,
      credentials: "same-origin",
    });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError(0, "not reachable", "The server does not answer.", "Is it running? lodestream up");
  }
  if (answer.ok) return answer;
  if (answer.status === 401 && ask.mayBeSignedOut !== true) signedOut();
  throw await problem(answer);
}

/** One request; its JSON. */
export async function call<T>(path: string, ask: Ask = {}): Promise<T> {
  const answer = await send(path, ask);
  if (answer.status === 204) return undefined as T;
  return (await answer.json()) as T;
}

const KNOWN = new Set(["type", "title", "status", "detail", "fix", "instance"]);

/** A problem document (RFC 9457) as an error; whatever else came, in words. */
async function problem(answer: Response): Promise<ApiError> {
  const wait = Number(answer.headers.get("Retry-After"));
  const retryAfter = Number.isFinite(wait) && wait > 0 ? wait : null;
  try {
    const body = (await answer.json()) as Record<string, unknown>;
    const text = (name: string): string | null => (typeof body[name] === "string" ? body[name] : null);
    return new ApiError(
      answer.status,
      text("title") ?? answer.statusText,
      text("detail") ?? text("title") ?? "The server refused.",
      text("fix"),
      retryAfter,
      Object.entries(body).flatMap(([name, value]): [string, string][] =>
        KNOWN.has(name) || value === null || typeof value === "object" ? [] : [[name, String(value)]],
      ),
    );
  } catch {
    return new ApiError(answer.status, answer.statusText, `The server answered ${answer.status}.`, null, retryAfter);
  }
}

/** A path with its parameters; what is undefined, null or empty is left out. */
export function path(base: string, parameters: Record<string, string | number | boolean | null | undefined> = {}): string {
  const given = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const query = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
  return query === "" ? base : `${base}?${query}`;
}
