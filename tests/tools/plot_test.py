"""tools/bench/plot.py draws well-formed figures of many results and of one, and says what it misses."""
import json
import os
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree as ET

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tools/bench"))

import plot  # noqa: E402
import svg_chart  # noqa: E402

SVG = "{http://www.w3.org/2000/svg}"


def result(**changes):
    values = {"model_id": "/models/mine", "request_rate": "inf", "max_concurrency": 4, "completed": 10, "failed": 0,
              "total_input_tokens": 1000, "total_output_tokens": 200, "output_throughput": 50.0}
    for metric in ("ttft", "tpot", "e2el"):
        values |= {f"median_{metric}_ms": 10.0, f"p99_{metric}_ms": 20.0}
    return values | changes


def detailed(**changes):
    return result(start_times=[100.0, 100.5], ttfts=[0.1, 0.2], itls=[[0.01] * 9, [0.02] * 9], errors=["", ""],
                  **changes)


class PlotTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def run_plot(self, results, *args):
        """(exit status, error text, root of the figure or None)"""
        paths = []
        for i, content in enumerate(results):
            paths.append(os.path.join(self.folder, f"{i}.json"))
            with open(paths[-1], "w") as f:
                f.write(content if isinstance(content, str) else json.dumps(content))
        output = os.path.join(self.folder, "figure.svg")
        run = subprocess.run([sys.executable, os.path.join(ROOT, "tools/bench/plot.py"), "--output", output, *args,
                              *paths], stderr=subprocess.PIPE, text=True)
        return run.returncode, run.stderr, ET.parse(output).getroot() if os.path.exists(output) else None

    def texts(self, root):
        return [node.text for node in root.iter(f"{SVG}text")]

    def test_several_results_become_curves_over_what_they_differ_in(self):
        status, error, root = self.run_plot([result(request_rate=rate, output_throughput=rate * 100)
                                             for rate in (4, 1, 2)])
        self.assertEqual(status, 0, error)
        texts = self.texts(root)
        for text in ("Time to first token", "Time per output token", "Output throughput", "End-to-end latency",
                     "request rate (requests/s)", "median", "p99", "mine · 100 tokens in, 20 out (means) · "
                                                                  "10 requests a point"):
            self.assertIn(text, texts)
        # Two latencies a panel, one throughput.
        self.assertEqual(len(root.findall(f"{SVG}polyline")), 7)
        for line in root.findall(f"{SVG}polyline"):
            xs = [float(point.split(",")[0]) for point in line.get("points").split()]
            self.assertEqual(xs, sorted(xs))
            self.assertEqual(len(xs), 3)

    def test_without_a_rate_the_concurrency_is_the_axis(self):
        _, _, root = self.run_plot([result(max_concurrency=n) for n in (1, 8)])
        self.assertIn("concurrency (requests)", self.texts(root))

    def test_series_get_a_colour_each_and_a_name(self):
        _, _, root = self.run_plot([result(request_rate=rate, system=system, request_goodput=rate)
                                    for rate in (1, 2) for system in ("a<b", "c&d")], "--series", "system")
        texts = self.texts(root)
        self.assertTrue({"a<b", "c&d", "Goodput: requests within the objectives"} <= set(texts))
        colors = {line.get("stroke") for line in root.findall(f"{SVG}polyline")}
        self.assertEqual(colors, set(svg_chart.COLORS[:2]))

    def test_one_detailed_result_becomes_its_course(self):
        status, error, root = self.run_plot([detailed()])
        self.assertEqual(status, 0, error)
        for text in ("Time to first token, by send time", "Inter-token latency", "Requests in flight", "time (s)"):
            self.assertIn(text, self.texts(root))

    def test_everything_is_drawn_inside_the_figure(self):
        for results in ([detailed()], [result(request_rate=rate, median_ttft_ms=rate * 1e4) for rate in (0.001, 9e4)]):
            _, _, root = self.run_plot(results)
            width, height = float(root.get("width")), float(root.get("height"))
            for line in root.findall(f"{SVG}polyline"):
                for point in line.get("points").split():
                    x, y = map(float, point.split(","))
                    self.assertTrue(0 <= x <= width and 0 <= y <= height, point)

    def test_what_cannot_be_drawn_is_explained(self):
        for results, part in [([result()], "--save-detailed"), ([result(), result()], "--x KEY"),
                              (["{"], "0.json")]:
            status, error, root = self.run_plot(results)
            self.assertEqual(status, 1)
            self.assertIn(part, error)
            self.assertIsNone(root)

    def test_failed_requests_are_left_out_and_times_begin_at_zero(self):
        requests = plot.completed_requests(detailed() | {"errors": ["", "HTTP 429"]})
        self.assertEqual(len(requests), 1)
        start, ttft, times, e2e = requests[0]
        self.assertEqual((start, ttft, len(times)), (0, 0.1, 10))
        self.assertAlmostEqual(times[-1], 0.19)
        self.assertAlmostEqual(e2e, 0.19)

    def test_requests_in_flight_go_up_and_down(self):
        steps = plot.in_flight([(0, 0.1, [1], 2.0), (1, 0.1, [2], 3.0)])
        self.assertEqual(max(running for _, running in steps), 2)
        self.assertEqual(steps[-1], (4.0, 0))

    def test_percentiles_interpolate(self):
        self.assertEqual(plot.percentile([4, 1, 3, 2], 50), 2.5)
        self.assertEqual(plot.percentile([7], 99), 7)

    def test_ticks_are_round_and_enclose_the_data(self):
        self.assertEqual(svg_chart.nice_ticks(0, 9.3), [0, 2, 4, 6, 8, 10])
        self.assertEqual(svg_chart.nice_ticks(0, 0)[0], 0)
        self.assertEqual(svg_chart.log_ticks(0.3, 45), [0.2, 0.5, 1, 2, 5, 10, 20, 50])
        for low, high in ((1, 1), (3, 7e9), (1e-4, 2e-3)):
            ticks = svg_chart.log_ticks(low, high)
            self.assertTrue(ticks[0] <= low * 1.001 and ticks[-1] >= high * 0.999 and len(ticks) >= 2)
        self.assertEqual(svg_chart.tick_texts([0, 5000, 10000]), ["0", "5k", "10k"])
        self.assertEqual(svg_chart.tick_texts([0, 0.5, 1]), ["0", "0.5", "1"])


if __name__ == "__main__":
    unittest.main()
