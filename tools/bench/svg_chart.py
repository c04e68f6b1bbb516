"""Line charts as SVG text, with the standard library alone: panels side by side under one title and one legend."""
import math
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

# Okabe and Ito's palette: told apart with any colour vision, and in print.
COLORS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"]
DASHES = {"solid": "", "dashed": "6 3", "dotted": "1.5 3"}
FONT = "font-family='Helvetica, Arial, DejaVu Sans, sans-serif'"
INK, FAINT, GRID = "#222222", "#666666", "#E4E4E4"

PANEL_WIDTH, PANEL_HEIGHT = 480, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 18, 34, 46  # from a panel's edge to its axes
HEAD = 64                                  # title, subtitle
LEGEND_ROW = 20
LOG_FROM = 40  # greatest / least value from which an axis is logarithmic


@dataclass
class Line:
    """`color` counts through the palette. style: a key of DASHES, or "points"."""
    points: list
    color: int = 0
    style: str = "solid"
    markers: bool = True


@dataclass
class Panel:
    title: str
    x_label: str
    y_label: str
    lines: list = field(default_factory=list)
    may_be_log: bool = False
    x_end: float = 0  # the axis reaches at least here


def nice_ticks(low, high, count=5):
    """Round values from at most low to at least high."""
    if not high > low:
        high = low + 1
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def log_ticks(low, high):
    """1, 2 and 5 times powers of ten around [low, high]; fewer of them over many decades."""
    low_power, high_power = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1,) if high_power - low_power > 4 else (1, 2, 5)
    ticks = [factor * 10.0 ** power for power in range(low_power, high_power + 1) for factor in factors]
    first = max(i for i, tick in enumerate(ticks) if tick <= low * (1 + 1e-9))
    last = min(i for i, tick in enumerate(ticks) if tick >= high * (1 - 1e-9))
    return ticks[first:max(last, first + 1) + 1]


def tick_texts(ticks):
    """One unit for all of an axis."""
    scale, unit = next(((scale, unit) for least, scale, unit in ((1e10, 1e9, "G"), (1e7, 1e6, "M"), (1e4, 1e3, "k"))
                        if ticks[-1] >= least), (1, ""))
    return [f"{tick / scale:g}{unit if tick else ''}" for tick in ticks]


class Axis:
    """Maps values to pixels between `begin` and `end`."""

    def __init__(self, values, begin, end, may_be_log=False, from_zero=True):
        low, high = (min(values), max(values)) if values else (0, 1)
        self.log = may_be_log and low > 0 and high / low >= LOG_FROM
        if self.log:
            self.ticks = log_ticks(low, high)
        else:
            self.ticks = nice_ticks(min(0, low) if from_zero else low, high)
        self.begin, self.end = begin, end

    def __call__(self, value):
        low, high = self.ticks[0], self.ticks[-1]
        if self.log:
            share = math.log(max(value, low) / low) / math.log(high / low)
        else:
            share = (value - low) / (high - low)
        return self.begin + (self.end - self.begin) * share


def text(x, y, content, size=11, color=INK, anchor="start", weight="normal", turn=None):
    rotate = f" transform='rotate({turn} {x:.1f} {y:.1f})'" if turn is not None else ""
    return (f"<text x='{x:.1f}' y='{y:.1f}' font-size='{size}' fill='{color}' text-anchor='{anchor}' "
            f"font-weight='{weight}' {FONT}{rotate}>{escape(content)}</text>")


def segment(x1, y1, x2, y2, color, width=1, dash=""):
    dashes = f" stroke-dasharray='{dash}'" if dash else ""
    return (f"<line x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}' stroke='{color}' "
            f"stroke-width='{width}'{dashes}/>")


