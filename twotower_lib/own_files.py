"""A person's own files: path -> `Tables`, or one `DataError` that lists every fault of every file.

Cells are text. Nothing is guessed, trimmed or turned into a number but times and ratings, so that the ids `007`, `NA`,
`9007199254740993`, `a b` and `x,y` come back exactly as they were written. Lines are counted as an editor counts them,
also where a quoted cell holds line breaks.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from twotower_lib.errors import DataError, SettingError, nearest
from twotower_lib.formats import Events, ItemTable, Tables, UserTable

if TYPE_CHECKING:
    from _csv import Reader

    import pandas as pd

EXAMPLES = 5
TABBED = {".tsv", ".tab", ".inter"}
NOT_A_RATING = ("rating is not a finite number", "ratings are not finite numbers")
NOT_A_TIME = (
    "time is not a number of seconds or an ISO 8601 date as the others are",
    "times are not numbers of seconds or ISO 8601 dates as the others are",
)


@dataclass(frozen=True, kw_only=True)
class ColumnSettings:
    """Names of the columns in a person's own files; time and rating are used only where they are named."""

    user: str = "user"
    item: str = "item"
    time: str | None = None
    rating: str | None = None
    title: str = "title"
    year: str = "year"
    categories: str = "categories"

    def __post_init__(self) -> None:
        roles = {role: name for role, name in vars(self).items() if role in ("user", "item", "time", "rating")}
        named = [name for name in roles.values() if name is not None]
        if len(set(named)) < len(named):
            shown = ", ".join(f"{role}={name}" for role, name in roles.items() if name is not None)
            raise SettingError(f"one column in two roles: data.columns.{shown}", "a column of its own for each")


@dataclass(frozen=True, kw_only=True)
class OwnFiles:
    """Which files there are, and how they are written."""

    interactions: str
    test: str | None = None
    items: str | None = None
    users: str | None = None
    columns: ColumnSettings = ColumnSettings()
    separator: str | None = None
    category_separator: str = "|"


@dataclass(frozen=True)
class Sheet:
    """One file: its columns as text, and the same rows in the form that is checked.

    The index of both frames is the line on which each row starts. In `values` times and ratings are numbers, NaN where
    a cell holds none.
    """

    name: str
    cells: pd.DataFrame
    values: pd.DataFrame


@dataclass(frozen=True)
class Rule:
    """What every row must keep, and how a fault is named.

    `kept` maps the values to one bool a row; `shown` is the column whose cell is quoted in the examples.
    """

    kept: Callable[[pd.DataFrame], pd.Series]
    one: str
    many: str
    shown: str | None = None


def read(files: OwnFiles) -> Tables:
    """Read and check all files.

    Raises:
        DataError: at least one file has a fault; the text lists them all with counts, examples and line numbers.
    """
    faults: list[str] = []
    parts = [_events_sheet(path, files, faults) for path in (files.interactions, files.test) if path]
    items = _described_sheet(files.items, "item", files.columns.item, _wanted_of_items(files.columns), files, faults)
    users = _described_sheet(files.users, "user", files.columns.user, (), files, faults)
    if faults:
        raise _data_error(faults)
    events = [_events(sheet, files.columns) for sheet in parts if sheet is not None]
    return Tables(
        events[0],
        events[1] if files.test else None,
        None if items is None else _item_table(items, files),
        None if users is None else _user_table(users, files.columns.user),
    )


def _data_error(faults: list[str]) -> DataError:
    count = f"{len(faults)} fault" + ("s" if len(faults) > 1 else "")
    return DataError(
        f"{count} in the data:\n" + "\n".join(f"  {fault}" for fault in faults),
        "UTF-8 text with a header line, an id in every row, finite numbers, and no row twice",
        "mend these lines, or name other columns with data.columns.user=NAME and its like",
    )


# A file as text ------------------------------------------------------------------------------------------------------


def separator_of(path: str, given: str | None) -> str:
    r"""What stands between cells: as given (`\t` and `tab` mean a tab), or by the extension.

    Raises:
        SettingError: what is given is not one character.
    """
    if given is None:
        return "\t" if Path(path).suffix.lower() in TABBED else ","
    separator = {"\\t": "\t", "tab": "\t"}.get(given, given)
    if len(separator) != 1 or separator in '"\r\n':
        raise SettingError(f'data.separator = "{given}"', "one character", "for a tab write data.separator=tab")
    return separator


