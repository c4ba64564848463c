"""A run may take no more memory than it is given, where the system can be told so (Linux): it fails, and says why.

What a file makes of its inputs may be larger than anything that its text tells.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock

STATM = Path("/proc/self/statm")
_alone = RLock()  # what is set and set back is the whole process's


@contextmanager
def bounded(count: int) -> Iterator[None]:
    """Let this process have so many more bytes of address space while a block runs, but no more than it may have."""
    if not STATM.is_file():
        yield
        return
    import resource

    with _alone:
        before, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = int(STATM.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE") + count
        least = limit if before == resource.RLIM_INFINITY else min(limit, before)
        resource.setrlimit(resource.RLIMIT_AS, (least, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (before, hard))
