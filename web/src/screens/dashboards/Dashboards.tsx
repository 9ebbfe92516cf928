/** The dashboards of the project. */

import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";

import * as queries from "../../api/queries";
import { Icon } from "../../parts/Icon";
import { Empty, Problem, Waiting } from "../../parts/parts";
import "./dashboards.css";

const EXAMPLE = `# dashboards/orders.yaml
title: Orders
panels:
  - {title: Revenue, kind: number, sql: "select sum(revenue) from gold.revenue_per_minute"}`;

export function DashboardsScreen() {
  const { data, error, refetch } = useQuery(queries.dashboards);
  return (
    <div className="page">
      <header className="page-head">
        <h1>Dashboards</h1>
      </header>
      {error ? (
        <Problem error={error} retry={() => void refetch()} />
      ) : data === undefined ? (
        <Waiting />
      ) : data.length === 0 ? (
        <Empty title="No dashboards yet" command={EXAMPLE}>
          A dashboard is a file of the project: it is reviewed and versioned like the tables it shows.
        </Empty>
      ) : (
        <ul className="boards">
          {data.map((board) => (
            <li key={board.name}>
              <Link to="/dashboards/$name" params={{ name: board.name }} className="panel board">
                <Icon name="dashboards" />
                <strong>{board.title}</strong>
                <span className="quiet">{board.comment || `dashboards/${board.name}.yaml`}</span>
              </Link>
            </li>
          ))}
        </ul>
      )}
    </div>
  );
}
