"""Write the results of the benchmarks and the end of the quickstart into README.md; `--check` only compares.

python scripts/readme_tables.py [--check]
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from twotower_lib.exercises.results import newest, result

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
RESULTS = ROOT / "benchmarks" / "results"

PROTOCOLS = {"random": "random 80/20", "last": "last 20 % of each user"}
COLUMNS = ("", "recall@20", "NDCG@20", "recall@20: history tower minus it")
STEPS = ("bare loop", "tutorial loop", "tutorial loop, everything on", "ours: ids, no masks", "everything on")
SEARCHES = ("exact", "faiss flat", "faiss hnsw ef_search 64", "faiss hnsw ef_search 256")
SEARCHES += ("faiss ivf probes 8", "faiss ivf probes 32")
NAMES = {"random": "chance", "item-knn": "item-kNN", "ease": "EASE", "ials": "iALS"}
NAMES |= {f"{name}, recent": f"{NAMES[name]}, asked with the latest films" for name in ("item-knn", "ease", "ials")}


def cell(metric: dict[str, Any]) -> str:
    """A mean with its interval, and the distance between seeds where there are several."""
    spread = f" ± {decimal(metric['spread'])}" if len(metric["seeds"]) > 1 else ""
    return f"{decimal(metric['mean'])} [{decimal(metric['low'])}, {decimal(metric['high'])}]{spread}"


def decimal(value: float) -> str:
    """Three digits, without the zero before the point."""
    return f"{value:.3f}".replace("0.", ".", 1)


def signed(metric: dict[str, float]) -> str:
    """A difference with its interval."""
    parts = (f"{metric[name]:+.3f}".replace("0.", ".", 1) for name in ("mean", "low", "high"))
    return "{} [{}, {}]".format(*parts)


def results() -> str:
    """A table a protocol."""
    quality = result("quality_ml-100k", RESULTS)
    parts = []
    for protocol, title in PROTOCOLS.items():
        lines = [f"**{title}**", "", f"| {' | '.join(COLUMNS)} |", "|---|---|---|---|"]
        for name, row in quality[protocol].items():
            delta = row["differences"]["history tower"]["recall@20"]
            minus = {key: -delta[other] for key, other in (("mean", "mean"), ("low", "high"), ("high", "low"))}
            shown = "" if name == "history tower" else signed(minus)
            label = f"**{name}**" if name == "history tower" else NAMES.get(name, name)
            lines.append(f"| {label} | {cell(row['recall@20'])} | {cell(row['ndcg@20'])} | {shown} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


HELD_OUT_COLUMNS = ("capped_recall@20", "capped_recall@50", "ndcg@100")


def held_out() -> str:
    """Users whom no model met: recalls as in the tables of Mult-VAE, and the distance to EASE."""
    sides = result("held-out_latest-small", RESULTS)["sides"]
    lines = ["|  | recall@20 | recall@50 | NDCG@100 | NDCG@100: it minus EASE |", "|---|---|---|---|---|"]
    for name, side in reversed(sides.items()):
        row = side["test"]
        cells = [f"{decimal(one['mean'])} ± {decimal(one['spread'])}" for one in (row[key] for key in HELD_OUT_COLUMNS)]
        away = "" if name == "ease" else signed(row["minus ease"]["ndcg@100"])
        lines.append(f"| {NAMES.get(name, name)} | {' | '.join(cells)} | {away} |")
    return "\n".join(lines)


def quickstart() -> str:
    """What the quickstart printed after training when its result was stored."""
    printed = newest("quickstart", RESULTS).read_text().splitlines()
    start = next(place for place, line in enumerate(printed) if "users of the test part" in line)
    return "\n".join(["```", *(line.rstrip() for line in printed[start:]), "```"])


def speed() -> str:
    """Training steps, evaluation and start-up beside their floors."""
    steps = result("speed-step", RESULTS)
    lines = ["| one thread, d 64, MovieLens 100K | pairs a second | of the bare loop |", "|---|---|---|"]
    for size, rows in steps.items():
        for name in STEPS:
            row = rows[name]
            label = name.replace("ours: ", "ours, ") if name != "everything on" else "ours, everything on"
            lines.append(f"| batch {int(size):,}: {label} | {row['pairs_a_second']:,.0f} | {row['of_bare']:.2f} |")
    ranking, start = (result(theme, RESULTS) for theme in ("speed-evaluate", "speed-start"))
    ours, memory, help_ = ranking["ranking, known items removed"], ranking["memory_mb"], start["twotower --help"]
    return "\n".join(
        [
            *lines,
            "",
            f"Ranking 41 thousand items for 30 thousand users takes {ours['seconds']:.1f} s,",
            f"{ours['x_floor']:.2f} times the matrix product alone, and {memory:.0f} MB beyond the vectors.",
            f"`twotower --help` is there after {help_:.1f} s.",
        ]
    )


def index() -> str:
    """Exact and approximate search of three catalogues."""
    heads = ("one thread", *(f"{what}" for k in (10, 100) for what in (f"recall@{k}", "queries a second", "of exact")))
    heads = (*heads, "ms a query", "MB", "s to build")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    searches = result("speed-index", RESULTS)
    for title, search in searches.items():
        lines.append(f"| **{title}** |" + " |" * (len(heads) - 1))
        for name in SEARCHES:
            row = search["rows"][name]
            cells = [name.removeprefix("faiss ").replace("_", " ")]
            for k in (10, 100):
                speed = (f"{row[f'queries_a_second@{k}']:,.0f}", f"{row[f'of_exact@{k}']:.1f}")
                cells += [decimal(row[f"recall@{k}"]), *speed]
            cells += [f"{row['milliseconds@10']:.2f}", f"{row['bytes'] / 1e6:.1f}", f"{row['build_seconds']:.1f}"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *told(searches)])


def told(searches: dict[str, Any]) -> list[str]:
    """What the table of the indexes says; an assertion fails where it does not say so."""
    films, equal, biased = (search["rows"] for search in searches.values())
    others = [row["of_exact@10"] for name, row in films.items() if name != "exact"]
    assert max(others) < 1, "the films are not searched fastest by exact search"
    lists, graph = "faiss ivf probes 8", "faiss hnsw ef_search 64"
    assert equal[lists]["of_exact@10"] > 2 and equal[graph]["of_exact@10"] > 1
    assert min(equal[name]["recall@100"] for name in (lists, graph)) > 0.98
    assert biased[graph]["recall@10"] < 0.9 < 0.99 < biased[lists]["recall@10"]
    times = [f"{equal[name]['of_exact@10']:.1f}" for name in (lists, graph)]
    found = [f"{biased[name]['recall@10']:.2f}" for name in (graph, lists)]
    return [
        "Of 1,682 films, exact search finds the best ten faster than any index here: a small catalogue needs no",
        f"approximate one. Of 100,000 vectors of equal length, lists (ivf, 8 read) find them {times[0]} times as fast,",
        f"a graph (hnsw, 64 in view) {times[1]} times, and both miss next to nothing. Where a strong item bias makes",
        f"lengths differ, that graph finds {found[0]} of the best ten and those lists {found[1]}: measure the recall",
        "of your own index, as `twotower export` does.",
    ]


def trade() -> str:
    """Of each kind of index the fastest setting with a recall of .95, or the one that finds most."""
    lines = ["| one thread | recall@100 | queries a second | of exact | MB searched |", "|---|---|---|---|---|"]
    for title, one in result("index_trade", RESULTS).items():
        lines.append(f"| **{one['items']:,} vectors, {title}** | | | | |")
        kinds: dict[tuple[str, int | None], dict[str, Any]] = {}
        for row in one["rows"]:
            kind = (row["index"].split()[0], row["code"] or None)
            kinds[kind] = max(kinds.get(kind, row), row, key=worth)
        for (_, code), row in kinds.items():
            name = row["index"].replace("_", " ").replace("=", " ") + (f", {code} bytes a code" if code else "")
            pace = f"{row['queries_a_second']:,.0f} | {row['x_exact']:.1f} | {row['searched'] / 1e6:,.0f}"
            lines.append(f"| {name} | {decimal(row['recall'])} | {pace} |")
    return "\n".join(lines)


def worth(row: dict[str, Any]) -> tuple[float, float]:
    """What an index is judged by: whether it finds .95, then its pace; its recall where it does not."""
    return (1, row["queries_a_second"]) if row["recall"] >= 0.95 else (0, row["recall"])


MAKERS = {
    "quickstart": quickstart,
    "results": results,
    "speed": speed,
    "index": index,
    "trade": trade,
    "held-out": held_out,
}


def filled(text: str) -> str:
    """The README with everything between its markers written anew."""
    for name, make in MAKERS.items():
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        assert text.count(begin) == text.count(end) == 1, f"README.md needs one {begin} and one {end}"
        before, after = text.split(begin)[0], text.split(end)[1]
        text = f"{before}{begin}\n{make()}\n{end}{after}"
    return text


def main() -> None:
    """Write, or compare."""
    before = README.read_text(encoding="utf-8")
    after = filled(before)
    if "--check" in sys.argv:
        sys.exit(None if before == after else "README.md is not what the results say: python scripts/readme_tables.py")
    README.write_text(after, encoding="utf-8")


if __name__ == "__main__":
    main()
