"""Generate datasets/README.md from the registry of sources; with --check exit with 1 if it would change.

python scripts/dataset_readme.py [--check]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from twotower_lib.sources import CACHE_VARIABLE, MIRROR_VARIABLE, SOURCES, Address, Source

FILE = Path(__file__).parent.parent / "datasets" / "README.md"

HEAD = f"""# Data sets

Generated from `twotower_lib/sources.py` by `python scripts/dataset_readme.py`; do not edit.

Choose one with `data=NAME`. What has to be fetched is looked for in the folder named by `{MIRROR_VARIABLE}`, then in
the cache (`{CACHE_VARIABLE}`, or the system's cache folder), then at the public addresses in the order given here.
Nothing but `toy.csv` is part of this project: data that others own is downloaded, verified and kept in your cache.

Every file is checked by its hash where that is known. Whatever address a set came from, the pairs of user and item must
hash to the value given as *pairs*: sha256 over the lines `user<TAB>item` in the order of rows (ids by length, then as
text), then, where a test part is published, the line `test` and its pairs in the same form.

| `data=` | what | users | items | interactions | test | licence |
|---|---|---:|---:|---:|---:|---|
"""


def row(source: Source) -> str:
    """A line of the table."""
    counts = (f"{count:,}" if count else "" for count in (source.users, source.items, source.interactions, source.test))
    return f"| [`{source.name}`](#{source.name}) | {source.title} | {' | '.join(counts)} | {source.licence} |\n"


def where(address: Address) -> list[str]:
    """A line for each file of an address."""
    how = {"shipped": "part of this project", "mirror": f"in a folder named by `{MIRROR_VARIABLE}`"}
    lines = []
    for file in address.files:
        place = how.get(address.via) or (f"<{file.at}>" if address.via == "https" else f"`pip download {file.at}`")
        checked = f"`{file.hash}`" if file.hash else "checked by its pairs"
        lines.append(f"  - `{file.name}`: {place}; {checked}")
    return lines


def section(source: Source) -> str:
    """All about one source."""
    lines = [
        f"## {source.name}",
        "",
        f"{source.title}.",
        "",
        f"- Schema: {source.schema}",
        f"- Licence: {source.licence}",
    ]
    if source.citation:
        lines.append(f"- Citation: {source.citation}")
    if source.addresses:
        lines += ["- Files:", *(line for address in source.addresses for line in where(address))]
    else:
        lines.append("- Files: your own, `data=csv data.interactions=FILE`")
    if source.sha256:
        lines.append(f"- Pairs: `sha256:{source.sha256}`")
    return "\n".join(lines) + "\n"


def text() -> str:
    """The whole file."""
    sources = SOURCES.values()
    return HEAD + "".join(map(row, sources)) + "\n" + "\n".join(map(section, sources))


def main() -> int:
    """Write the file, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="exit with 1 if the file would change")
    if not parser.parse_args().check:
        FILE.write_text(text(), encoding="utf-8")
        return 0
    if not FILE.is_file() or FILE.read_text(encoding="utf-8") != text():
        print(f"{FILE} is not what the registry says; run python scripts/dataset_readme.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
