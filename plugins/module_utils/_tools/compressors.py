# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""zstd, gzip and lz4 as stages of a pipeline. PRIVATE to the collection.

What they write is read by the plain programs of any host: no dictionaries, no long windows, checksums always. For gzip
the fastest program there is does the work: igzip (Debian's package isal), pigz, or gzip itself.
"""

from __future__ import annotations

import os
import typing as t

from .._command import find_program
from .._errors import HmsError, ToolMissing
from .._pipeline import Stage

METHODS = ("zstd", "gzip", "lz4", "none")
SUFFIXES = {"zstd": ".zst", "gzip": ".gz", "lz4": ".lz4", "none": ""}
DEFAULT_LEVELS = {"zstd": 3, "gzip": 1, "lz4": 1}
LEVELS = {"zstd": (1, 19), "gzip": (1, 9), "lz4": (1, 12)}
MOST_THREADS = 4
"""Threads unless told otherwise: the database needs the other cores."""

_IGZIP_LEVELS = 3
_PACKAGES = {"zstd": "zstd", "lz4": "lz4", "gzip": "gzip"}


def _program(name: str) -> str:
    try:
        return find_program(name, needed_for=f"compression: {name}")
    except ToolMissing as error:
        error.next_step = f"Install Debian's package {_PACKAGES[name]}, or choose another compression."
        raise


def _optional(name: str) -> str | None:
    try:
        return find_program(name)
    except ToolMissing:
        return None


def default_threads() -> int:
    """All cores that we may use, up to a few."""
    return max(1, min(MOST_THREADS, len(os.sched_getaffinity(0))))


def effective_level(method: str, level: int | None) -> int | None:
    """The level that is used: the one asked for, or the method's own. Raises when the method has no such level."""
    if method not in METHODS:
        raise HmsError(f"There is no compression {method!r}; there are {', '.join(METHODS)}.", reason="bad_config")
    if method == "none":
        return None
    lowest, highest = LEVELS[method]
    if level is not None and not lowest <= level <= highest:
        raise HmsError(
            f"Compression level {level} is not one of {method}'s, which go from {lowest} to {highest}.",
            reason="bad_config",
            next_step="Choose a level within the range, or leave it out.",
        )
    return DEFAULT_LEVELS[method] if level is None else level


def compress_stage(
    method: str, *, level: int | None = None, threads: int | None = None, os_user: str | None = None
) -> Stage | None:
    """The stage that compresses; None for ``none``."""
    wanted = effective_level(method, level)
    if wanted is None:
        return None
    makers: dict[str, t.Callable[[int, int], tuple[str, ...]]] = {"zstd": _zstd, "gzip": _gzip, "lz4": _lz4}
    argv = makers[method](wanted, threads or default_threads())
    return Stage(os.path.basename(argv[0]), argv, os_user=os_user)


def _zstd(level: int, threads: int) -> tuple[str, ...]:
    return (_program("zstd"), f"-T{threads}", f"-{level}", "--check", "--quiet", "--stdout")


def _gzip(level: int, threads: int) -> tuple[str, ...]:
    igzip = _optional("igzip") if level <= _IGZIP_LEVELS else None
    if igzip:
        return (igzip, f"-{level}", "--threads", str(threads), "--stdout")
    pigz = _optional("pigz")
    if pigz:
        return (pigz, f"-{level}", "--processes", str(threads), "--no-name", "--stdout")
    return (_program("gzip"), f"-{level}", "--no-name", "--stdout")


def _lz4(level: int, _threads: int) -> tuple[str, ...]:
    # its frames have a checksum of the content unless told otherwise
    return (_program("lz4"), f"-{level}", "-q", "-z", "-c")


def decompress_stage(method: str, *, os_user: str | None = None) -> Stage | None:
    """The stage that gives back what was compressed, by the plain program of the format; None for ``none``."""
    if method == "none":
        return None
    argv = {
        "zstd": ("--decompress", "--quiet", "--stdout"),
        "gzip": ("--decompress", "--stdout"),
        "lz4": ("-d", "-q", "-c"),
    }[method]
    return Stage(f"{method} -d", (_program(method), *argv), os_user=os_user)


def method_of(name: str) -> str:
    """Which method a file's name tells of, a ``.gpg`` at its end left aside."""
    plain = name[: -len(".gpg")] if name.endswith(".gpg") else name
    return next((method for method, suffix in SUFFIXES.items() if suffix and plain.endswith(suffix)), "none")
