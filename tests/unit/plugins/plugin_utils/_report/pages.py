# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading a rendered page back: it must be well formed, complete in itself, and say what the record says."""

from __future__ import annotations

import html.parser
import re
from dataclasses import dataclass, field

_VOID = {"meta", "br", "hr", "col"}
_BLOCKS = {"address", "dl", "div", "figure", "h1", "h2", "h3", "ol", "p", "section", "table", "ul"}


@dataclass
class Element:
    """An element with its text and all that is in it."""

    name: str
    attributes: dict[str, str | None]
    parent: Element | None = None
    children: list[Element | str] = field(default_factory=list)

    def all(self, name: str = "", class_: str = "") -> list[Element]:
        """The elements below this one, by name and class."""
        found: list[Element] = []
        for child in self.children:
            if isinstance(child, Element):
                classes = (child.attributes.get("class") or "").split()
                if name in ("", child.name) and (not class_ or class_ in classes):
                    found.append(child)
                found += child.all(name, class_)
        return found

    @property
    def text(self) -> str:
        """The text, with plain spaces."""
        parts = [child if isinstance(child, str) else child.text for child in self.children]
        return re.sub(r"\s+", " ", "".join(parts)).strip()


class Page(html.parser.HTMLParser):
    """A page as a tree; anything that doesn't nest is an error."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.source = source
        self.root = Element("", {})
        self._open = self.root
        self.feed(source)
        self.close()
        assert self._open is self.root, f"<{self._open.name}> is never closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _value in attrs}) == len(attrs), f"<{tag}> has an attribute twice"
        element = Element(tag, dict(attrs), self._open)
        if tag in _BLOCKS:
            assert self._open.name != "p", f"<{tag}> would end the paragraph it stands in"
        self._open.children.append(element)
        if tag not in _VOID:
            self._open = element

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open.children.append(Element(tag, dict(attrs), self._open))

    def handle_endtag(self, tag: str) -> None:
        assert tag == self._open.name, f"</{tag}> closes <{self._open.name}>"
        assert self._open.parent is not None
        self._open = self._open.parent

    def handle_data(self, data: str) -> None:
        self._open.children.append(data)

    def all(self, name: str = "", class_: str = "") -> list[Element]:
        """Elements by name and class."""
        return self.root.all(name, class_)

    def one(self, name: str, class_: str = "") -> Element:
        """The only element of that name and class."""
        found = self.all(name, class_)
        assert len(found) == 1, f"{len(found)} <{name}> of class {class_!r}"
        return found[0]

    def section(self, title: str) -> Element:
        """The section under a heading."""
        for section in self.all("section"):
            if [heading.text for heading in section.all("h2")] == [title]:
                return section
        raise AssertionError(f"no section {title!r}: {self.titles()}")

    def titles(self) -> list[str]:
        """All headings of sections."""
        return [heading.text for heading in self.all("h2")]

    def figure(self, term: str) -> str:
        """One of the large numbers at the top."""
        for card in self.one("dl", "figures").all("div"):
            terms = card.all("dt")
            if terms and terms[0].text == term:
                return card.all("div", "value")[0].text
        raise AssertionError(f"no figure {term!r}")

    def fact(self, title: str, term: str) -> str:
        """A value of a list of facts."""
        facts = self.section(title).all("dl", "facts")[0]
        found = {name.text: value.text for name, value in zip(facts.all("dt"), facts.all("dd"), strict=True)}
        return found[term]
