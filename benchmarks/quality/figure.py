"""The benchmark's figure: accuracy against the share of MACs left, one panel for each net."""

from pathlib import Path
from typing import Any


def draw(entries: list[dict[str, Any]], path: Path) -> None:
    """Draw a summary.

    Args:
        entries: What ``run.summary`` returns.
        path: Where, as ``.png`` or ``.svg``.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    nets = list(dict.fromkeys(one["net"] for one in entries))
    drawn, panels = plt.subplots(1, len(nets), figsize=(5.5 * len(nets), 4.5), sharey=True, squeeze=False)
    for net, panel in zip(nets, panels[0], strict=True):
        rows = [one for one in entries if one["net"] == net]
        dense = next(one for one in rows if one["method"] == "dense")
        panel.axhline(100 * dense["accuracy"], color="black", linewidth=0.8, label="dense")
        for method in dict.fromkeys(one["method"] for one in rows if one is not dense):
            same = sorted((one for one in rows if one["method"] == method), key=lambda one: one["macs"])
            panel.errorbar(
                [100 * one["macs"] for one in same],
                [100 * one["accuracy"] for one in same],
                [one["spread"] for one in same],
                marker="s" if "Torch" in method else "o",
                linestyle="--" if "Torch" in method else "-",
                capsize=3,
                label=method,
            )
        panel.set(title=net, xlabel="MACs left, %", ylim=(0, 100))
        panel.grid(alpha=0.3)
        panel.legend(fontsize=6)
    panels[0][0].set_ylabel("test images classified right, %")
    drawn.suptitle("Fashion-MNIST after cutting, without training")
    drawn.tight_layout()
    drawn.savefig(path, dpi=120)
    plt.close(drawn)
