/** A grid that draws only the cells in sight: rows and columns of any number, sorted by a click, walked by arrow keys. */

import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "react";

import { cell, isNumeric } from "../format";
import { inSight, offsets, sorted, type Sort, widths } from "./rows";
import "./grid.css";

const ROW = 28;
const HEAD = 34;

interface Props {
  columns: readonly { name: string; type: string }[];
  rows: readonly unknown[][];
  label: string;
  /** Without the types of columns in its head, for small places. */
  plain?: boolean;
  /** When given, sorting is asked of the server; else the rows at hand are sorted. */
  sort?: Sort | null;
  onSort?: (sort: Sort | null) => void;
  /** Called when the last rows come into sight. */
  onEnd?: () => void;
}

export function Grid({ columns, rows, label, plain = false, sort: given, onSort, onEnd }: Props) {
  const box = useRef<HTMLDivElement>(null);
  const [own, setOwn] = useState<Sort | null>(null);
  const [active, setActive] = useState<{ row: number; column: number } | null>(null);
  const sort = onSort ? (given ?? null) : own;
  const shown = useMemo(() => (onSort ? rows : sorted(rows, sort, columns)), [rows, sort, columns, onSort]);
  const sizes = useMemo(() => widths(columns, rows, plain), [columns, rows, plain]);
  const gutter = Math.max(36, String(rows.length).length * 8 + 18);

  const starts = useMemo(() => offsets(sizes, gutter), [sizes, gutter]);
  const seen = useSeen(box);
  // Rows are all as high, so what is in sight is a division; columns differ, so it is a search.
  const rowsSeen = inSight(shown.length, (index) => HEAD + index * ROW, seen.top, seen.top + seen.height, 10);
  const columnsSeen = inSight(columns.length, (index) => starts[index] ?? 0, seen.left, seen.left + seen.width, 2);
  useEffect(() => setActive(null), [columns]);

  const last = rowsSeen.at(-1) ?? -1;
  useEffect(() => {
    if (onEnd && shown.length > 0 && last >= shown.length - 1) onEnd();
  }, [last, shown.length, onEnd]);

  const turn = (name: string): void => {
    const next: Sort | null = sort?.column !== name ? { column: name, down: false } : sort.down ? null : { column: name, down: true };
    if (onSort) onSort(next);
    else setOwn(next);
  };

  const pressed = (event: React.KeyboardEvent): void => {
    const { row, column } = active ?? { row: 0, column: 0 };
    const page = Math.max(1, Math.floor(((box.current?.clientHeight ?? 0) - HEAD) / ROW) - 1);
    const moves: Record<string, [number, number]> = {
      ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1],
      PageDown: [page, 0], PageUp: [-page, 0], Home: [0, -columns.length], End: [0, columns.length],
    };
    const move = moves[event.key];
    if ((event.ctrlKey || event.metaKey) && event.key === "c" && active && String(getSelection() ?? "") === "") {
      void navigator.clipboard.writeText(cell(shown[row]?.[column], columns[column]?.type ?? ""));
      return;
    }
    if (move === undefined) return;
    event.preventDefault();
    const next = active === null ? { row: 0, column: 0 } : {
      row: Math.min(Math.max(row + move[0], 0), shown.length - 1),
      column: Math.min(Math.max(column + move[1], 0), columns.length - 1),
    };
    setActive(next);
    if (box.current) reveal(box.current, HEAD + next.row * ROW, starts[next.column] ?? 0, sizes[next.column] ?? 0);
  };

  const width = starts.at(-1) ?? 0;
  return (
    <div
      ref={box}
      className="grid"
      role="grid"
      aria-label={label}
      aria-rowcount={shown.length + 1}
      aria-colcount={columns.length}
      aria-activedescendant={active ? `cell-${active.row}-${active.column}` : undefined}
      tabIndex={0}
      onKeyDown={pressed}
    >
      <div className="grid-all" style={{ height: HEAD + shown.length * ROW, width }} role="presentation">
        <div className="grid-head" style={{ width, height: HEAD }} role="row" aria-rowindex={1}>
          {columnsSeen.map((index) => {
            const column = columns[index];
            if (column === undefined) return null;
            const by = sort?.column === column.name ? sort : null;
            return (
              <div
                key={index}
                role="columnheader"
                aria-colindex={index + 1}
                aria-sort={by ? (by.down ? "descending" : "ascending") : "none"}
                className={`grid-column ${isNumeric(column.type) ? "grid-right" : ""}`}
                style={{ left: starts[index] ?? 0, width: sizes[index] ?? 0 }}
              >
                <button type="button" tabIndex={-1} title={`${column.name} ${column.type}`} onClick={() => turn(column.name)}>
                  <span>{column.name}</span>
                  <em>{by ? (by.down ? "↓" : "↑") : plain ? "" : column.type.toLowerCase()}</em>
                </button>
              </div>
            );
          })}
        </div>
        {rowsSeen.map((row) => (
          <div key={row} className="grid-row" role="row" aria-rowindex={row + 2} style={{ transform: `translateY(${HEAD + row * ROW}px)`, width, height: ROW }}>
            <span className="grid-number" style={{ width: gutter }} aria-hidden="true">
              {row + 1}
            </span>
            {columnsSeen.map((index) => {
              const value = shown[row]?.[index];
              const type = columns[index]?.type ?? "";
              return (
                <div
                  key={index}
                  id={`cell-${row}-${index}`}
                  role="gridcell"
                  aria-colindex={index + 1}
                  className={`grid-cell ${value === null || value === undefined ? "grid-null" : isNumeric(type) ? "grid-right" : ""} ${active?.row === row && active.column === index ? "grid-active" : ""}`}
                  style={{ left: starts[index] ?? 0, width: sizes[index] ?? 0 }}
                  onMouseDown={() => setActive({ row: row, column: index })}
                  title={(sizes[index] ?? 0) >= 360 ? cell(value, type) : undefined}
                >
                  {cell(value, type)}
                </div>
              );
            })}
          </div>
        ))}
      </div>
    </div>
  );
}

/** The part of a box that is in sight, once per frame. */
function useSeen(box: React.RefObject<HTMLDivElement | null>): { top: number; left: number; width: number; height: number } {
  const [seen, setSeen] = useState({ top: 0, left: 0, width: 0, height: 0 });
  useLayoutEffect(() => {
    const element = box.current;
    if (element === null) return;
    let frame = 0;
    const look = (): void => {
      frame = 0;
      setSeen({ top: element.scrollTop, left: element.scrollLeft, width: element.clientWidth, height: element.clientHeight });
    };
    const later = (): void => {
      if (frame === 0) frame = requestAnimationFrame(look);
    };
    look();
    const resized = new ResizeObserver(later);
    resized.observe(element);
    element.addEventListener("scroll", later, { passive: true });
    return () => {
      cancelAnimationFrame(frame);
      resized.disconnect();
      element.removeEventListener("scroll", later);
    };
  }, [box]);
  return seen;
}

/** Scroll no more than is needed to show a cell beside the head. */
function reveal(box: HTMLDivElement, top: number, left: number, width: number): void {
  if (top < box.scrollTop + HEAD) box.scrollTop = top - HEAD;
  else if (top + ROW > box.scrollTop + box.clientHeight) box.scrollTop = top + ROW - box.clientHeight;
  if (left < box.scrollLeft) box.scrollLeft = left;
  else if (left + width > box.scrollLeft + box.clientWidth) box.scrollLeft = left + width - box.clientWidth;
}
