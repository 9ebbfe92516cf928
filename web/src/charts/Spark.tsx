/** A line without axes, drawn in as little as a cell. */

export function sparkPath(values: readonly (number | null)[], width: number, height: number): string {
  const known = values.filter((value): value is number => value !== null);
  const top = Math.max(...known, 0) || 1;
  const step = values.length > 1 ? width / (values.length - 1) : 0;
  let open = false;
  return values
    .map((value, index) => {
      if (value === null) {
        open = false;
        return "";
      }
      const point = `${open ? "L" : "M"}${(index * step).toFixed(1)} ${(height - 1.5 - (value / top) * (height - 3)).toFixed(1)}`;
      open = true;
      return point;
    })
    .join("");
}

export function Spark({ values, color, width = 120, height = 28, label }: { values: readonly (number | null)[]; color: string; width?: number; height?: number; label: string }) {
  const path = sparkPath(values, width, height);
  return (
    <svg className="spark" viewBox={`0 0 ${width} ${height}`} width={width} height={height} preserveAspectRatio="none" role="img" aria-label={label}>
      {path !== "" && !path.includes("M", 1) && <path d={`${path}L${width} ${height}L0 ${height}Z`} fill={color} opacity="0.12" />}
      <path d={path} fill="none" stroke={color} strokeWidth="1.5" strokeLinejoin="round" vectorEffect="non-scaling-stroke" />
    </svg>
  );
}
