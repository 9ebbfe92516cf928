/** Numbers, sizes, durations and times as people read them; always the same width of words for the same kind of thing. */

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const exact = new Intl.NumberFormat("en-US", { maximumFractionDigits: 12 });
export const NONE = "–";

/** 336776 → "336,776". */
export function count(value: number | null | undefined): string {
  return value === null || value === undefined ? NONE : whole.format(value);
}

/** 336776 → "336.8k": three or four figures, for places where the size matters and the last digit does not. */
export function short(value: number | null | undefined): string {
  if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
  const size = Math.abs(value);
  for (const [unit, name] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]] as const) {
    if (size >= unit * 0.9995) return `${trimmed(value / unit)}${name}`;
  }
  return trimmed(value);
}

function trimmed(value: number): string {
  const size = Math.abs(value);
  const digits = size >= 100 || size === 0 ? 0 : size >= 10 ? 1 : 2;
  return value.toFixed(digits).replace(/\.0+$/, "").replace(/(\.\d*?)0+$/, "$1");
}

/** Rows per second. */
export function rate(value: number | null | undefined): string {
  if (value === null || value === undefined) return NONE;
  if (value > 0 && value < 0.01) return "<0.01";
  const text = short(value);
  // Always three figures, so that a number that changes twice a second keeps its width: 4k and 4.01k are 4.00k and 4.01k.
  const parts = /^(\d+)(?:\.(\d+))?([kMGT]?)$/.exec(text);
  if (value === 0 || parts === null) return text;
  const digits = 3 - (parts[1] ?? "").length;
  return digits <= 0 || (parts[3] === "" && Number.isInteger(value)) ? text : `${parts[1]}.${(parts[2] ?? "").padEnd(digits, "0")}${parts[3]}`;
}

/** 1536 → "1.5 kB". */
export function bytes(value: number | null | undefined): string {
  if (value === null || value === undefined) return NONE;
  if (value < 1000) return `${whole.format(value)} B`;
  const units = ["kB", "MB", "GB", "TB", "PB"];
  let size = value;
  let unit = -1;
  do {
    size /= 1000;
    unit += 1;
  } while (size >= 999.5 && unit < units.length - 1);
  return `${size >= 100 ? size.toFixed(0) : size.toFixed(1)} ${units[unit]}`;
}

const UNITS = [
  [86_400, "d", 3600, "h"],
  [3600, "h", 60, "min"],
  [60, "min", 1, "s"],
] as const;

/** 0.42 → "420 ms", 75 → "1 min 15 s", 7200 → "2 h", 200000 → "2 d 7 h". */
export function duration(seconds: number | null | undefined): string {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return NONE;
  const negative = seconds < 0 ? "−" : "";
  const size = Math.abs(seconds);
  if (size < 0.9995) return `${negative}${Math.round(size * 1000)} ms`;
  if (size < 9.95) return `${negative}${size.toFixed(1)} s`;
  if (size < 59.5) return `${negative}${Math.round(size)} s`;
  for (const [unit, big, per, small] of UNITS) {
    const parts = Math.round(size / per) * per;
    if (parts < unit) continue;
    const first = Math.floor(parts / unit);
    const second = Math.round((parts - first * unit) / per);
    return `${negative}${whole.format(first)} ${big}${second === 0 || first >= 100 ? "" : ` ${second} ${small}`}`;
  }
  return NONE;
}

const iso = (milliseconds: number): string => {
  const date = new Date(milliseconds);
  return Number.isNaN(date.getTime()) ? NONE : date.toISOString();
};

/** Microseconds since 1970 → "2013-07-01 12:00:03" (UTC). */
export function time(us: number | null | undefined): string {
  return us === null || us === undefined ? NONE : iso(us / 1000).slice(0, 19).replace("T", " ");
}

/** ISO text → "2013-07-01 12:00:03" (UTC). */
export function timeOf(text: string | null | undefined): string {
  if (!text) return NONE;
  const found = iso(Date.parse(text));
  return found === NONE ? text : found.slice(0, 19).replace("T", " ");
}

/** Microseconds → "12:00:03". */
export function clock(us: number): string {
  return iso(us / 1000).slice(11, 19);
}

/** A mark on an axis of seconds since 1970, as fine as the step between marks: "12:00:30", "12:00", "07-01", "2013-07". */
export function tick(seconds: number, step: number): string {
  const text = iso(seconds * 1000);
  if (step < 60) return text.slice(11, 19);
  if (step < 86_400) return text.slice(11, 16) === "00:00" ? text.slice(5, 10) : text.slice(11, 16);
  return step < 28 * 86_400 ? text.slice(5, 10) : text.slice(0, 7);
}

/** How long ago, in one unit: "4 s ago". */
export function ago(seconds: number | null | undefined): string {
  if (seconds === null || seconds === undefined) return NONE;
  if (seconds < 1) return "now";
  const [unit, name] = ([[86_400, "d"], [3600, "h"], [60, "min"], [1, "s"]] as const).find(([size]) => seconds >= size) ?? [1, "s"];
  return `${whole.format(Math.floor(seconds / unit))} ${name} ago`;
}

const NUMERIC = /^(u?(tiny|small|big|huge)?int(eger)?\d*|float\d*|half_?float|double|real|long|short|byte|decimal\d*|numeric)\b/i;
const TIMES = /^timestamp/i;

export function isNumeric(type: string): boolean {
  return NUMERIC.test(type);
}

export function isTime(type: string): boolean {
  return TIMES.test(type) || /^date/i.test(type);
}

/** One cell of a grid as text. */
export function cell(value: unknown, type: string): string {
  if (value === null || value === undefined) return "null";
  if (typeof value === "number") return /^(float|double|real|half)/i.test(type) ? exact.format(Number(value.toPrecision(12))) : String(value);
  if (typeof value === "string") return TIMES.test(type) && /^\d{4}-\d\d-\d\dT/.test(value) ? value.replace("T", " ").replace(/Z$/, "") : value;
  if (typeof value === "boolean") return String(value);
  return JSON.stringify(value);
}

/** "1 row", "2 rows". */
export function plural(number: number, word: string, words = `${word}s`): string {
  return `${count(number)} ${number === 1 ? word : words}`;
}