def _cells(path: str, wanted: Sequence[str] | None, separator: str | None, faults: list[str]) -> pd.DataFrame | None:
    """The wanted columns (all of them where None) as text; what is wrong with the file is written into `faults`."""
    text = _text(path, faults)
    if text is None:
        return None
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator_of(path, separator), strict=True)
    rows = _numbered(reader)
    try:
        _, header = next(rows, (0, []))
        if not header:
            faults.append(f"{path}: the file is empty")
        elif _header_is_good(path, header, wanted or (), faults):
            return _frame(path, rows, header, wanted or header, faults)
    except csv.Error as error:
        faults.append(f"{path}: a quote is never closed, or text follows a closing quote ({error})")
    return None


def _numbered(reader: Reader) -> Iterator[tuple[int, list[str]]]:
    """The line on which a row starts, and its cells, for every row that is not blank; errors name that line too."""
    start = 1
    try:
        for row in reader:
            if row:
                yield start, row
            start = reader.line_num + 1
    except csv.Error:
        raise csv.Error(f"row of line {start}") from None


def _text(path: str, faults: list[str]) -> str | None:
    """The whole file, without a byte-order mark."""
    if Path(path).is_dir():
        faults.append(f"{path}: a folder, not a file")
        return None
    try:
        content = Path(path).read_bytes()
        return content.decode("utf-8").removeprefix("\ufeff")
    except FileNotFoundError:
        faults.append(f"{path}: there is no such file")
    except OSError as error:
        faults.append(f"{path}: cannot be opened ({error.strerror})")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        faults.append(f"{path}: not UTF-8 at byte {error.start} (line {line}); save it as UTF-8")
    return None


def _header_is_good(path: str, header: list[str], wanted: Sequence[str], faults: list[str]) -> bool:
    """Every wanted column is there once."""
    before = len(faults)
    missing = [name for name in wanted if name not in header]
    other = next((mark for mark in ",;\t|" if mark in header[0]), None)
    if missing and len(header) == 1 and other:
        mark = "tab" if other == "\t" else other
        faults.append(f'{path}: one column only, "{header[0]}"; give data.separator="{mark}"')
        return False
    for name in missing:
        close = nearest(name, header)
        hint = f"; {close}" if close.startswith("did you mean") else ""
        faults.append(f'{path}: no column "{name}"; it has {", ".join(header)}{hint}')
    twice = [name for name in wanted if header.count(name) > 1]
    faults.extend(f'{path}: {header.count(name)} columns are named "{name}"' for name in twice)
    return len(faults) == before


def _frame(
    path: str, rows: Iterator[tuple[int, list[str]]], header: list[str], wanted: Sequence[str], faults: list[str]
) -> pd.DataFrame | None:
    """The wanted columns of the remaining rows; short rows are filled up with empty cells, long ones are a fault."""
    import pandas as pd

    columns: dict[str, list[str]] = {name: [] for name in wanted}
    adders = [(column.append, header.index(name)) for name, column in columns.items()]
    lines: list[int] = []
    long: list[int] = []
    width = len(header)
    for line, row in rows:
        if len(row) > width:
            long.append(line)
        else:
            lines.append(line)
            row += [""] * (width - len(row))
            for add, place in adders:
                add(row[place])
    if long:
        what = "row has" if len(long) == 1 else "rows have"
        faults.append(f"{path}: {len(long)} {what} more cells than the {width} of the header ({_lines(long)})")
    elif not lines:
        faults.append(f"{path}: a header and no rows")
    if not lines:
        return None
    return pd.DataFrame(columns, index=lines, dtype=object)


# The rules -----------------------------------------------------------------------------------------------------------


def _events_sheet(path: str, files: OwnFiles, faults: list[str]) -> Sheet | None:
    """A file of events, checked."""
    names = files.columns
    wanted = [name for name in (names.user, names.item, names.time, names.rating) if name is not None]
    cells = _cells(path, wanted, files.separator, faults)
    if cells is None:
        return None
    values = cells.copy(deep=False)
    rules = [_filled(names.user, "user"), _filled(names.item, "item")]
    if names.time is not None:
        values[names.time] = _seconds(cells[names.time])
        rules.append(_known(names.time, *NOT_A_TIME))
    if names.rating is not None:
        values[names.rating] = _ratings(cells[names.rating])
        rules.append(_known(names.rating, *NOT_A_RATING))
    rules.append(Rule(lambda frame: ~frame.duplicated(), "row repeats an earlier one", "rows repeat an earlier one"))
    return _checked(Sheet(path, cells, values), rules, faults)


