/** The quality tab: rules over time, and the way to the rows that broke them. */

import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";

import * as queries from "../../api/queries";
import { Problem, Waiting } from "../../parts/parts";
import { Rules } from "../quality/Rules";

export function TableRules({ table }: { table: string }) {
  const { data, error, refetch } = useQuery({ ...queries.quality(table), refetchInterval: 5000 });
  if (error) return <Problem error={error} retry={() => void refetch()} />;
  if (data === undefined) return <Waiting />;
  return (
    <>
      <Rules quality={data} />
      <p className="table-more">
        <Link to="/quality/$table" params={{ table }} className="link">
          Rows in quarantine
        </Link>
      </p>
    </>
  );
}
