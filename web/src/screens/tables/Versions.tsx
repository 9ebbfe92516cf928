/** The versions of a table, newest first; each can be looked at. */

import { useInfiniteQuery } from "@tanstack/react-query";

import * as queries from "../../api/queries";
import { bytes, count, timeOf } from "../../format";
import { tableState, useLive } from "../../live/stream";
import { Button, Problem, Waiting } from "../../parts/parts";

export function Versions({ table, look }: { table: string; look: (version: number) => void }) {
  const found = useInfiniteQuery(queries.history(table));
  const newest = tableState(useLive().overview, table)?.version ?? null;
  if (found.error) return <Problem error={found.error} retry={() => void found.refetch()} />;
  if (found.data === undefined) return <Waiting lines={8} />;
  const versions = found.data.pages.flat();
  const most = Math.max(1, ...versions.map((one) => one.rows_added ?? 0));
  const first = versions[0]?.version;
  return (
    <div className="versions">
      {newest !== null && first !== undefined && newest > first && (
        <Button kind="quiet" icon="replay" onClick={() => void found.refetch()}>
          {newest - first} newer
        </Button>
      )}
      <table className="list">
        <thead>
          <tr>
            <th className="right">version</th>
            <th>when (UTC)</th>
            <th>operation</th>
            <th className="right">rows added</th>
            <th className="wide" aria-label="rows added, as a bar" />
            <th className="right">files</th>
            <th className="right">bytes</th>
            <th aria-label="look at it" />
          </tr>
        </thead>
        <tbody>
          {versions.map((one) => (
            <tr key={one.version}>
              <td className="right">
                <b>{one.version}</b>
              </td>
              <td>{timeOf(one.time)}</td>
              <td className="quiet">{one.operation.toLowerCase()}</td>
              <td className="right">{count(one.rows_added)}</td>
              <td className="wide">
                <span className="version-bar" style={{ width: `${((one.rows_added ?? 0) / most) * 100}%` }} />
              </td>
              <td className="right">
                {one.files_added === undefined ? "–" : `+${one.files_added}`}
                {one.files_removed ? ` −${one.files_removed}` : ""}
              </td>
              <td className="right quiet">{bytes(one.bytes_added)}</td>
              <td className="right">
                <Button kind="quiet" onClick={() => look(one.version)}>
                  Look
                </Button>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
      {found.hasNextPage && (
        <Button onClick={() => void found.fetchNextPage()} disabled={found.isFetchingNextPage}>
          Older
        </Button>
      )}
    </div>
  );
}
