"""The zoo: small nets, simplest first, that between them spell everything the library must understand."""

from nets.notation import Net, feeds
from nets.zoo.movement import MOVES
from nets.zoo.odd import ODD
from nets.zoo.rare import RARE
from nets.zoo.sequence import SEQUENCE
from nets.zoo.vision import VISION

__all__ = ["NETS", "Net", "feeds"]

NETS: dict[str, Net] = {**VISION, **MOVES, **SEQUENCE, **ODD, **RARE}
