"""Plots validation rate and PSNR of consecutive runs, such as the two phases of the recipe, or of alternatives; of
variable-rate models, at each of the qualities that were measured; lower ones are paler.

    python benchmarks/plot_runs.py runs/warmup runs/rate -o phases.png
    python benchmarks/plot_runs.py --alternatives runs/with runs/without -o alternatives.png
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from cdc_jax.training.metrics_writer import RunLog

CURVES = {"validation_bpp": "rate (bits per pixel)", "validation_psnr_db_1": "PSNR of a 1-step decode (dB)"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdirs", nargs="+", type=Path, help="folders of runs, in their order")
    parser.add_argument("--alternatives", action="store_true", help="all runs start at step 0; label them by folder")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs.png"))
    arguments = parser.parse_args()

    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(CURVES), figsize=(9, 3.6), constrained_layout=True)
    offset = 0
    for number, workdir in enumerate(arguments.workdirs, start=1):
        lines = RunLog(workdir).read()
        run = workdir.name.replace("-", " ") if arguments.alternatives else f"phase {number}"
        for axis, prefix in zip(axes, CURVES, strict=True):
            names = sorted({name for line in lines for name in line if re.fullmatch(rf"{prefix}(_q[\d.]+)?", name)})
            for shade, name in enumerate(names):
                points = [(offset + line["step"], line[name]) for line in lines if name in line]
                label = run if shade == len(names) - 1 else None
                style = {"color": f"C{number - 1}", "alpha": (shade + 1) / len(names), "label": label}
                axis.plot(*zip(*points, strict=True), marker="o", markersize=3, **style)
        if not arguments.alternatives:
            offset += max(line["step"] for line in lines)
    for axis, label in zip(axes, CURVES.values(), strict=True):
        axis.set_xlabel("training steps")
        axis.set_ylabel(label)
        axis.set_ylim(bottom=0 if "rate" in label else None)
        axis.grid(alpha=0.3)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize="small", loc="outside lower center", ncols=min(len(labels), 8))
    figure.savefig(arguments.output, dpi=110)
    print(f"look at: {arguments.output}")


if __name__ == "__main__":
    main()