def draw_axes(panel, x_axis, y_axis, left, top, right, bottom):
    parts = [text(left, top - 14, panel.title, 13, weight="bold")]
    for tick, label in zip(y_axis.ticks, tick_texts(y_axis.ticks)):
        y = y_axis(tick)
        parts += [segment(left, y, right, y, GRID), text(left - 7, y + 4, label, color=FAINT, anchor="end")]
    for tick, label in zip(x_axis.ticks, tick_texts(x_axis.ticks)):
        x = x_axis(tick)
        parts += [segment(x, bottom, x, bottom + 4, FAINT),
                  text(x, bottom + 17, label, color=FAINT, anchor="middle")]
    parts += [segment(left, bottom, right, bottom, FAINT),
              text((left + right) / 2, bottom + 36, panel.x_label, color=INK, anchor="middle"),
              text(left - 48, (top + bottom) / 2, panel.y_label, color=INK, anchor="middle", turn=-90)]
    return parts


def draw_line(line, x_axis, y_axis):
    color = COLORS[line.color % len(COLORS)]
    points = [(x_axis(x), y_axis(y)) for x, y in line.points]
    if line.style == "points":
        return [f"<circle cx='{x:.1f}' cy='{y:.1f}' r='2.2' fill='{color}' fill-opacity='0.55'/>" for x, y in points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dash = f" stroke-dasharray='{DASHES[line.style]}'" if DASHES[line.style] else ""
    parts = [f"<polyline points='{path}' fill='none' stroke='{color}' stroke-width='2' stroke-linejoin='round'{dash}/>"]
    if line.markers:
        fill = color if line.style == "solid" else "white"
        parts += [f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3.2' fill='{fill}' stroke='{color}' stroke-width='1.5'/>"
                  for x, y in points]
    return parts


def draw_panel(panel, x, y):
    left, right = x + LEFT, x + PANEL_WIDTH - RIGHT
    top, bottom = y + TOP, y + PANEL_HEIGHT - BOTTOM
    points = [point for line in panel.lines for point in line.points]
    x_axis = Axis([point[0] for point in points] + [panel.x_end], left, right)
    y_axis = Axis([point[1] for point in points], bottom, top, may_be_log=panel.may_be_log)
    parts = draw_axes(panel, x_axis, y_axis, left, top, right, bottom)
    if not points:
        parts.append(text((left + right) / 2, (top + bottom) / 2, "no data", color=FAINT, anchor="middle"))
    for line in panel.lines:
        parts += draw_line(line, x_axis, y_axis)
    return parts


def draw_legend(entries, y):
    """entries: [(label, color, style)], in as many rows as they need. Returns (parts, height)."""
    parts, x, row = [], LEFT, 0
    for label, color, style in entries:
        width = 44 + 6.4 * len(label)
        if x > LEFT and x + width > 2 * PANEL_WIDTH - RIGHT:
            x, row = LEFT, row + 1
        middle = y + row * LEGEND_ROW
        stroke = COLORS[color % len(COLORS)] if color is not None else FAINT
        if style == "points":
            parts.append(f"<circle cx='{x + 13}' cy='{middle}' r='3' fill='{stroke}'/>")
        else:
            parts.append(segment(x, middle, x + 26, middle, stroke, 2.5, DASHES[style]))
        parts.append(text(x + 32, middle + 4, label))
        x += width
    return parts, (row + 1) * LEGEND_ROW if entries else 0


def draw(title, subtitle, legend, panels):
    """The whole figure, two panels a row."""
    legend_parts, legend_height = draw_legend(legend, HEAD + 6)
    top = HEAD + legend_height + 6
    rows = (len(panels) + 1) // 2
    width, height = 2 * PANEL_WIDTH, top + rows * PANEL_HEIGHT + 6
    parts = [f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' "
             f"viewBox='0 0 {width} {height}'>",
             f"<rect width='{width}' height='{height}' fill='white'/>",
             text(LEFT, 30, title, 18, weight="bold"), text(LEFT, 50, subtitle, 12, FAINT), *legend_parts]
    for i, panel in enumerate(panels):
        parts += draw_panel(panel, i % 2 * PANEL_WIDTH, top + i // 2 * PANEL_HEIGHT)
    return "\n".join(parts) + "\n</svg>\n"
