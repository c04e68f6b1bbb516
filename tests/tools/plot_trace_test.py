"""tools/bench/plot_trace.py draws what `spin_bench trace replay` wrote."""
import json
import os
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree as ET

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SVG = "{http://www.w3.org/2000/svg}"
POLICIES = ("none", "last_step", "bucketed", "exact_lru", "belady")


def replayed():
    points = [{"policy": policy, "buffer_ratio": ratio, "num_slots": 2 + 30 * ratio, "hits": 900, "misses": 100,
               "hit_ratio": 0.9, "hit_ratio_by_layer": [0.95, 0.85, 0.9]}
              for ratio in (4, 1, 2) for policy in POLICIES]
    return {"model": "a<b", "source": "GPL-2", "num_layers": 3, "num_kv_heads": 2, "page_tokens": 16,
            "budget_pages": 32, "prompt_tokens": 7680, "counted_steps": 448, "points": points}


class PlotTraceTest(unittest.TestCase):
    def plot(self, content):
        """(exit status, error text, root of the figure or None)"""
        with tempfile.TemporaryDirectory() as folder:
            result, output = os.path.join(folder, "result.json"), os.path.join(folder, "figure.svg")
            with open(result, "w") as f:
                f.write(content)
            run = subprocess.run([sys.executable, os.path.join(ROOT, "tools/bench/plot_trace.py"), "--output", output,
                                  result], stderr=subprocess.PIPE, text=True)
            return run.returncode, run.stderr, ET.parse(output).getroot() if os.path.exists(output) else None

    def test_a_curve_a_policy_and_a_line_a_size(self):
        status, error, root = self.plot(json.dumps(replayed()))
        self.assertEqual(status, 0, error)
        lines = root.findall(f"{SVG}polyline")
        self.assertEqual(len(lines), 5 + 5 + 3 + 1)
        for line in lines:
            xs = [float(point.split(",")[0]) for point in line.get("points").split()]
            self.assertEqual(len(xs), 3)
            self.assertEqual(xs, sorted(xs))
        texts = [node.text for node in root.iter(f"{SVG}text")]
        for text in ("none (fetch all)", "last step", "bucketed LRU", "exact LRU", "Belady",
                     "a<b reading GPL-2 · 448 steps after 7,680 tokens · 32 pages of 16 tokens a step · 6 streams"):
            self.assertIn(text, texts)

    def test_another_file_is_refused(self):
        for content in ("{", "{}"):
            status, error, root = self.plot(content)
            self.assertEqual(status, 1)
            self.assertIn("result.json", error)
            self.assertIsNone(root)


if __name__ == "__main__":
    unittest.main()
