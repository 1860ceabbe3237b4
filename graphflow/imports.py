"""Imports of several threads at a time.

When two threads import packages that import each other, as transformers and diffusers do, Python lets one of them see a
package that is half there rather than wait for ever; its import fails. A moment later the same import succeeds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
WAITS = (0.2, 1.0, 3.0)  # seconds before the second, third and fourth attempt
EARLY = 60.0  # seconds in which a call has done with its imports; what fails later is not begun again


def importing(call: Callable[[], T]) -> T:
    """What `call` returns; when an import at its beginning fails, it is called again after a moment, up to three times.

    `call` must be one that may be repeated.
    """
    for seconds in WAITS:
        began = time.monotonic()
        try:
            return call()
        except Exception as error:
            if not _of_an_import(error) or time.monotonic() - began > EARLY:
                raise
        time.sleep(seconds)  # outside the handler: the traceback no longer holds what the call had made
    return call()


def _of_an_import(error: BaseException) -> bool:
    """Whether an import has failed that may succeed later: what is not installed will not be found the next time."""
    chain = [error]
    while (cause := chain[-1].__cause__) is not None and cause not in chain:  # what was handled on the way is none
        chain.append(cause)
    absent = any(isinstance(e, ModuleNotFoundError) and e.name is not None for e in chain)
    return not absent and any(map(_says_so, chain))


def _says_so(error: BaseException) -> bool:
    if isinstance(error, AttributeError):
        return "partially initialized module" in str(error)
    # the second: of diffusers' importer, whatever the cause
    return isinstance(error, ImportError) or str(error).startswith("Failed to import ")
