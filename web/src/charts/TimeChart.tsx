/** Lines over time (uPlot). New points are put in without drawing the chart anew, so nothing jumps. */

import { useEffect, useMemo, useRef, useState } from "react";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";

import { short, tick, time } from "../format";
import { useTheme } from "../shell/theme";
import "./charts.css";

export interface Series {
  name: string;
  /** A colour of tokens.css, such as `--gold`. */
  color: string;
  values: readonly (number | null)[];
}

/** Half of what the axis shows around a lone point, in seconds. */
const HALF_S = 1800;

/** What the axis shows: from the first time to the last, or some room around a lone one. */
function spread(times: ArrayLike<number>, low: number, high: number): [number, number] {
  const [first, last] = [times[0], times[times.length - 1]];
  return first !== undefined && first === last ? [first - HALF_S, first + HALF_S] : [low, high];
}

interface Props {
  /** Microseconds since 1970, UTC. */
  times: readonly number[];
  series: readonly Series[];
  format: (value: number | null | undefined) => string;
  height: number;
  label: string;
  area?: boolean;
}

export function TimeChart({ times, series, format, height, label, area = true }: Props) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot | null>(null);
  const theme = useTheme();
  const [at, setAt] = useState<number | null>(null);
  const shape = series.map((one) => `${one.name}\0${one.color}`).join("\0\0");
  const data = useMemo<uPlot.AlignedData>(
    () => [times.map((t) => t / 1e6), ...series.map((one) => [...one.values])] as uPlot.AlignedData,
    [times, series],
  );
  const latest = useRef(data);
  latest.current = data;

  useEffect(() => {
    const element = box.current;
    if (element === null) return;
    const style = getComputedStyle(document.documentElement);
    const color = (name: string): string => style.getPropertyValue(name).trim();
    const names = shape === "" ? [] : shape.split("\0\0").map((one) => one.split("\0") as [string, string]);
    const font = `11px ${color("--font")}`;
    const axis = { stroke: color("--text-3"), font, ticks: { show: false }, grid: { stroke: color("--line"), width: 1 } };
    const made = new uPlot(
      {
        width: element.clientWidth,
        height,
        padding: [10, 8, 0, 0],
        legend: { show: false },
        tzDate: (t) => uPlot.tzDate(new Date(t * 1000), "Etc/UTC"),
        cursor: { y: false, points: { size: 6 }, drag: { x: false, y: false } },
        scales: { x: { range: (plot, low, high) => spread(plot.data[0], low, high) }, y: { range: (_plot, low, high) => [Math.min(0, low ?? 0), (high ?? 0) <= 0 ? 1 : (high ?? 1) * 1.08] } },
        axes: [
          { ...axis, size: 26, gap: 6, space: 90, grid: { show: false }, values: (_plot, values, _axis, _space, step) => values.map((value) => tick(value, step)) },
          { ...axis, size: 48, gap: 8, space: 36, values: (_plot, values) => values.map(short) },
        ],
        series: [
          {},
          ...names.map(([name, variable]): uPlot.Series => ({
            label: name,
            stroke: color(variable),
            width: 1.5,
            // A few points make no line: then they are drawn themselves.
            points: { show: (_plot, _series, first, last) => last - first < 3, size: 6, fill: color(variable) },
            ...(area ? { fill: `color-mix(in srgb, ${color(variable)} 9%, transparent)` } : {}),
          })),
        ],
        hooks: { setCursor: [(self) => setAt(self.cursor.idx ?? null)] },
      },
      latest.current,
      element,
    );
    plot.current = made;
    const resized = new ResizeObserver(() => made.setSize({ width: element.clientWidth, height }));
    resized.observe(element);
    return () => {
      resized.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, [shape, theme, height, area]);

  useEffect(() => plot.current?.setData(data), [data]);

  const point = at ?? times.length - 1;
  return (
    <figure className="time-chart">
      <figcaption className="chart-legend">
        <span className="hidden-text">{label}</span>
        {series.map((one) => (
          <span key={one.name}>
            <i style={{ background: `var(${one.color})` }} aria-hidden="true" />
            {one.name}
            <b className="num">{format(one.values[point])}</b>
          </span>
        ))}
        <span className="chart-at num">{times[point] === undefined ? "" : `${time(times[point])} UTC`}</span>
      </figcaption>
      <div ref={box} style={{ height }} role="img" aria-label={label} />
    </figure>
  );
}
