"""Write what users may name, as a page: ``python -m scripts.registries > docs/registries.md``."""

from __future__ import annotations

from onnxslim_learn import registry
from onnxslim_learn.rows import Registry, Row

HEAD = """# What can be named

Every name below is a row of `onnxslim_learn/registry.py`. Where a name is taken, so are a function in Python,
`module:function`, and the name of an entry point of an installed package in the group given. A function says by its
attributes what a row would (`score.samples = True`); the options of a learner are the fields of its `settings`:

    @dataclass(frozen=True)
    class PruneSettings:
        left: float = option(0.5, "share of the MACs that stays", read=share)  # of onnxslim_learn.settings and .readers

    def prune(task):
        ...  # task.wanted.left

    prune.settings = PruneSettings

Then `onnxslim-learn learn model.onnx --learner mine:prune --help` tells of `--left`; `left = 0.7` in a file of options
and `left=0.7` in Python are the same.
"""


def page() -> str:
    """The page of all rows."""
    parts = [HEAD]
    for found in (value for value in vars(registry).values() if isinstance(value, Registry)):
        parts.append(f"## {found.parameter.strip('⟨⟩')} (entry points: `{found.group}`)\n")
        rows = [f"| {_names(row)} | {row.help} | {row.extra or '-'} |" for row in found.values()]
        head = ["| name | what it is | extra |", "| --- | --- | --- |"]
        parts.append("\n".join([*head, *rows] if rows else ["None yet: declare one with `register_operator`."]) + "\n")
    return "\n".join(parts)


def _names(row: Row) -> str:
    """What a row is called, other names behind the first."""
    return ", ".join(f"`{name}`" for name in (row.name, *row.also))


if __name__ == "__main__":
    print(page(), end="")
