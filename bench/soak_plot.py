"""Series over time as one SVG picture: a small plot each, with the slope of the second half."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

Points = Sequence[tuple[float, float]]
"""(minutes, value) in order of time."""
_WIDTH, _HEIGHT, _COLUMNS = 270, 150, 3
_LEFT, _TOP, _RIGHT, _BOTTOM = 48, 28, 12, 20
_COLOURS = ("#2563eb", "#d97706", "#059669", "#9333ea")


def svg(title: str, panels: Mapping[str, Mapping[str, Points]], slopes: Mapping[str, tuple[float, float]]) -> str:
    """The picture.

    Args:
        title: above all.
        panels: plots by their title; in each, series by name.
        slopes: by series name, the straight line through its second half as (value at zero minutes, per minute).
    """
    rows = -(-len(panels) // _COLUMNS)
    width, height = _COLUMNS * _WIDTH, rows * _HEIGHT + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        ' font-family="system-ui, sans-serif" font-size="10">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="12" y="20" font-size="13" font-weight="600" fill="#111827">{escape(title)}</text>',
    ]
    for number, (name, series) in enumerate(panels.items()):
        parts.append(f'<g transform="translate({number % _COLUMNS * _WIDTH} {number // _COLUMNS * _HEIGHT + 30})">')
        parts += _panel(name, series, slopes)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>", ""])


def _panel(name: str, series: Mapping[str, Points], slopes: Mapping[str, tuple[float, float]]) -> list[str]:
    points = [point for one in series.values() for point in one] or [(0.0, 0.0)]
    last = max(at for at, _ in points) or 1.0
    top = _round_up(max(value for _, value in points))
    across, down = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def place(at: float, value: float) -> str:
        return f"{_LEFT + at / last * across:.1f},{_TOP + (1 - min(max(value / top, 0), 1)) * down:.1f}"

    parts = [f'<text x="{_LEFT}" y="14" font-weight="600" fill="#111827">{escape(name)}</text>']
    for share in (0, 0.5, 1):
        y = _TOP + (1 - share) * down
        parts.append(f'<path d="M{_LEFT} {y:.1f}h{across}" stroke="#e5e7eb"/>')
        parts.append(
            f'<text x="{_LEFT - 5}" y="{y + 3:.1f}" text-anchor="end" fill="#6b7280">{_short(share * top)}</text>'
        )
    for share, text in ((0, "0"), (1, f"{last:.3g} min")):
        anchor = "end" if share else "start"
        parts.append(
            f'<text x="{_LEFT + share * across}" y="{_HEIGHT - 6}" text-anchor="{anchor}" fill="#6b7280">{text}</text>'
        )
    for number, (label, one) in enumerate(series.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        line = " ".join(place(at, value) for at, value in one)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1" opacity="0.55"/>')
        if label in slopes:
            start, step = slopes[label]
            ends = " ".join(place(at, start + step * at) for at in (last / 2, last))
            parts.append(f'<polyline points="{ends}" fill="none" stroke="{colour}" stroke-width="2"/>')
        if len(series) > 1:
            x = _WIDTH - _RIGHT - 45 * (len(series) - number - 1)
            short = escape(label.rpartition(" ")[2])
            parts.append(f'<text x="{x}" y="14" text-anchor="end" fill="{colour}">{short}</text>')
    return parts


def _round_up(value: float) -> float:
    if value <= 0:
        return 1.0
    power = 10.0 ** len(str(int(value))) / 10
    return next(step * power for step in (1, 1.5, 2, 3, 4, 5, 6, 8, 10, 20) if step * power >= value)


def _short(value: float) -> str:
    return f"{value / 1000:.3g}k" if value >= 10_000 else f"{value:.4g}"
