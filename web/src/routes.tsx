/** The addresses of the console. What a page shows is in its address, so that a link shows the same. */

import { createRootRoute, createRoute, createRouter, lazyRouteComponent } from "@tanstack/react-router";

import { path } from "./api/client";
import { Lost, NotFound } from "./shell/Lost";
import { Shell } from "./shell/Shell";

type Search = Record<string, unknown>;

const text = (value: unknown): string | undefined => (typeof value === "string" && value !== "" ? value : undefined);

function oneOf<T extends string>(values: readonly T[], value: unknown): T | undefined {
  return values.find((one) => one === value);
}

const root = createRootRoute({ component: Shell, notFoundComponent: NotFound, errorComponent: Lost });

const home = createRoute({ getParentRoute: () => root, path: "/", component: lazyRouteComponent(() => import("./screens/home/Home"), "Home") });

const flow = createRoute({
  getParentRoute: () => root,
  path: "/flow",
  validateSearch: (search: Search): { view?: "list" | undefined; node?: string | undefined; find?: string | undefined } => ({
    view: oneOf(["list"] as const, search["view"]),
    node: text(search["node"]),
    find: text(search["find"]),
  }),
  component: lazyRouteComponent(() => import("./screens/flow/Flow"), "FlowScreen"),
});

export const TABLE_TABS = ["preview", "schema", "versions", "quality", "lineage"] as const;
export type TableTab = (typeof TABLE_TABS)[number];

export interface TableSearch {
  tab?: TableTab | undefined;
  as_of?: string | undefined;
  column?: string | undefined;
  sort?: string | undefined;
  where?: string | undefined;
}

const tables = createRoute({
  getParentRoute: () => root,
  path: "/tables",
  validateSearch: (search: Search): { find?: string | undefined } => ({ find: text(search["find"]) }),
  component: lazyRouteComponent(() => import("./screens/tables/Tables"), "TablesScreen"),
});

const table = createRoute({
  getParentRoute: () => tables,
  path: "$table",
  validateSearch: (search: Search): TableSearch => ({
    tab: oneOf(TABLE_TABS, search["tab"]),
    as_of: text(search["as_of"]),
    column: text(search["column"]),
    sort: text(search["sort"]),
    where: text(search["where"]),
  }),
  component: lazyRouteComponent(() => import("./screens/tables/TablePage"), "TablePage"),
});

const sql = createRoute({
  getParentRoute: () => root,
  path: "/sql",
  validateSearch: (search: Search): { q?: string | undefined } => ({ q: text(search["q"]) }),
  component: lazyRouteComponent(() => import("./screens/sql/Sql"), "SqlScreen"),
});

const quality = createRoute({
  getParentRoute: () => root,
  path: "/quality",
  component: lazyRouteComponent(() => import("./screens/quality/Quality"), "QualityScreen"),
});

const tableQuality = createRoute({
  getParentRoute: () => quality,
  path: "$table",
  validateSearch: (search: Search): { reason?: string | undefined } => ({ reason: text(search["reason"]) }),
  component: lazyRouteComponent(() => import("./screens/quality/TableQuality"), "TableQuality"),
});

const dashboards = createRoute({
  getParentRoute: () => root,
  path: "/dashboards",
  component: lazyRouteComponent(() => import("./screens/dashboards/Dashboards"), "DashboardsScreen"),
});

const dashboard = createRoute({
  getParentRoute: () => root,
  path: "/dashboards/$name",
  component: lazyRouteComponent(() => import("./screens/dashboards/DashboardPage"), "DashboardPage"),
});

export const router = createRouter({
  routeTree: root.addChildren([home, flow, tables.addChildren([table]), sql, quality.addChildren([tableQuality]), dashboards, dashboard]),
  defaultPreload: "intent",
  defaultPendingMs: 200,
  scrollRestoration: false,
  // Plain texts, so that a person can read and write an address: `as_of=1`, not `as_of=%221%22`.
  parseSearch: (search) => Object.fromEntries(new URLSearchParams(search)),
  stringifySearch: (search) => path("", search as Record<string, string | undefined>),
});

declare module "@tanstack/react-router" {
  interface Register {
    router: typeof router;
  }
}
