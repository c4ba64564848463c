"""One picture per zoo net: its groups, what they hold, and why what stays stays.

`python -m tests.pictures` draws them anew into tests/pictures.txt. Read the difference before keeping it: a group that
is pinned without need, or coupled to one it should not be, is a defect that no other test sees.
"""

from pathlib import Path

from nets.zoo import NETS
from onnxslim_learn.workflow import slim
from tests.laws import analysed

FILE = Path(__file__).with_name("pictures.txt")

HEADER = """\
Groups of the zoo nets, drawn by `python -m tests.pictures`.
A line is a group: name, number of units, how they may go, parameter axes, and, if it stays, why.
How: "free" in any number; "x 4" the same number from each of 4 rows; "rows" as a whole, with all their cells.
"""


def picture(analysis: slim.Analysis) -> str:
    """Draw the groups of a net as text."""
    opaque = [f"no rule: {', '.join(sorted(analysis.opaque))}"] if analysis.opaque else []
    cells = [(group.name, str(group.width), _how(group), _what(group)) for group in analysis.groups]
    width = max(len(name) for name, *_ in cells)
    lines = [f"{name:{width}}  {count:>3}  {how:5}  {what}".rstrip() for name, count, how, what in cells]
    return "".join(f"    {line}\n" for line in [*opaque, *lines])


def pictures() -> dict[str, str]:
    """Draw all zoo nets."""
    return {name: picture(analysed(name)) for name in NETS}


def written() -> dict[str, str]:
    """Read the pictures from their file."""
    found: dict[str, str] = {}
    name = ""
    for line in FILE.read_text(encoding="utf-8").removeprefix(HEADER).splitlines(keepends=True):
        if line.strip() and not line.startswith(" "):
            name = line.strip()
            found[name] = ""
        elif line.strip():
            found[name] += line
    return found


def _how(group: slim.Group) -> str:
    if group.rows:
        return "rows"
    return f"x {len(group.strata)}" if len(group.strata) > 1 else "free"


def _what(group: slim.Group) -> str:
    members = " ".join(group.members) or "-"
    return f"{members}  STAYS: {group.pin.reason}" if group.pin else members


def main() -> None:
    """Write all pictures."""
    drawn = "".join(f"\n{name}\n{text}" for name, text in pictures().items())
    FILE.write_text(HEADER + drawn, encoding="utf-8")


if __name__ == "__main__":
    main()
