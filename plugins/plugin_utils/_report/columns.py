# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Text in columns for terminals of a known width. PRIVATE to the collection."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

_GAP = "  "


def cut(text: str, width: int) -> str:
    """The text on one line, cut to a width."""
    flat = " ".join(text.splitlines())
    return flat if len(flat) <= width else flat[: max(width - 1, 0)].rstrip() + "…"


def wrap(text: str, *, width: int, most: int, first: str = "", later: str = "") -> list[str]:
    """The text in lines of a width; when they are more than `most`, the last says so by its ellipsis."""
    return textwrap.wrap(
        " ".join(text.split()),
        width=width,
        initial_indent=first,
        subsequent_indent=later,
        max_lines=most,
        placeholder=" …",
        break_on_hyphens=False,
    )


def ends(left: str, right: str, width: int) -> str:
    """Two texts at the two ends of a line."""
    room = width - len(right) - 2
    return (cut(left, room).ljust(room) + _GAP + right).rstrip()


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """Rows under their heads; the widest columns give way until the lines fit."""
    lines = [list(heads), *[[" ".join(cell.split()) for cell in row] for row in rows]]
    widths = [max(len(line[index]) for line in lines) for index in range(len(heads))]
    spare = width - len(_GAP) * (len(heads) - 1)
    while sum(widths) > spare and max(widths) > 4:
        widths[widths.index(max(widths))] -= 1
    return [
        _GAP.join(cut(cell, room).ljust(room) for cell, room in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
