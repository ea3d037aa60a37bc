"""Plots the quality of files of one size against hours of training, from several models' `cdc evaluate --target-bpp`.

    python benchmarks/plot_progress.py 0.5=evaluation/first 3.3=evaluation/second … [--target-bpp 0.25] -o progress.png

Each argument is the hours of a model's training and the folder of its evaluation.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

LABELS = {"psnr-rgb": "PSNR (dB)", "lpips-alex": "LPIPS-Alex", "lpips-vgg": "LPIPS-VGG", "dists": "DISTS"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evaluations", nargs="+", metavar="HOURS=DIR")
    parser.add_argument("--target-bpp", type=float, default=0.25)
    parser.add_argument("-o", "--output", type=Path, default=Path("progress.png"))
    arguments = parser.parse_args()

    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pairs = [text.split("=", 1) for text in arguments.evaluations]
    hours = [float(number) for number, _ in pairs]
    scores = [scores_at(Path(folder), arguments.target_bpp) for _, folder in pairs]
    figure, axes = pyplot.subplots(1, len(LABELS), figsize=(13, 3.2), layout="constrained")
    for axis, (metric, label) in zip(axes, LABELS.items(), strict=True):
        axis.plot(hours, [each[metric] for each in scores], "o-", markersize=4)
        axis.set(xlabel="hours of training", title=label)
        axis.grid(alpha=0.3)
    figure.savefig(arguments.output, dpi=110)


def scores_at(folder: Path, target_bpp: float) -> dict[str, float]:
    """The model's mean scores at one file size."""
    [table] = json.loads((folder / "same_size.json").read_text())
    [cell] = [each for each in table["cells"] if each["kind"] != "baseline" and each["target_bpp"] == target_bpp]
    return cell["scores"]


if __name__ == "__main__":
    main()
