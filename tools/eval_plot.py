#!/usr/bin/env python3
"""Draws results of `spin_eval --json` as one SVG figure: accuracy over the budget, one line an algorithm.

The panels are those that were measured: task scores, KL divergence to dense, agreement on the next token, attention
mass. Controls are dashed. Several results (of one model and context) share the figure.

examples:
  eval_plot.py --output quality.svg quest.json
  eval_plot.py --output quality.svg quest.json shadowkv.json --title "SmolLM2, 4K"
"""
import argparse
import json
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "bench"))
import svg_chart  # noqa: E402
from svg_chart import Line, Panel  # noqa: E402

CONTROLS = ("window", "oracle")

# Title, y label, path of the value, scale, logarithmic.
PANELS = [("Tasks", "score (%)", ("task_mean",), 100, False),
          ("KL(dense || sparse), mean", "nats", ("kl", "mean_kl"), 1, True),
          ("Most probable token as dense's", "positions (%)", ("kl", "top1_agreement"), 100, False),
          ("Perplexity", "times dense's", ("kl", "perplexity_ratio"), 1, False),
          ("Attention mass of the selected pages", "%", ("recall", "mass"), 100, False),
          ("Greedy tokens until the first difference", "tokens", ("greedy", "common_tokens"), 1, False)]


def lookup(result, path):
    """The number at `path`, or None."""
    for key in path:
        if not isinstance(result, dict) or key not in result:
            return None
        result = result[key]
    return result


def collect(evaluations):
    """{name: [result]} of what has a budget, algorithms first; and dense's result."""
    names, dense = {}, None
    for evaluation in evaluations:
        for result in evaluation["results"]:
            if result["budget"] is not None:
                names.setdefault(result["name"], []).append(result)
            elif result["name"] == "dense" and dense is None:
                dense = result
    ordered = sorted(names, key=lambda name: (CONTROLS.index(name) + 1) if name in CONTROLS else 0)
    return {name: sorted(names[name], key=lambda result: result["budget"]) for name in ordered}, dense


def points_of(results, path, scale, positive):
    """(budget, value), one a budget; with `positive` without zeros, which a logarithmic axis cannot show."""
    values = {result["budget"]: lookup(result, path) for result in results}
    return [(budget, value * scale) for budget, value in values.items()
            if value is not None and (value > 0 or not positive)]


def draw(evaluations, title):
    names, dense = collect(evaluations)
    panels, budgets = [], [result["budget"] for results in names.values() for result in results]
    for panel_title, label, path, scale, log in PANELS:
        lines = [Line(points_of(results, path, scale, log), color, "dashed" if name in CONTROLS else "solid")
                 for color, (name, results) in enumerate(names.items())]
        lines = [line for line in lines if line.points]
        if not lines:
            continue
        reference = lookup(dense, path) if dense and not log else None
        if reference is not None:
            lines.append(Line([(min(budgets), reference * scale), (max(budgets), reference * scale)], 6, "dotted",
                              markers=False))
        panels.append(Panel(panel_title, "budget (tokens)", label, lines, may_be_log=log))
    if not panels:
        raise SystemExit("eval_plot.py: no result has a budget")
    first = evaluations[0]
    name = os.path.basename(first["model"].rstrip("/"))
    subtitle = f"{name} · {first['dtype']} · context {first['context']:,} tokens"
    legend = [(name, color, "dashed" if name in CONTROLS else "solid") for color, name in enumerate(names)]
    return svg_chart.draw(title or "Quality of sparse attention", subtitle, legend + [("dense", 6, "dotted")], panels)


def read(path):
    try:
        with open(path, encoding="utf-8") as f:
            evaluation = json.load(f)
    except (OSError, ValueError) as error:
        sys.exit(f"eval_plot.py: {path}: {error}")
    if not isinstance(evaluation, dict) or "results" not in evaluation:
        sys.exit(f"eval_plot.py: {path}: no result of spin_eval --json")
    return evaluation


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", metavar="RESULT.json")
    parser.add_argument("--output", required=True, metavar="FILE.svg")
    parser.add_argument("--title")
    args = parser.parse_args()
    figure = draw([read(path) for path in args.results], args.title)
    with open(args.output, "w", encoding="utf-8") as f:
        f.write(figure)


if __name__ == "__main__":
    main()
