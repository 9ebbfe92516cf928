/** Draws what `picture` chose. */

import type { Picture as Chosen } from "../screens/sql/chart";
import { short } from "../format";
import { TimeChart } from "./TimeChart";
import "./charts.css";

const COLORS = ["--series-1", "--series-2", "--series-3", "--series-4", "--series-5", "--series-6", "--series-7", "--series-8"] as const;

export function Picture({ chosen, height, label, unit }: { chosen: Chosen; height: number; label: string; unit?: string | null }) {
  if (chosen.kind === "line") {
    return (
      <TimeChart
        label={label}
        times={chosen.times}
        series={chosen.series.map((one, index) => ({ ...one, color: COLORS[index % COLORS.length] ?? "--series-1" }))}
        format={short}
        height={height}
        area={chosen.series.length === 1}
      />
    );
  }
  return <Bars chosen={chosen} label={label} unit={unit ?? ""} />;
}

function Bars({ chosen, label, unit }: { chosen: Extract<Chosen, { kind: "bar" }>; label: string; unit: string }) {
  const low = Math.min(0, ...chosen.bars.map((bar) => bar.value));
  const top = Math.max(0, ...chosen.bars.map((bar) => bar.value));
  const span = top - low || 1;
  const at = (value: number): number => ((value - low) / span) * 100;
  return (
    <>
      <div className="bars num" role="img" aria-label={`${label}: ${chosen.bars.map((bar) => `${bar.name} ${short(bar.value)}`).join(", ")}`}>
        {chosen.bars.map((bar, index) => (
          <Bar key={`${bar.name}\0${index}`} name={bar.name} from={at(Math.min(0, bar.value))} to={at(Math.max(0, bar.value))} said={`${short(bar.value)}${unit && ` ${unit}`}`} bad={bar.value < 0} />
        ))}
      </div>
      {chosen.more > 0 && <p className="bars-more quiet">and {chosen.more} more</p>}
    </>
  );
}

function Bar({ name, from, to, said, bad }: { name: string; from: number; to: number; said: string; bad: boolean }) {
  return (
    <>
      <span className="bar-name" title={name}>
        {name}
      </span>
      <span className="bar-track">
        <i style={{ marginLeft: `${from}%`, width: `${to - from}%`, background: bad ? "var(--series-7)" : "var(--series-1)" }} />
      </span>
      <span className="bar-value">{said}</span>
    </>
  );
}
