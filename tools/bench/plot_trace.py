#!/usr/bin/env python3
"""Draws the result of `spin_bench trace replay --output-json` as one SVG figure: hit ratio and fetched pages over the
slots of a stream, a curve for each eviction policy, and the hit ratio of each layer.

example:
  plot_trace.py --output hits.svg replay.json
"""
import argparse
import json
import sys

import svg_chart
from svg_chart import Line, Panel

LABELS = {"none": "none (fetch all)", "last_step": "last step", "bucketed": "bucketed LRU", "exact_lru": "exact LRU",
          "belady": "Belady"}
STYLES = {"exact_lru": "dashed", "belady": "dotted"}
SERVED = "bucketed"  # the policy of the panel by layer


def by_policy(result):
    """{policy: [point]}, in the result's order."""
    groups = {}
    for point in result["points"]:
        groups.setdefault(point["policy"], []).append(point)
    return groups


def curve(points, value):
    return sorted((point["buffer_ratio"], value(point)) for point in points)


def draw(result, title):
    streams = result["num_layers"] * result["num_kv_heads"]
    stream_steps = result["counted_steps"] * streams
    x_label = "slots for selectable pages / selectable pages of a step"
    panels = [Panel("Hit ratio", x_label, "%"),
              Panel("Pages fetched a step and stream", x_label, "pages", may_be_log=True),
              Panel("By layer, bucketed LRU", "layer", "%"),
              Panel("By layer, last step", "layer", "%")]
    legend = []
    for color, (policy, points) in enumerate(by_policy(result).items()):
        style = STYLES.get(policy, "solid")
        legend.append((LABELS.get(policy, policy), color, style))
        panels[0].lines.append(Line(curve(points, lambda point: 100 * point["hit_ratio"]), color, style))
        panels[1].lines.append(Line(curve(points, lambda point: point["misses"] / stream_steps), color, style))
        if policy == SERVED:
            for shade, point in enumerate(points):
                panels[2].lines.append(Line(list(enumerate(100 * hit for hit in point["hit_ratio_by_layer"])), shade,
                                            markers=False))
        if policy == "last_step":
            panels[3].lines.append(Line(list(enumerate(100 * hit for hit in points[0]["hit_ratio_by_layer"])), color))
    ratios = ", ".join(f"{point['buffer_ratio']:g}" for point in by_policy(result).get(SERVED, []))
    if ratios:
        panels[2].title += f" at {ratios} (from below)"
    subtitle = (f"{result['model']} reading {result['source']} · {result['counted_steps']} steps after "
                f"{result['prompt_tokens']:,} tokens · {result['budget_pages']} pages of {result['page_tokens']} "
                f"tokens a step · {streams} streams")
    return svg_chart.draw(title or "Selected pages that were in HBM", subtitle, legend, panels)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("result", metavar="RESULT.json")
    parser.add_argument("--output", required=True, metavar="FILE.svg")
    parser.add_argument("--title")
    args = parser.parse_args()
    try:
        with open(args.result) as f:
            figure = draw(json.load(f), args.title)
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"plot_trace.py: {args.result}: {error!r}")
    with open(args.output, "w", encoding="utf-8") as f:
        f.write(figure)


if __name__ == "__main__":
    main()
