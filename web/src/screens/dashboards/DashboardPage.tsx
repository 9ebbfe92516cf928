/** One dashboard: panels over queries, asked for anew while the page is looked at; figures change in their place. */

import { useQuery } from "@tanstack/react-query";
import { Link, useParams } from "@tanstack/react-router";
import { Fragment, memo, useMemo } from "react";

import { Picture } from "../../charts/Picture";
import * as queries from "../../api/queries";
import type { PanelData, PanelSpec } from "../../api/types";
import { cell, count, isNumeric, short } from "../../format";
import { live, useLive } from "../../live/stream";
import { Grid } from "../../parts/Grid";
import { Icon } from "../../parts/Icon";
import { Button, Empty, Panel, Problem, Waiting } from "../../parts/parts";
import { picture } from "../sql/chart";
import { blocks, type Word } from "./text";
import "./dashboards.css";

const ROW = 48;
const GAP = 16;
const HEAD = 42;

export function DashboardPage() {
  const { name } = useParams({ from: "/dashboards/$name" });
  const board = useQuery(queries.dashboard(name));
  const { connection, overview } = useLive();
  const paused = connection === "paused";
  const data = useQuery({
    ...queries.dashboardData(name),
    enabled: board.data !== undefined,
    refetchInterval: paused || board.data === undefined ? false : Math.max(500, board.data.refresh_s * 1000),
  });
  if (board.error) return <Problem error={board.error} retry={() => void board.refetch()} />;
  if (board.data === undefined) return <Waiting />;
  return (
    <div className="page">
      <header className="page-head">
        <h1>{board.data.title}</h1>
        {board.data.comment && <span className="quiet">{board.data.comment}</span>}
        <div className="page-actions">
          {data.error && (
            <span className="board-stale" title={data.error.message}>
              <Icon name="warn" size={14} /> not up to date
            </span>
          )}
          <Button
            icon={paused ? "play" : "pause"}
            disabled={overview === null}
            onClick={() => (paused ? live.resume() : live.pause())}
          >
            {paused ? "Go on" : "Pause"}
          </Button>
        </div>
      </header>
      <div className="board-grid">
        {board.data.panels.map((panel, index) => (
          <PanelView key={`${index} ${panel.title}`} panel={panel} data={data.data?.[index]} />
        ))}
      </div>
    </div>
  );
}

const PanelView = memo(function PanelView({ panel, data }: { panel: PanelSpec; data: PanelData | undefined }) {
  const height = panel.height * ROW + (panel.height - 1) * GAP;
  return (
    <div className="board-panel" style={{ gridColumn: `span ${panel.width}`, gridRow: `span ${panel.height}` }} data-panel={panel.title}>
      <Panel
        title={panel.title}
        actions={
          panel.sql && (
            <Link to="/sql" search={{ q: panel.sql.trim() }} className="board-drill" aria-label={`The query of ${panel.title}`} title="The query">
              <Icon name="sql" size={14} />
            </Link>
          )
        }
      >
        <div className={`board-body board-body-${panel.kind}`} {...(panel.kind === "bar" || panel.kind === "text" ? { tabIndex: 0, role: "group", "aria-label": panel.title } : {})}>
          {panel.kind === "text" ? <Text text={panel.text ?? ""} /> : data === undefined ? null : data.error ? <Problem error={new Error(data.error)} /> : <Shown panel={panel} data={data} height={height - HEAD} />}
        </div>
      </Panel>
    </div>
  );
});

function Shown({ panel, data, height }: { panel: PanelSpec; data: PanelData; height: number }) {
  const chosen = useMemo(
    () => (panel.kind === "line" || panel.kind === "bar" ? picture(data, { x: panel.x, y: panel.y, series: panel.series, kind: panel.kind }) : null),
    [panel, data],
  );
  if (panel.kind === "number") return <NumberPanel panel={panel} data={data} />;
  if (data.rows.length === 0) return <Empty title="No rows" />;
  if (panel.kind === "table") return <Grid plain columns={data.columns} rows={data.rows} label={panel.title} />;
  if (chosen === null) return <Empty title="Nothing to draw">{`x: ${panel.x ?? "–"}, y: ${panel.y.join(", ")}`}</Empty>;
  return <Picture chosen={chosen} height={height - 46} label={panel.title} unit={panel.unit} />;
}

function NumberPanel({ panel, data }: { panel: PanelSpec; data: PanelData }) {
  const value = data.rows[0]?.[Math.max(0, data.columns.findIndex((column) => column.name === panel.y[0]))];
  const type = data.columns[0]?.type ?? "";
  const number = isNumeric(type) && value !== null && value !== undefined ? Number(value) : null;
  const said = number === null ? cell(value, type) : Number.isInteger(number) ? count(number) : Math.abs(number) >= 1000 ? short(number) : String(Number(number.toPrecision(4)));
  return (
    <p className="board-number num" title={number === null ? undefined : String(value)}>
      {value === undefined ? "–" : said}
      {panel.unit && <small>{panel.unit}</small>}
    </p>
  );
}

function Text({ text }: { text: string }) {
  return (
    <div className="board-text">
      {blocks(text).map((block, index) =>
        block.kind === "paragraph" ? (
          <p key={index}>
            <Words words={block.words} />
          </p>
        ) : (
          <ul key={index}>
            {block.items.map((item, at) => (
              <li key={at}>
                <Words words={item} />
              </li>
            ))}
          </ul>
        ),
      )}
    </div>
  );
}

function Words({ words }: { words: Word[] }) {
  return words.map((word, index) => (word.bold ? <strong key={index}>{word.text}</strong> : <Fragment key={index}>{word.text}</Fragment>));
}
