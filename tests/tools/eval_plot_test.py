"""tools/eval_plot.py draws a line for each algorithm over the budget, and says what it misses."""
import json
import os
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree as ET

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SVG = "{http://www.w3.org/2000/svg}"


def result(name, budget, mean_kl, **more):
    kl = {"mean_kl": mean_kl, "top1_agreement": 1 - mean_kl, "perplexity_ratio": 1 + mean_kl}
    return {"name": name, "algorithm": name, "budget": budget, "kl": kl} | more


def evaluation(*results):
    return {"model": "/models/small", "dtype": "bfloat16", "context": 2048,
            "results": [result("dense", None, 0), *results]}


class EvalPlotTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def run_plot(self, *evaluations):
        """(exit status, error text, root of the figure or None)"""
        paths = []
        for i, values in enumerate(evaluations):
            paths.append(os.path.join(self.folder, f"{i}.json"))
            with open(paths[-1], "w") as f:
                json.dump(values, f)
        output = os.path.join(self.folder, "figure.svg")
        run = subprocess.run([sys.executable, os.path.join(ROOT, "tools/eval_plot.py"), "--output", output, *paths],
                             capture_output=True, text=True)
        figure = ET.parse(output).getroot() if run.returncode == 0 else None
        return run.returncode, run.stderr, figure

    def texts(self, figure):
        return [element.text for element in figure.iter(SVG + "text")]

    def test_a_line_an_algorithm_and_a_panel_a_measure(self):
        status, error, figure = self.run_plot(
            evaluation(result("quest", 256, 0.2), result("window", 256, 0.4), result("quest", 512, 0.1),
                       result("window", 512, 0.3)),
            evaluation(result("other", 256, 0.3), result("other", 512, 0.2)))
        self.assertEqual(status, 0, error)
        texts = self.texts(figure)
        for name in ("quest", "other", "window", "dense"):
            self.assertEqual(texts.count(name), 1)
        self.assertIn("KL(dense || sparse), mean", texts)
        self.assertNotIn("Tasks", texts)
        # Three measures of three lines, and dense's in those that are not logarithmic.
        self.assertEqual(len(list(figure.iter(SVG + "polyline"))), 3 * 3 + 2)

    def test_zeros_are_left_out_of_the_logarithmic_panel(self):
        status, error, figure = self.run_plot(
            evaluation(result("quest", 256, 0.2, task_mean=0.5), result("quest", 2048, 0, task_mean=1)))
        self.assertEqual(status, 0, error)
        self.assertIn("Tasks", self.texts(figure))
        counts = sorted(len(line.get("points").split()) for line in figure.iter(SVG + "polyline"))
        self.assertEqual(counts, [1, 2, 2, 2, 2, 2])

    def test_what_is_no_result_is_refused_by_name(self):
        status, error, _ = self.run_plot({"anything": 1})
        self.assertEqual(status, 1)
        self.assertIn("0.json", error)
        status, error, _ = self.run_plot(evaluation())
        self.assertEqual(status, 1)
        self.assertIn("budget", error)


if __name__ == "__main__":
    unittest.main()
