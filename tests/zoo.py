"""The zoo: small nets, simplest first, that between them spell everything the library must understand."""

from tests.zoo_moves import MOVES
from tests.zoo_net import Net, feeds
from tests.zoo_odd import ODD
from tests.zoo_rare import RARE
from tests.zoo_sequence import SEQUENCE
from tests.zoo_vision import VISION

__all__ = ["NETS", "Net", "feeds"]

NETS: dict[str, Net] = {**VISION, **MOVES, **SEQUENCE, **ODD, **RARE}