def _described_sheet(
    path: str | None, kind: str, key: str, wanted: Sequence[str], files: OwnFiles, faults: list[str]
) -> Sheet | None:
    """A file that describes users or items, checked: every id there once."""
    cells = None if path is None else _cells(path, None, files.separator, faults)
    if path is None or cells is None or not _header_is_good(path, list(cells.columns), (key, *wanted), faults):
        return None
    once = Rule(lambda frame: ~frame[key].duplicated(), f"{kind} id occurs again", f"{kind} ids occur again", key)
    return _checked(Sheet(path, cells, cells), [_filled(key, kind), once], faults)


def _wanted_of_items(names: ColumnSettings) -> tuple[str, ...]:
    """Columns of the items file that were named by the person; those with their default names may be missing."""
    usual = ColumnSettings()
    roles = ("title", "year", "categories")
    return tuple(getattr(names, role) for role in roles if getattr(names, role) != getattr(usual, role))


def _filled(column: str, kind: str) -> Rule:
    return Rule(lambda frame: frame[column].str.strip() != "", f"empty {kind} id", f"empty {kind} ids")


def _known(column: str, one: str, many: str) -> Rule:
    return Rule(lambda frame: frame[column].notna(), one, many, column)


def _ratings(cells: pd.Series) -> pd.Series:
    """Finite numbers that a float32 holds; NaN for everything else."""
    import pandas as pd

    numbers = pd.to_numeric(cells, errors="coerce").astype(np.float64)
    return numbers.where(numbers.abs() <= np.finfo(np.float32).max)


def _seconds(cells: pd.Series) -> pd.Series:
    """Unix seconds, with fractions; NaN for what is not of the kind that most cells of the column are of."""
    import pandas as pd

    numbers = pd.to_numeric(cells, errors="coerce").astype(np.float64)
    if numbers.notna().mean() >= 0.5:
        return numbers.where(numbers.abs() < 2**53)
    dates = pd.to_datetime(cells, format="ISO8601", utc=True, errors="coerce")
    return (dates - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1)


def _checked(sheet: Sheet, rules: Sequence[Rule], faults: list[str]) -> Sheet:
    """The same sheet after all rules were checked at once; a line is written for each that is broken."""
    import pandera.errors
    import pandera.pandas as pa

    checks = [pa.Check(rule.kept, name=str(number)) for number, rule in enumerate(rules)]
    try:
        pa.DataFrameSchema(checks=checks).validate(sheet.values, lazy=True)
    except pandera.errors.SchemaErrors as errors:
        broken = errors.failure_cases.groupby("check")["index"].unique()
        faults.extend(
            _fault(sheet, rule, sorted(int(line) for line in broken[str(number)]))
            for number, rule in enumerate(rules)
            if str(number) in broken
        )
    return sheet


def _fault(sheet: Sheet, rule: Rule, lines: list[int]) -> str:
    """`clicks.csv: 2 ratings are not finite numbers (line 5: "abc", line 7: "inf")`."""
    what = rule.one if len(lines) == 1 else rule.many
    if rule.shown is None:
        return f"{sheet.name}: {len(lines)} {what} ({_lines(lines)})"
    cells = sheet.cells[rule.shown].loc[lines[:EXAMPLES]].tolist()
    shown = ", ".join(f'line {line}: "{cell}"' for line, cell in zip(lines, cells, strict=False))
    return f"{sheet.name}: {len(lines)} {what} ({shown}{_more(lines)})"


def _lines(lines: list[int]) -> str:
    """`line 4` or `lines 4, 9, 17`."""
    shown = ", ".join(str(line) for line in lines[:EXAMPLES])
    return f"line{'s' if len(lines) > 1 else ''} {shown}{_more(lines)}"


def _more(lines: list[int]) -> str:
    return ", ..." if len(lines) > EXAMPLES else ""


# Checked sheets to tables --------------------------------------------------------------------------------------------


def _events(sheet: Sheet, names: ColumnSettings) -> Events:
    values = sheet.values
    return Events(
        values[names.user].tolist(),
        values[names.item].tolist(),
        None if names.time is None else np.floor(values[names.time].to_numpy()).astype(np.int64),
        None if names.rating is None else values[names.rating].to_numpy(np.float32),
    )


def _item_table(sheet: Sheet, files: OwnFiles) -> ItemTable:
    names, cells = files.columns, sheet.cells
    title, year, categories = (
        cells[name].tolist() if name in cells.columns else [""] * len(cells)
        for name in (names.title, names.year, names.categories)
    )
    mark = files.category_separator
    split = [tuple(part.strip() for part in cell.split(mark) if part.strip()) for cell in categories]
    return ItemTable(cells[names.item].tolist(), title, year, split)


def _user_table(sheet: Sheet, key: str) -> UserTable:
    cells = sheet.cells
    return UserTable(cells[key].tolist(), {name: cells[name].tolist() for name in cells.columns if name != key})
