"""A person's own files."""
from __future__ import annotations
from dataclasses import dataclass

@dataclass(frozen=True, kw_only=True)
class ColumnSettings:
    user: str = "user"
    item: str = "item"
    time: str | None = None
    rating: str | None = None
    title: str = "title"
    year: str = "year"
    categories: str = "categories"

def separator_of(path, separator): ...
