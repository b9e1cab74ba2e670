"""The commands. Each is one step of the straight line in `recipe.py`; all work is done there.

Exit codes: 0; 2 for a person's mistake, told in a few lines; 1 for a fault of ours; 130 where a signal stopped a
training run, which `twotower resume` continues.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from twotower_lib.errors import SettingError, TwoTowerError

if TYPE_CHECKING:
    from twotower_lib.bundle import Bundle, Result
    from twotower_lib.training import Progress

# torch takes a second to import, so each command imports what it needs when it runs: `--help` stays instant.

STOPPED = 130
SHOWN_HISTORY = 10
OF_THE_EXTRA = {"fastapi", "prometheus_client", "uvicorn"}


class Commands(click.Group):
    """Prints a person's mistakes, and what the system refuses, without a traceback and leaves with code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (TwoTowerError, OSError) as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(2)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="twotower", prog_name="twotower")
def main() -> None:
    """Two-tower retrieval: train, evaluate, export, query.

    Settings follow a command as name=value, such as `twotower train data=toy train.epochs=5 out=runs/toy`.
    """


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def sources(as_json: bool) -> None:
    """What data can be fetched, under which licence, how large it is, and where it is now."""
    from twotower_lib.sources import SOURCES, located

    rows = []
    for name, source in SOURCES.items():
        found = located(name) if name != "csv" else None
        place = "" if found is None else ", ".join(str(path) for path in found.paths)
        sizes = {"users": source.users, "items": source.items, "interactions": source.interactions + source.test}
        rows.append({"name": name, "what": source.title, "licence": source.licence, **sizes, "here": place})
    if as_json:
        click.echo(json.dumps({"sources": rows}))
        return
    for row in rows:
        click.echo(_described(row))


def _described(row: Mapping[str, Any]) -> str:
    sizes = [f"{row[what]:,} {what}" for what in ("users", "items", "interactions") if row[what]]
    lines = [f"licence: {row['licence']}", f"size: {', '.join(sizes) or '-'}", f"here: {row['here'] or '-'}"]
    return "\n".join([f"{row['name']:<16} {row['what']}", *(f"{'':<16} {line}" for line in lines)])


@main.command()
@click.argument("names", nargs=-1, required=True)
def fetch(names: Sequence[str]) -> None:
    """Bring data sets into the cache ahead of time, verified, and say where each lies: twotower fetch ml-100k."""
    from twotower_lib.sources import fetch, source_named

    for name in names:
        source_named(name)  # a misspelt name is told before anything is downloaded
    for name in names:
        click.echo(f"{name:<16} {', '.join(str(path) for path in fetch(name).paths)}")


@main.command()
@click.argument("settings", nargs=-1)
@click.option("--force", is_flag=True, help="Replace a run that is there already.")
def train(settings: Sequence[str], force: bool) -> None:
    """Train a run.

    twotower train data=ml-100k model=history train=laptop out=runs/a train.epochs=20
    """
    out, overrides = _taken("out", settings)
    if out is None:
        raise SettingError("twotower train without a folder", "out=FOLDER, such as out=runs/a")
    from twotower_lib import recipe

    _leave(recipe.train(recipe.compose(overrides), Path(out), force, _say), Path(out))


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
def resume(run: Path) -> None:
    """Go on with a run that was stopped."""
    from twotower_lib import recipe

    _leave(recipe.resume(run, _say), run)


@main.command("sweep")
@click.argument("grid", type=click.Path(path_type=Path))
@click.argument("settings", nargs=-1)
@click.option("--force", is_flag=True, help="Take a changed grid; runs that the old one has too are kept.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end and nothing else.")
def sweep_(grid: Path, settings: Sequence[str], force: bool, as_json: bool) -> None:
    """Train every combination of a grid and compare them on validation. The same command goes on with a stopped one.

    twotower sweep grid.yaml data=ml-100k train=short out=sweeps/a

    The grid is a YAML file with a list of values a setting: {model: [id, history], loss.log_q: [0, 0.5, 1]}
    """
    out, overrides = _taken("out", settings)
    if out is None:
        raise SettingError("twotower sweep without a folder", "out=FOLDER, such as out=sweeps/a")
    from twotower_lib.sweep import sweep, trials

    told: dict[str, Any] = {} if as_json else {"report": _say, "begun": lambda trial: click.echo(f"run {trial.name}")}
    try:
        table = sweep(trials(grid, overrides), Path(out), force, **told)
    except KeyboardInterrupt:  # between two runs, or the second in one: what is on the disk is whole
        table = None
    if table is None:
        click.echo("stopped and saved; to go on: the same command again", err=True)
        sys.exit(STOPPED)
    judged = shlex.join(["twotower", "evaluate", table["run"][0], "part=test"])
    if as_json:
        click.echo(json.dumps({"rows": table.to_dict("records"), "best": table["run"][0], "next": judged}))
    else:
        shown = table.to_string(index=False, float_format="{:.4f}".format)
        click.echo(f"\n{shown}\n\nthe first is best on validation; to judge it on the test part: {judged}")


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("settings", nargs=-1)
@click.option("--against", default="", help="Baselines beside it: popularity,item-knn,ease,ials.")
@click.option("--point-in-time", "moments", is_flag=True, help="Ask at each held-out event, knowing what came before.")
@click.option("--all", "everything", is_flag=True, help="Print every metric; without it those that differ most.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with every metric and nothing else.")
def evaluate(run: Path, settings: Sequence[str], against: str, moments: bool, everything: bool, as_json: bool) -> None:
    """Judge a run: on its validation part, or with part=test on the test part."""
    part, rest = _taken("part", settings)
    if rest or part not in (None, "valid", "test"):
        raise SettingError(f"{' '.join(settings)}", "part=valid or part=test, and no other setting")
    from twotower_lib import recipe

    names = [name.strip() for name in against.split(",") if name.strip()]
    report = recipe.evaluate_run(run, names, "test" if part == "test" else "valid", moments=moments)
    text = str(report) if everything else report.short()
    click.echo(json.dumps(report.as_dict()) if as_json else text)


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("settings", nargs=-1)
@click.option("--force", is_flag=True, help="Replace a bundle that is there already.")
def export(run: Path, bundle: Path, settings: Sequence[str], force: bool) -> None:
    """Write the bundle of a complete run: towers, vocabularies, catalogue, vectors and index in one folder.

    The index is exact, or approximate: index=hnsw index.ef_search=128, or index=ivf index.probes=32.
    """
    from twotower_lib import recipe
    from twotower_lib.settings import overridden

    named = ["index.kind" + one[5:] if one.partition("=")[0] == "index" else one for one in settings]
    index = overridden(recipe.ExportSettings(), named).index
    recipe.export(run, bundle, force, index)
    found = "exact" if index.kind == "flat" else _recall(bundle)
    click.echo(f"wrote {bundle}; index {index.kind}, {found}")


