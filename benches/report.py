"""What the benchmark shows: tables as text, one bar plot as SVG."""
from html import escape

WIDTH, LEFT, RIGHT, ROW, HEAD = 860, 330, 90, 24, 46
COLOURS = {"zind": "#1f6feb", "floor": "#57606a", "peer": "#c9a26b"}


def table(title, rows, ratios):
    """`rows`: Result; `ratios`: names of the results that the last columns divide by."""
    base = {row.name: row.median for row in rows if row.median}
    present = [name for name in ratios if name in base]
    lines = [title, f"{'':17}{'median':>9}{'p10':>9}{'n':>6}" + "".join(f"{'/ ' + name:>9}" for name in present)]
    for row in rows:
        if row.median is None:
            lines.append(f"{row.name:17}  {row.reason}")
            continue
        columns = "".join(f"{row.median / base[name]:9.2f}" for name in present)
        lines.append(f"{row.name:17}{row.median:9.3f}{row.p10:9.3f}{row.count:6}{columns}   {row.label}")
    return "\n".join(lines)


def bars(rows):
    lines = ["bars"]
    for row in rows:
        verdict = {True: "met", False: "NOT MET", None: f"not measured: {row.reason}"}[row.met]
        lines.append(f"  {row.key:3}{row.text:48}{row.bound:12}{row.value:>12}  {verdict}")
    return "\n".join(lines)


def svg(tables):
    """`tables`: (title, results) pairs. Bars are medians, the light tick in each is its p10."""
    body, y = [], 10
    for title, rows in tables:
        rows = [row for row in rows if row.median is not None]
        scale = (WIDTH - LEFT - RIGHT) / max((row.median for row in rows), default=1)
        body.append(text(10, y + 24, title, "font-weight='bold'"))
        y += HEAD
        for row in rows:
            body += plot_row(row, y, scale)
            y += ROW
        y += 14
    legend = "Start to exit, milliseconds: median, and p10 as the light tick. Shorter is better."
    body.append(text(10, y + 4, legend, "fill='#57606a'"))
    size = f"width='{WIDTH}' height='{y + 20}'"
    head = f"<svg xmlns='http://www.w3.org/2000/svg' {size} font-family='sans-serif' font-size='13'>"
    return "\n".join([head, "<rect width='100%' height='100%' fill='white'/>", *body, "</svg>", ""])


def plot_row(row, y, scale):
    width = row.median * scale
    tick = LEFT + row.p10 * scale
    return [
        text(LEFT - 8, y + 13, row.label, "text-anchor='end'"),
        f"<rect x='{LEFT}' y='{y}' width='{width:.1f}' height='{ROW - 7}' fill='{COLOURS[row.kind]}'/>",
        f"<line x1='{tick:.1f}' x2='{tick:.1f}' y1='{y}' y2='{y + ROW - 7}' stroke='white' stroke-opacity='0.7'/>",
        text(LEFT + width + 6, y + 13, f"{row.median:.2f}"),
    ]


def text(x, y, words, attributes=""):
    return f"<text x='{x:.1f}' y='{y}' {attributes}>{escape(words)}</text>"
