# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Markup that can't be broken by its contents: every text is escaped where it enters. PRIVATE to the collection."""

from __future__ import annotations

import html
import typing as t

from .access import clean

_VOID = frozenset({"meta", "br", "hr", "col"})
_SHAPES = frozenset({"rect", "line", "path", "circle", "use"})


class Html(str):
    """Text that is markup already; only this module makes it from anything else."""

    __slots__ = ()


Child = str | None
Attribute = str | int | float | bool | None


def escape(value: str) -> Html:
    """Plain text as markup."""
    return value if isinstance(value, Html) else Html(html.escape(clean(value), quote=True))


def join(children: t.Iterable[Child], separator: str = "") -> Html:
    """Several pieces as one."""
    return Html(separator.join(escape(child) for child in children if child is not None))


def el(tag: str, /, *children: Child, **attributes: Attribute) -> Html:
    """An element. `class_` is written class, `stroke_width` stroke-width; None and False leave an attribute out."""
    head = tag + "".join(_attribute(key, value) for key, value in attributes.items())
    if tag in _VOID:
        return Html(f"<{head}>")
    if tag in _SHAPES and not children:
        return Html(f"<{head}/>")
    return Html(f"<{head}>{join(children)}</{tag}>")


def _attribute(key: str, value: Attribute) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    shown = coordinate(value) if isinstance(value, float) else escape(str(value))
    return f' {name}="{shown}"'


def coordinate(value: float) -> str:
    """A number as drawings write it: one place, no needless zeros."""
    return f"{value:.1f}".removesuffix(".0")