def _recall(path: Path) -> str:
    """How much the approximate index of a bundle finds."""
    from twotower_lib.bundle import load

    return f"recall@10 {load(path).index_recall(10):.3f} against exact search"


@main.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--user", help="Id of a known user.")
@click.option("--history", multiple=True, help="Id of an item that a person without an id liked; repeat it.")
@click.option("--item", help="Id of an item: answer with similar ones.")
@click.option("-k", default=10, show_default=True, type=click.IntRange(1, 10_000), help="How many results.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def query(bundle: Path, user: str | None, history: Sequence[str], item: str | None, k: int, as_json: bool) -> None:
    """Ask a bundle: for a user, for a history, or for items similar to one."""
    if sum((user is not None, bool(history), item is not None)) != 1:
        raise SettingError("a query with none or several of --user, --history, --item", "one of them")
    from twotower_lib.bundle import load

    loaded = load(bundle)
    if user is not None:
        results = loaded.for_user(user, k)
    elif history:
        results = loaded.for_history(history, k)
    else:
        results = loaded.similar(str(item), k)
    if as_json:
        click.echo(json.dumps({"results": [vars(one) for one in results]}))
    else:
        click.echo(_answer(loaded, user, history, item, results))


def _answer(loaded: Bundle, user: str | None, history: Sequence[str], item: str | None, results: list[Result]) -> str:
    titles, items = loaded.catalogue.titles, loaded.catalogue.items
    if user is not None:
        rows = loaded.history_of(user)
        heading = f"user {user} knows {len(rows)} items; the last ones:"
        shown = [titles[row] for row in rows[-SHOWN_HISTORY:]]
    elif history:
        heading, shown = "history:", [titles[items.row(name)] for name in history]
    else:
        heading, shown = "similar to:", [titles[items.row(str(item))]]
    lines = [heading, *(f"    {title}" for title in shown), "", "rank  score  item"]
    lines += [f"{one.rank:>4}  {one.score:>5.3f}  {one.item:<6} {one.title}" for one in results]
    return "\n".join(lines)


@main.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--host", help="Address to listen at; without it 127.0.0.1, which only this machine reaches.")
@click.option("--port", type=int, help="Port; without it 8000. 0 takes any that is free.")
def serve(bundle: Path, host: str | None, port: int | None) -> None:
    """Answer over HTTP: recommendations, similar items, health and metrics, until Ctrl-C."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch and FAISS load: one request needs no second thread
    try:
        from twotower_lib import serving
    except ModuleNotFoundError as error:
        if error.name not in OF_THE_EXTRA:
            raise
        raise SettingError(
            f"{error.name} is not installed", 'the extra "serving"', 'pip install "twotower[serving]"'
        ) from None
    given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    serving.serve(bundle, serving.ServingSettings(**given))  # type: ignore[arg-type]


def _taken(name: str, settings: Sequence[str]) -> tuple[str | None, list[str]]:
    """The value of one setting that belongs to the command, and the settings that are left."""
    values = [one.partition("=")[2] for one in settings if one.startswith(f"{name}=")]
    return (values[-1] or None) if values else None, [one for one in settings if not one.startswith(f"{name}=")]


def _say(progress: Progress) -> None:
    shown = {name: value for name, value in progress.metrics.items() if name.startswith(("recall@", "ndcg@"))}
    metrics = "  ".join(f"{name} {value:.4f}" for name, value in shown.items())
    click.echo(
        f"{progress.phase:<6} epoch {progress.epoch:>3}  loss {progress.loss:.4f} (chance {progress.chance_loss:.4f})  "
        f"{progress.pairs_a_second:>9,.0f} pairs/s  {metrics}".rstrip()
    )


def _leave(complete: bool, run: Path) -> None:
    if complete:
        click.echo(f"done: {run}")
        return
    click.echo(f"stopped and saved; to go on: twotower resume {run}", err=True)
    sys.exit(STOPPED)


if __name__ == "__main__":
    main()
