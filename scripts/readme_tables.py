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
sys.path.insert(0, str(RESULTS.parent))

from published import PUBLISHED  # noqa: E402

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


TITLES = {
    "gowalla": "Gowalla, 29,858 users x 40,981 items",
    "yelp2018": "Yelp2018, 31,668 users x 38,048 items",
    "electronic": "Amazon Electronics, 13,455 users x 8,360 items",
}
SIZES = {"gowalla": 512, "yelp2018": 512, "electronic": 256}
"""Dimensions of our larger towers."""
POINT_IN_TIME = ("history tower, before", "EASE, recent", "EASE", "id towers", "popularity", "chance")


def public() -> str:
    """Published splits: our sides among the figures of others, the best recall first."""
    parts = []
    for data, title in TITLES.items():
        asked = result(f"public-{data}", RESULTS)["test"]
        rows = [
            (one.recall, f"| {one.model} | {four(one.recall)} | {four(one.ndcg)} | {one.source} |")
            for one in PUBLISHED[data]
        ]
        for side, row in asked.items():
            if "chosen on" in side:  # the same towers once more, for the text
                continue
            recall, ndcg = (f"{four(row[name]['mean'])}{between_seeds(row[name])}" for name in ("recall@20", "ndcg@20"))
            name = NAMES.get(side, side.replace("any d", f"d {SIZES[data]}"))
            name = name if side in NAMES or side == "popularity" else f"**{name}**"
            seconds = f", {max(row['seconds']):.0f} s" if len(row["seconds"]) > 1 else ""
            rows.append((row["recall@20"]["mean"], f"| {name} | {recall} | {ndcg} | here{seconds} |"))
        rows.sort(reverse=True)
        head = [f"| **{title}** | R@20 | N@20 | from |", "|---|---|---|---|"]
        parts.append("\n".join([*head, *(row for _, row in rows)]))
    leaks = result("leaks_ml-100k", RESULTS)["time"]["sides"]
    head = ["| **MovieLens 100K, point in time** | R@20 | N@20 |", "|---|---|---|"]
    rows_in_time = [
        f"| {name} | {decimal(leaks[name]['recall@20']['mean'])} | {decimal(leaks[name]['ndcg@20']['mean'])} |"
        for name in POINT_IN_TIME
    ]
    return "\n\n".join([*parts, "\n".join([*head, *rows_in_time])])


def nature() -> str:
    """How the published test parts were drawn, and what that does to validation."""
    head = "| | drift of the items | of as many drawn at random | validation is | item-kNN, R@20: validation, test |"
    lines = [head, "|---|---|---|---|---|"]
    for data, title in TITLES.items():
        of = result(f"public-{data}", RESULTS)
        drift, drawn = (f"{of['nature'][name]:.2f}" for name in ("drift", "drift of a random test part"))
        cut = "each user's last tenth" if "test share by place" in of["nature"] else "a random tenth"
        valid = of["tuned"]["item-knn"]["chosen"]["recall@20"]
        test = of["test"]["item-knn"]["recall@20"]["mean"]
        lines.append(f"| {title.split(',')[0]} | {drift} | {drawn} | {cut} | {decimal(valid)}, {decimal(test)} |")
    return "\n".join(lines)


IDEAS_ON = ("gowalla", "yelp2018")
IDEA_METRICS = ("recall@20", "ndcg@20")


def ideas() -> str:
    """Single changes of one tower on validation: what each adds, the mean over seeds, and between them."""
    tables = {data: result(f"public-{data}", RESULTS)["ideas"] for data in IDEAS_ON}
    base = "the d 64 tower"
    head = ["| | Gowalla R@20 | N@20 | Yelp2018 R@20 | N@20 |", "|---|---|---|---|---|"]
    whole = [of_seeds(table[base][name], "") for table in tables.values() for name in IDEA_METRICS]
    rows = []
    for idea in dict.fromkeys(name for table in tables.values() for name in table if name != base):
        added = {
            (data, name): [one - plain for one, plain in zip(table[idea][name], table[base][name], strict=True)]
            for data, table in tables.items()
            if idea in table
            for name in IDEA_METRICS
        }
        cells = [of_seeds(added.get((data, name), []), "+") for data in IDEAS_ON for name in IDEA_METRICS]
        worth = [sum(values) / len(values) for (_, name), values in added.items() if name == "ndcg@20"]
        rows.append((sum(worth) / len(worth), f"| {idea} | {' | '.join(cells)} |"))
    return "\n".join([*head, f"| **{base}** | {' | '.join(whole)} |", *(row for _, row in sorted(rows, reverse=True))])


