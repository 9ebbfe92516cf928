/** Pages for what is not there and for what broke. */

import { Link } from "@tanstack/react-router";

import { Button, Empty, Problem } from "../parts/parts";

export function NotFound() {
  return (
    <Empty title="There is nothing at this address">
      <Link to="/" className="link">
        Go home
      </Link>
    </Empty>
  );
}

export function Lost({ error, reset }: { error: unknown; reset: () => void }) {
  return (
    <div className="page">
      <Problem error={error} />
      <Button onClick={reset} icon="replay">
        Draw the page again
      </Button>
    </div>
  );
}
