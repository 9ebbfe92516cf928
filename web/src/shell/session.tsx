/** Signing in and out: a key in a form, or the token of the address that `lodestream up` prints. */

import { useQuery, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, type ReactNode, useEffect, useState } from "react";

import { ApiError, call, onSignedOut, setCsrf } from "../api/client";
import * as queries from "../api/queries";
import type { Session } from "../api/types";
import { live } from "../live/stream";
import { Mark } from "../parts/Icon";
import { Button, Command, Problem } from "../parts/parts";
import "./session.css";

/** The token of the fragment, taken out of the address at once so that nobody copies it with the page. */
function tokenOfFragment(): string | null {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token !== null) history.replaceState(history.state, "", location.pathname + location.search);
  return token;
}

const token = tokenOfFragment();
let exchange: Promise<void> | null = null;

function signIn(key: string): Promise<Session> {
  return call<Session>("/api/session", { method: "POST", body: { key }, mayBeSignedOut: true });
}

/** Shows its children to who is signed in, and the form to everybody else. */
export function SignedIn({ children }: { children: ReactNode }) {
  const client = useQueryClient();
  const [refused, setRefused] = useState<unknown>(null);
  const [exchanged, setExchanged] = useState(token === null);
  const who = useQuery({ ...queries.session, enabled: exchanged });

  useEffect(() => {
    if (token === null) return;
    exchange ??= signIn(token).then(() => undefined);
    exchange.catch(setRefused).finally(() => setExchanged(true));
  }, []);

  useEffect(() => {
    onSignedOut(() => {
      live.stop();
      // Only a session that was there can end; a failed sign-in stays where it is.
      if (client.getQueryData(queries.session.queryKey)) {
        client.removeQueries({ predicate: (query) => query.queryKey[0] !== queries.session.queryKey[0] });
        void client.resetQueries({ queryKey: queries.session.queryKey });
      }
    });
  }, [client]);

  useEffect(() => {
    if (who.data) {
      setCsrf(who.data.csrf ?? "");
      live.start();
    }
  }, [who.data]);

  if (who.data) return children;
  if (!exchanged || who.isPending) return null;
  if (who.error instanceof ApiError && who.error.status !== 401 && who.error.status !== 403) {
    return (
      <main className="signin">
        <Problem error={who.error} retry={() => void who.refetch()} />
      </main>
    );
  }
  return <SignInForm refused={refused} done={() => void who.refetch()} />;
}

function SignInForm({ refused, done }: { refused: unknown; done: () => void }) {
  const [key, setKey] = useState("");
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<unknown>(refused);

  const submit = (event: FormEvent): void => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    signIn(key.trim())
      .then(done)
      .catch(setError)
      .finally(() => setBusy(false));
  };

  return (
    <main className="signin">
      <form className="signin-card" onSubmit={submit}>
        <Mark size={36} />
        <h1>Sign in to Lodestream</h1>
        <p className="quiet">With an API key, or the token that lodestream up printed. It is exchanged for a session and kept nowhere.</p>
        <label htmlFor="key">Key</label>
        <input id="key" className="field mono" type="password" value={key} onChange={(event) => setKey(event.target.value)} placeholder="ls_…" autoComplete="off" autoFocus required />
        {error !== null && <Problem error={error} />}
        <Button kind="primary" type="submit" disabled={busy || key.trim() === ""}>
          Sign in
        </Button>
        <div className="signin-help">
          <p className="quiet">No key yet? Somebody with access to the project makes one:</p>
          <Command text="lodestream keys create NAME" />
        </div>
      </form>
    </main>
  );
}

/** End the session here and on the server. */
export async function signOut(): Promise<void> {
  await call("/api/session", { method: "DELETE", mayBeSignedOut: true }).catch(() => undefined);
  live.stop();
  location.assign("/");
}
