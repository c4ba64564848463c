"""The benchmark's figure: accuracy against the share of MACs left, one panel for each net."""

from pathlib import Path
from typing import Any

WIDE, LETTERS = 8.3, 9  # inches, and points: as wide as a page of text, letters can be read there
CALLED = {"resnet20": "ResNet-20", "mobilenet": "MobileNetV3-like", "vit": "ViT"}


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
    methods = list(dict.fromkeys(one["method"] for one in entries if one["method"] != "dense"))
    colours = {method: plt.get_cmap("tab20")(2 * k % 20 + k // 10) for k, method in enumerate(methods)}
    plt.rcParams |= {"font.size": LETTERS, "axes.titlesize": LETTERS + 1, "svg.fonttype": "path"}
    drawn, panels = plt.subplots(1, len(nets), figsize=(WIDE, 5.6), sharey=True, squeeze=False)
    for net, panel in zip(nets, panels[0], strict=True):
        rows = [one for one in entries if one["net"] == net]
        dense = next(one for one in rows if one["method"] == "dense")
        panel.axhline(100 * dense["accuracy"], color="black", linewidth=0.8, label="dense")
        for method in dict.fromkeys(one["method"] for one in rows if one["method"] != "dense"):
            same = sorted((one for one in rows if one["method"] == method), key=lambda one: one["macs"])
            panel.errorbar(
                [100 * one["macs"] for one in same],
                [100 * one["accuracy"] for one in same],
                [one["spread"] for one in same],
                marker="s" if "Torch" in method else "o",
                linestyle="--" if "Torch" in method else "-",
                color=colours[method],
                capsize=3,
                label=method if "Torch" in method else f"ours, {method}",
            )
        panel.set(title=CALLED.get(net, net), xlabel="MACs left, %", ylim=(0, 100), xticks=range(30, 51, 5))
        panel.grid(alpha=0.3)
    panels[0][0].set_ylabel("test images classified right, %")
    drawn.suptitle("Fashion-MNIST after cutting, without labels")
    handles = {
        label: handle for panel in panels[0] for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    drawn.legend(handles.values(), handles, loc="lower center", ncols=2, frameon=False)
    drawn.tight_layout(rect=(0, 0.24, 1, 1))
    drawn.savefig(path, dpi=120)
    plt.close(drawn)
