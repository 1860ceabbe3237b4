"""How much a store may hold, and whether a value is worth its place."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from graphflow.errors import UsageError
from graphflow.units import parse_size

VARIABLE = "GRAPHFLOW_STORE_BUDGET"
LARGEST_DEFAULT = 100 * 2**30
DISK_SHARE = 0.1

# What is this small costs less to keep than to think about, and `why` can show it.
SMALL_BYTES = 64 * 1024
# Reading a value back: looking it up, checking its hash, decoding it. Bytes per second by codec, measured on a two-core
# machine with the file not in memory; a disk of 200 MB/s is no slower for what takes long to decode.
READ_SECONDS = 0.002
READ_BYTES_PER_SECOND = {"image": 60e6, "json": 200e6}
OTHER_BYTES_PER_SECOND = 400e6
# Storing takes two to four times as long as reading (encoding, hashes, sync): computing must repay both.
CLEAR_FACTOR = 4.0


def default_budget(folder: Path) -> int:
    """``GRAPHFLOW_STORE_BUDGET``, such as ``50GiB``; else a tenth of the disk, but no more than 100 GiB.

    Raises:
        UsageError: the variable holds no size.
    """
    text = os.environ.get(VARIABLE)
    if not text:
        return min(LARGEST_DEFAULT, int(DISK_SHARE * shutil.disk_usage(folder).total))
    try:
        return parse_size(text)
    except ValueError as error:
        raise UsageError(f"{VARIABLE}: {error}") from error


def read_seconds(size: int, codec: str = "") -> float:
    """About how long it takes to read a value of this many bytes back."""
    return READ_SECONDS + size / READ_BYTES_PER_SECOND.get(codec, OTHER_BYTES_PER_SECOND)


def worth_storing(size: int, seconds: float, codec: str = "") -> bool:
    """Whether a value of this many bytes that took these seconds to compute is worth being stored.

    Small values always are. Others are when computing them again takes clearly longer than storing and reading them.
    """
    return size <= SMALL_BYTES or seconds >= CLEAR_FACTOR * read_seconds(size, codec)
