"""Import the heavy libraries without garbage collections.

torch, diffusers and transformers leave 800,000 objects that Python's collector tracks. It visits
them again and again while they are imported and finds next to nothing: 1.3 of the 8 s of processor
time of `generate`.
"""

import atexit
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick_imports() -> Iterator[None]:
    """Pause the garbage collector while the body imports.

    What lives afterwards is exempt from later collections (`gc.freeze`), which would visit it to no
    purpose: the body may also load what is used until the process ends. A body that imports no new
    module exempts nothing, and a collector that is off stays off.
    """
    if not gc.isenabled():
        yield
        return
    known = len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > known:
            gc.freeze()
            atexit.register(gc.unfreeze)  # some libraries report what a shutdown does not free
        gc.enable()
