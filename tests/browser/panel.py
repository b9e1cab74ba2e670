"""The explorer as it stands on a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

TABLES = "all => all.map(table => [...table.rows].map(row => [...row.cells].map(cell => cell.innerText.trim())))"


class Panel:
    """Its parts, by the CSS classes that the explorer gives them."""

    def __init__(self, page: Page) -> None:
        self.all = page.locator(".tt-explorer")
        self.shown = self.part("shown")

    def part(self, name: str) -> Locator:
        return self.all.locator(f".tt-{name}")

    def field(self, name: str) -> Locator:
        """Where one types."""
        return self.part(name).locator("input")

    def options(self, name: str) -> Locator:
        """The texts of a choice."""
        return self.part(name).locator(".widget-radio-box label")

    def option(self, name: str, text: str) -> Locator:
        """The round button before a text of a choice."""
        return self.options(name).filter(has_text=text).locator("input")


def tables(place: Locator) -> list[list[list[str]]]:
    """The texts of the cells of the rows of all tables."""
    return place.locator("table").evaluate_all(TABLES)
