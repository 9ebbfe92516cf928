/** Small line icons, 16 × 16, in the colour of the text. */

const PATHS = {
  home: "M2.5 7 8 2.5 13.5 7v6a.5.5 0 0 1-.5.5H9.5v-4h-3v4H3a.5.5 0 0 1-.5-.5z",
  flow: "M1.5 4h3v3h-3zM11.5 2h3v3h-3zM11.5 11h3v3h-3zM4.5 5.5h2.5c1.5 0 1-2 2.5-2h2M7 5.5c2 0 1 7 3 7h1.5",
  tables: "M2 3h12v10H2zM2 6.5h12M6.5 6.5V13",
  sql: "M3 4.5 6.5 8 3 11.5M8 12h5",
  quality: "M8 1.750 13.5 4v4c0 3.200-2.300 5.300-5.5 6.250C4.800 13.300 2.5 11.200 2.5 8V4zM5.5 8l1.800 1.800L10.700 6.200",
  dashboards: "M2 2.5h5v6H2zM9 2.5h5v3.5H9zM9 8.5h5v5H9zM2 11h5v2.5H2z",
  search: "M7 2.5a4.5 4.5 0 1 1 0 9 4.5 4.5 0 0 1 0-9zM10.300 10.300l3.200 3.200",
  sun: "M8 5.250a2.750 2.750 0 1 1 0 5.5 2.750 2.750 0 0 1 0-5.5zM8 1.250v1.5M8 13.250v1.5M1.250 8h1.5M13.250 8h1.5M3.250 3.250l1 1M11.750 11.750l1 1M12.750 3.250l-1 1M4.250 11.750l-1 1",
  moon: "M13.250 9.600A5.600 5.600 0 0 1 6.400 2.750a5.600 5.600 0 1 0 6.850 6.850z",
  pause: "M5.5 3.5v9M10.5 3.5v9",
  play: "M5 3.250v9.5L12.5 8z",
  check: "M3.250 8.5 6.5 11.750 12.750 4.750",
  cross: "M4 4l8 8M12 4l-8 8",
  plus: "M8 3v10M3 8h10",
  minus: "M3 8h10",
  down: "M4 6l4 4 4-4",
  right: "M6 4l4 4-4 4",
  warn: "M8 2.250 14.250 13.250H1.750zM8 6.5v3M8 11.250v.25",
  copy: "M5.5 5.5h8v8h-8zM10.5 5.5v-3h-8v8h3",
  download: "M8 2.5v7.5M4.750 7 8 10.250 11.250 7M2.750 13.250h10.5",
  link: "M6.5 9.5l3-3M7 4.5l1.250-1.250a2.800 2.800 0 0 1 4 4L11 8.5M9 11.5l-1.250 1.250a2.800 2.800 0 0 1-4-4L5 7.5",
  stop: "M4 4h8v8H4z",
  chart: "M2.5 13.5h11M4 11V8M7 11V4M10 11V6.5M13 11V9",
  grid: "M2 3h12v10H2zM2 6.5h12M2 10h12M7 3v10",
  key: "M10.5 2.5a3 3 0 1 1-2.600 4.5L3 11.900V13.5h2v-1.5h1.5v-1.5H8",
  replay: "M3 8a5 5 0 1 0 1.700-3.750M4.5 1.750v2.750h2.750",
  fit: "M2.5 6V2.5H6M10 2.5h3.5V6M13.5 10v3.5H10M6 13.5H2.5V10",
  clock: "M8 2a6 6 0 1 1 0 12A6 6 0 0 1 8 2zM8 4.750V8l2.250 1.5",
  out: "M6.5 2.5h-4v11h4M10 5l3 3-3 3M6 8h7",
  source: "M8 2.250c3 0 5 .9 5 2s-2 2-5 2-5-.9-5-2 2-2 5-2zM3 4.250v7.5c0 1.100 2 2 5 2s5-.9 5-2v-7.5M3 8c0 1.100 2 2 5 2s5-.9 5-2",
  filter: "M2 3h12l-4.5 5.5V13l-3-1.5v-3z",
  user: "M8 2.5a2.750 2.750 0 1 1 0 5.5 2.750 2.750 0 0 1 0-5.5zM2.750 13.5c.5-2.750 2.5-4 5.250-4s4.750 1.250 5.250 4",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name, size = 16 }: { name: IconName; size?: number }) {
  return (
    <svg className="icon" width={size} height={size} viewBox="0 0 16 16" aria-hidden="true" focusable="false">
      <path d={PATHS[name]} fill="none" stroke="currentColor" strokeWidth="1.35" strokeLinecap="round" strokeLinejoin="round" />
    </svg>
  );
}

/** The mark: three veins. */
export function Mark({ size = 22 }: { size?: number }) {
  return (
    <svg width={size} height={size} viewBox="0 0 32 32" aria-hidden="true" focusable="false">
      <g fill="none" strokeWidth="3.4" strokeLinecap="round">
        <path d="M4 8c6.5 0 7.5 4 12 4s5.5-4 12-4" stroke="var(--bronze)" />
        <path d="M4 16c6.5 0 7.5 4 12 4s5.5-4 12-4" stroke="var(--silver)" />
        <path d="M4 24c6.5 0 7.5 4 12 4s5.5-4 12-4" stroke="var(--gold)" />
      </g>
    </svg>
  );
}
