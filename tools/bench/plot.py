#!/usr/bin/env python3
"""Draws results of `spin_bench serve --output-json` (or `vllm bench serve --save-result`) as one SVG figure.

Several results become curves over the request rate, or over the concurrency where no rate was set: time to first
token, time per output token, throughput, and goodput where it was asked for. One result that was written with
--save-detailed becomes the course of that run: latencies, tokens a second and requests in flight over time.

examples:
  plot.py --output rates.svg rate-*.json
  plot.py --series system --output compare.svg spind-*.json vllm-*.json     # one colour a value of "system"
  plot.py --output run.svg run.json
"""
import argparse
import json
import math
import os
import sys

import svg_chart
from svg_chart import Line, Panel

TAIL = "p99"
BINS = 60  # of a course


def percentile(values, percent):
    """Linear between ranks."""
    ordered = sorted(values)
    rank = percent / 100 * (len(ordered) - 1)
    low = math.floor(rank)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (rank - low)


def as_number(value):
    """A finite number, or None: rates may be "inf", caps null."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def length_text(results, key, total_key):
    """The mean tokens of a request, or the range of means over the results."""
    means = [result[key] if key in result else result[total_key] / max(1, result["completed"]) for result in results]
    low, high = round(min(means)), round(max(means))
    return f"{low:,}" if high - low <= max(1, 0.02 * high) else f"{low:,}–{high:,}"


def describe(results):
    """One line: model, the lengths that were really sent and received, requests."""
    models = sorted({os.path.basename(str(result.get("model_id", "")).rstrip("/")) for result in results} - {""})
    counts = sorted({result["completed"] for result in results})
    requests = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]}–{counts[-1]}"
    return " · ".join([*models, f"{length_text(results, 'mean_input_tokens', 'total_input_tokens')} tokens in, "
                       f"{length_text(results, 'mean_output_tokens', 'total_output_tokens')} out (means)",
                       f"{requests} requests" + (" a point" if len(results) > 1 else "")])


def choose_x(results, x_key):
    """(key, axis label) of what the results differ in."""
    labels = {"request_rate": "request rate (requests/s)", "max_concurrency": "concurrency (requests)",
              "mean_input_tokens": "input length (tokens)", "mean_output_tokens": "output length (tokens)"}
    if x_key:
        return x_key, labels.get(x_key, x_key)
    for key in ("request_rate", "max_concurrency", "mean_input_tokens", "mean_output_tokens"):
        values = [as_number(result.get(key)) for result in results]
        if None not in values and len(set(values)) > 1:
            return key, labels[key]
    raise SystemExit("plot.py: the results differ in neither rate, concurrency nor length: name --x KEY")


def curve(results, x_key, y_key, scale=1.0):
    points = [(as_number(result.get(x_key)), as_number(result.get(y_key))) for result in results]
    return sorted((x, y * scale) for x, y in points if x is not None and y is not None)


def draw_sweep(results, x_key, series_key, title):
    x_key, x_label = choose_x(results, x_key)
    groups = {}
    for result in results:
        groups.setdefault(str(result.get(series_key, "")) if series_key else "", []).append(result)
    panels = [Panel("Time to first token", x_label, "seconds", may_be_log=True),
              Panel("Time per output token", x_label, "milliseconds"),
              Panel("Output throughput", x_label, "tokens/s"),
              Panel("End-to-end latency", x_label, "seconds")]
    goodput = any("request_goodput" in result for result in results)
    if goodput:
        panels[3] = Panel("Goodput: requests within the objectives", x_label, "requests/s")
    for color, group in enumerate(groups.values()):
        for panel, metric, scale in ((panels[0], "ttft", 1e-3), (panels[1], "tpot", 1), (panels[3], "e2el", 1e-3)):
            if metric == "e2el" and goodput:
                panel.lines.append(Line(curve(group, x_key, "request_goodput"), color))
                continue
            panel.lines += [Line(curve(group, x_key, f"median_{metric}_ms", scale), color),
                            Line(curve(group, x_key, f"{TAIL}_{metric}_ms", scale), color, "dashed")]
        panels[2].lines.append(Line(curve(group, x_key, "output_throughput"), color))
    legend = [(name, color, "solid") for color, name in enumerate(groups) if name]
    legend += [("median", None, "solid"), (TAIL, None, "dashed")]
    return svg_chart.draw(title or "Serving benchmark", describe(results), legend, panels)


def completed_requests(result):
    """[(start, ttft, [time of each event], e2e)] in seconds, of the requests without an error."""
    requests = []
    errors = result.get("errors") or [""] * len(result["ttfts"])
    for start, ttft, gaps, error in zip(result["start_times"], result["ttfts"], result["itls"], errors):
        if error:
            continue
        times = [start + ttft]
        for gap in gaps:
            times.append(times[-1] + gap)
        requests.append((start, ttft, times, times[-1] - start))
    # vLLM's client writes times of its clock.
    begin = min((request[0] for request in requests), default=0)
    return [(start - begin, ttft, [time - begin for time in times], e2e) for start, ttft, times, e2e in requests]


def in_bins(samples, width):
    """{bin: [values]} of (time, value)."""
    bins = {}
    for time, value in samples:
        bins.setdefault(int(time / width), []).append(value)
    return bins


def percentile_lines(samples, width, colors=(0, 1)):
    bins = sorted(in_bins(samples, width).items())
    return [Line([((index + 0.5) * width, percentile(values, percent)) for index, values in bins], color, style, False)
            for percent, color, style in ((50, colors[0], "solid"), (99, colors[1], "dashed"))]


def in_flight(requests):
    """The steps of how many requests run."""
    changes = sorted([(start, 1) for start, _, _, _ in requests] + [(start + e2e, -1) for start, _, _, e2e in requests])
    points, running = [(0, 0)], 0
    for time, change in changes:
        points.append((time, running))
        running += change
        points.append((time, running))
    return points


def draw_course(result, title):
    if not result.get("itls"):
        raise SystemExit("plot.py: one result is drawn over time, which needs --save-detailed; or give several")
    requests = completed_requests(result)
    end = max((times[-1] for _, _, times, _ in requests), default=1)
    width = max(end / BINS, 1e-3)
    gaps = [(b, (b - a) * 1e3) for _, _, times, _ in requests for a, b in zip(times, times[1:])]
    events = in_bins([(time, 1) for _, _, times, _ in requests for time in times], width)
    # Tokens, where events hold several.
    total = sum(len(times) for _, _, times, _ in requests)
    share = result["total_output_tokens"] / max(1, total)
    rate = [((i + 0.5) * width, len(events.get(i, [])) * share / width) for i in range(math.ceil(end / width))]
    x_label = "time (s)"
    panels = [Panel("Time to first token, by send time", x_label, "seconds",
                    [Line([(start, ttft) for start, ttft, _, _ in requests], 0, "points")], may_be_log=True),
              Panel("Inter-token latency", x_label, "milliseconds", percentile_lines(gaps, width)),
              Panel("Output throughput", x_label, "tokens/s", [Line(rate, 2, markers=False)]),
              Panel("Requests in flight", x_label, "requests", [Line(in_flight(requests), 3, markers=False)])]
    for panel in panels:
        panel.x_end = end
    legend = [("each request", 0, "points"), ("median", 0, "solid"), ("p99", 1, "dashed")]
    return svg_chart.draw(title or "Serving benchmark", describe([result]), legend, panels)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", metavar="RESULT.json")
    parser.add_argument("--output", required=True, metavar="FILE.svg")
    parser.add_argument("--series", metavar="KEY", help="one colour for each value of this key of the results")
    parser.add_argument("--x", metavar="KEY", help="what to draw over [what the results differ in]")
    parser.add_argument("--title")
    args = parser.parse_args()
    results = []
    for path in args.results:
        try:
            with open(path) as f:
                results.append(json.load(f))
        except (OSError, ValueError) as error:
            sys.exit(f"plot.py: {path}: {error}")
    if len(results) == 1:
        figure = draw_course(results[0], args.title)
    else:
        figure = draw_sweep(results, args.x, args.series, args.title)
    with open(args.output, "w", encoding="utf-8") as f:
        f.write(figure)


if __name__ == "__main__":
    main()