def of_seeds(values: list[float], sign: str) -> str:
    """The mean over seeds and the distance between the best and the worst, four digits."""
    if not values:
        return ""
    mean = f"{sum(values) / len(values):{sign}.4f}".replace("0.", ".", 1)
    return f"{mean} ± {four(max(values) - min(values))}"


def four(value: float) -> str:
    """Four digits, as papers write them."""
    return f"{value:.4f}".replace("0.", ".", 1)


def between_seeds(metric: dict[str, Any]) -> str:
    """The distance between seeds, where there are several."""
    return f" ± {four(metric['spread'])}" if len(metric["seeds"]) > 1 else ""


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


def peers() -> str:
    """A step with tables of ids beside TensorFlow Recommenders, and beside the default Adam where tables are large."""
    lines = ["| one thread, tables of ids, d 64, no corrections | pairs a second | of the first |", "|---|---|---|"]
    for size, one in result("peers", RESULTS)["adam"].items():
        rows, theirs = one["rows"], one["fastest_of_tfrs"]
        labels = {theirs: "TensorFlow Recommenders", "tutorial loop": "tutorial loop", "ours": "**ours**"}
        for name, label in labels.items():
            pace = f"{rows[name]['pairs_a_second']:,.0f} | {rows[name]['of_tfrs']:.2f}"
            lines.append(f"| MovieLens 100K, batch {int(size):,}: {label} | {pace} |")
    labels = {"bare loop, default Adam": "bare loop, default Adam", "ours": "**ours**"}
    labels |= {"ours, lazy tables": "**ours**, `train.lazy_tables=true`"}
    for size, rows in result("speed-tables", RESULTS).items():
        for name, label in labels.items():
            pace = f"{rows[name]['pairs_a_second']:,.0f} | {rows[name]['of_default_adam']:.2f}"
            lines.append(f"| tables of Gowalla's size, batch {int(size):,}: {label} | {pace} |")
    return "\n".join(lines)


LOSSES = {
    "blocked, no log q, no masks": "blocked, bare",
    "blocked, log q and both masks": "blocked, log q and both masks",
    "whole table, no log q, no masks": "whole table, bare",
    "whole table, log q and both masks": "whole table, log q and both masks",
    "the same in a checkpoint": "the same in `torch.utils.checkpoint`",
}


def loss() -> str:
    """A loss with its gradients beside the three matmuls that none can do without: on a CPU, and on a GPU."""
    table = {name: one for name, one in result("loss-batch", RESULTS).items() if name.startswith("gowalla")}
    sizes = [f"{int(name.split(', ')[1]):,}" for name in table]
    lines = [f"| one thread, d 64, batches of Gowalla: times the three matmuls, extra memory | {' | '.join(sizes)} |"]
    lines.append("|---" * (len(sizes) + 1) + "|")
    for name, label in LOSSES.items():
        rows = [one["rows"].get(name) for one in table.values()]
        cells = [f"{row['x_floor']:.2f}, {row['peak_mb']:,.0f} MB" if row else "" for row in rows]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    large = [one["rows"] for name, one in result("loss-batch-gpu", RESULTS).items() if "262144" in name]
    lines += ["", "| one H200, d 128, batch 262,144 | bfloat16 | float32 | float32 as TF32 |", "|---|---|---|---|"]
    for name in list(LOSSES)[:2]:
        rows = [one[name] for one in large]
        cells = [f"{one['x_floor']:.2f}, {one['peak_mb']:,.0f} MB, {one['seconds']:.2f} s" for one in rows]
        lines.append(f"| {LOSSES[name]} | {' | '.join(cells)} |")
    return "\n".join(lines)


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
    "peers": peers,
    "loss": loss,
    "index": index,
    "trade": trade,
    "held-out": held_out,
    "public": public,
    "nature": nature,
    "ideas": ideas,
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
