"""The commands: what they print, how they end, and what a person's own files go through."""

from __future__ import annotations

import csv
import hashlib
import http.client
import json
import os
import re
import shlex
import shutil
import signal
import socket
import sys
from importlib import metadata
from pathlib import Path

import pytest
from click.testing import CliRunner

import twotower_lib
from twotower_lib import formats
from twotower_lib.baselines import BASELINES
from twotower_lib.bundle import load
from twotower_lib.cli import main
from twotower_lib.sources import SOURCES, fetch

pytest_plugins = ["tests.commands"]

ROOT = Path(__file__).parent.parent
MIRROR = Path(os.environ.get("TWOTOWER_MIRROR") or ROOT.parent / "shared" / "data")
SMALL = ("data=toy", "model.dim=8", "train.epochs=2", "train.batch_size=128")
SLICES = ("[warm users]", "[head]", "[torso]", "[tail]")


@pytest.fixture(scope="module")
def made(twotower, tmp_path_factory):
    """A run and its bundle that no test changes."""
    folder = tmp_path_factory.mktemp("cli")
    twotower.good("train", *SMALL, f"out={folder / 'run'}")
    twotower.good("export", folder / "run", folder / "bundle")
    return folder / "run", folder / "bundle"


def refused(done, *said, lines=3):
    """A person's mistake: code 2, a few lines on standard error, no traceback, nothing on standard output."""
    assert (done.code, done.out) == (2, ""), done
    assert done.err.startswith("error: ")
    assert len(done.err.splitlines()) <= lines, done.err
    assert "Traceback" not in done.err
    for text in said:
        assert text in done.err


def invoked(*arguments):
    """A command by click's own runner."""
    return CliRunner().invoke(main, [str(one) for one in arguments])


# Help and sources ----------------------------------------------------------------------------------------------------


def test_help_names_every_command():
    done = invoked("--help")
    assert done.exit_code == 0
    assert list(main.commands) == [
        "sources",
        "fetch",
        "train",
        "resume",
        "sweep",
        "evaluate",
        "export",
        "query",
        "serve",
    ]
    for name, command in main.commands.items():
        assert f"\n  {name} " in done.output
        assert command.help
        own = invoked(name, "-h")
        assert own.exit_code == 0 and own.output.startswith("Usage: ")
        assert all(option in own.output for one in command.params for option in one.opts if option.startswith("-"))


def test_every_baseline_of_the_help_is_one():
    text = next(one.help for one in main.commands["evaluate"].params if one.name == "against")
    assert set(text.partition(": ")[2].rstrip(".").split(",")) == set(BASELINES) - {"random"}


def test_the_version():
    try:
        version = metadata.version("twotower")
    except metadata.PackageNotFoundError:
        pytest.skip("the package is not installed here, only its folder is on the path")
    assert invoked("--version").output == f"twotower, version {version}\n"


def test_sources_says_licence_size_and_place(monkeypatch, tmp_path):
    monkeypatch.setenv("TWOTOWER_CACHE", str(tmp_path))
    monkeypatch.delenv("TWOTOWER_MIRROR", raising=False)
    lines = invoked("sources").output.splitlines()
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == list(SOURCES)
    assert "size: 943 users, 1,682 items, 100,000 interactions" in lines[2]
    assert [line.strip() for line in lines].count("here: -") == len(SOURCES) - 1
    assert sum(line.strip().startswith("licence: ") for line in lines) == len(SOURCES)


def test_sources_as_json(twotower):
    found = twotower.good("sources", "--json").json["sources"]
    assert [one["name"] for one in found] == list(SOURCES)
    assert {one["name"]: one["here"] for one in found}["toy"] == str(ROOT / "datasets" / "toy.csv")
    assert all(one.keys() == {"name", "what", "licence", "users", "items", "interactions", "here"} for one in found)


def test_fetch_says_where_each_data_set_lies(twotower, tmp_path):
    done = twotower.good("fetch", "toy", "toy", env={"TWOTOWER_CACHE": str(tmp_path / "cache")})
    assert done.out == f"toy              {ROOT / 'datasets' / 'toy.csv'}\n" * 2


def test_fetch_takes_what_is_in_the_mirror_and_verifies_it(twotower, tmp_path):
    (tmp_path / "ml-100k.zip").write_bytes(b"not the archive")
    places = {"TWOTOWER_CACHE": str(tmp_path / "cache"), "TWOTOWER_MIRROR": str(tmp_path)}
    done = twotower("fetch", "toy", "ml-100k", env=twotower.offline | places)
    assert (done.code, done.out.split()[0]) == (2, "toy")  # what came before it is told
    assert f"{tmp_path / 'ml-100k.zip'}: its hash is not the one of the registry" in done.err


def test_fetch_looks_at_every_name_first(twotower):
    refused(twotower("fetch", "toy", "ml-100"), 'no data set "ml-100"', "did you mean ml-100k?")
    refused(twotower("fetch", "csv"), "nothing can be fetched for csv")
    done = twotower("fetch")
    assert (done.code, done.out) == (2, "") and "Missing argument 'NAMES...'" in done.err


def test_a_command_that_is_not_there():
    done = invoked("evalute")
    assert done.exit_code == 2 and "No such command 'evalute'" in done.output


# train ---------------------------------------------------------------------------------------------------------------


def test_train_prints_a_line_an_epoch(twotower, tmp_path):
    done = twotower.good("train", *SMALL, f"out={tmp_path / 'run'}")
    *lines, last = done.out.splitlines()
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert last == f"done: {tmp_path / 'run'}"
    assert len(lines) == len(log)
    for line, noted in zip(lines, log, strict=True):
        assert line.startswith(
            f"{noted['phase']:<6} epoch {noted['epoch']:>3}  loss {noted['loss']:.4f} (chance 4.8520)"
        )
        assert ("ndcg@20" in line) == (noted["phase"] == "choose")
    assert done.err == ""


def test_train_needs_a_folder(twotower):
    refused(twotower("train", *SMALL), "twotower train without a folder", "out=FOLDER")
    refused(twotower("train", *SMALL, "out="), "twotower train without a folder")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data=ml100k", "did you mean ml-100k?"),
        ("train.epoch=3", "did you mean train.epochs?"),
        ("train.epochs=many", "needed: a whole number"),
        ("model.dim=0", "model.dim = 0"),
        ("train.device=cuda:99", "train.device = cuda:99"),
        ("split.protocol=given", "toy has no test part"),
        ("split.test=0.0001", "is empty"),
    ],
)
def test_a_wrong_setting_leaves_no_folder(twotower, tmp_path, override, said):
    refused(twotower("train", *SMALL, override, f"out={tmp_path / 'deep' / 'run'}"), said)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there(twotower, made, tmp_path):
    out = shutil.copytree(made[0], tmp_path / "run")
    refused(twotower("train", *SMALL, f"out={out}"), f"{out} exists already", "--force")
    twotower.good("train", *SMALL, f"out={out}", "--force")
    (tmp_path / "mine").mkdir()
    refused(twotower("train", *SMALL, f"out={tmp_path / 'mine'}", "--force"), "was not written by this program")


def test_resume(twotower, made, tmp_path):
    assert twotower.good("resume", made[0]).out == f"done: {made[0]}\n"
    refused(twotower("resume", tmp_path), f"no run in {tmp_path}")


# evaluate ------------------------------------------------------------------------------------------------------------


def test_evaluate_as_json(twotower, made):
    done = twotower.good("evaluate", made[0], "part=test", "--against", "popularity, item-knn,ease,ials", "--json")
    report = done.json
    assert done.err == ""
    names = ("recall", "capped_recall", "precision", "hit_rate", "mrr", "ndcg", "map", "popularity")
    for metric in [f"{name}@20" for name in names] + [f"recall@20{part}" for part in SLICES]:
        for table in (
            report["metrics"],
            *(report["baselines"][name]["metrics"] for name in ("popularity", "item-knn", "ease", "ials")),
        ):
            one = table[metric]
            assert one.keys() == {"mean", "low", "high"}
            assert one["mean"] is None or one["low"] <= one["mean"] <= one["high"]
        assert metric in report["chance"]
        assert report["differences"]["ease"][metric].keys() == {"mean", "low", "high"}
    assert list(report["baselines"]) == list(report["differences"]) == ["popularity", "item-knn", "ease", "ials"]
    assert (report["users"], report["protocol"], report["part"]) == (60, "last", "test")
    assert report["data"]["sha256"] == SOURCES["toy"].sha256


def test_evaluate_point_in_time(twotower, made):
    report = twotower.good("evaluate", made[0], "part=test", "--point-in-time", "--json").json
    assert report["asked"] == "point in time" and report["questions"] > report["users"] > 0
    text = twotower.good("evaluate", made[0], "--point-in-time").out
    assert "users of the valid part, split last, point in time (a last-fraction split knows" in text


def test_evaluate_as_text(twotower, made):
    text = twotower.good("evaluate", made[0]).out
    assert "users of the valid part" in text
    assert all(word in text for word in ("recall@20", "ndcg@20", "chance", "popularity", "95 % intervals"))
    assert twotower.good("evaluate", made[0], "part=valid").out == text
    assert "users of the test part" in twotower.good("evaluate", made[0], "part=test").out
    everything = twotower.good("evaluate", made[0], "--all").out
    assert set(text.splitlines()) <= set(everything.splitlines()) and "map@20" in everything


@pytest.mark.parametrize("setting", ["part=tets", "part=train", "train.epochs=3", "part=test x"])
def test_evaluate_takes_no_other_settings(twotower, made, setting):
    refused(twotower("evaluate", made[0], *setting.split()), "part=valid or part=test, and no other setting")


def test_evaluate_against_something_unknown(twotower, made):
    refused(twotower("evaluate", made[0], "--against", "popularity,easy"), "no baseline is called easy", "mean ease?")


def test_evaluate_no_run(twotower, tmp_path):
    refused(twotower("evaluate", tmp_path), f"no run in {tmp_path}: it holds no recipe.yaml")


# export and query ----------------------------------------------------------------------------------------------------


def test_export(twotower, made, tmp_path):
    assert twotower.good("export", made[0], tmp_path / "b").out == f"wrote {tmp_path / 'b'}; index flat, exact\n"
    refused(twotower("export", made[0], tmp_path / "b"), "exists already", "--force")
    twotower.good("export", made[0], tmp_path / "b", "--force")
    refused(twotower("export", tmp_path, tmp_path / "c"), "no run in")
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("settings", [("index=hnsw", "index.ef_search=9"), ("index.kind=ivf", "index.lists=3")])
def test_export_with_an_approximate_index_tells_its_recall(twotower, made, tmp_path, settings):
    """Of a catalogue of 40 items every search is exact in the end."""
    kind = settings[0].partition("=")[2]
    done = twotower.good("export", made[0], tmp_path / "b", *settings)
    assert done.out == f"wrote {tmp_path / 'b'}; index {kind}, recall@10 1.000 against exact search\n"
    index = load(tmp_path / "b").facts["index"]
    name, _, value = settings[1].removeprefix("index.").partition("=")
    assert (index["kind"], index[name]) == (kind, int(value))
    assert len(twotower.good("query", tmp_path / "b", "--user", "p01", "--json").json["results"]) == 10


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("index=hnws", "index.kind = hnws\nneeded: flat, hnsw, ivf, pq, ivfpq\nto do: did you mean hnsw?"),
        ("index", "index.kind without a value\nneeded: index.kind=VALUE"),
        (
            "index.ef_serch=9",
            "no setting is called index.ef_serch\nneeded: a known name\nto do: did you mean index.ef_s",
        ),
        ("index.ef_search=many", "index.ef_search = many\nneeded: a whole number"),
        ("index.probes=0", "index.probes = 0\nneeded: 1 or more"),
        ("part=test", "no setting is called part"),
    ],
)
def test_export_with_a_wrong_setting_writes_nothing(twotower, made, tmp_path, setting, said):
    refused(twotower("export", made[0], tmp_path / "b", setting), said)
    assert list(tmp_path.iterdir()) == []


ASKED = {"user": ("--user", "p01"), "history": ("--history", "f01", "--history", "f02"), "item": ("--item", "f01")}


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED.keys())
def test_query_as_json_and_as_text(twotower, made, asked):
    done = twotower.good("query", made[1], *asked, "-k", "5", "--json")
    assert done.err == "" and done.json.keys() == {"results"}
    results = done.json["results"]
    assert [one["rank"] for one in results] == [1, 2, 3, 4, 5]
    assert all(one.keys() == {"item", "title", "score", "rank"} for one in results)
    assert [one["score"] for one in results] == sorted((one["score"] for one in results), reverse=True)
    assert not {one["item"] for one in results} & set(asked)
    text = twotower.good("query", made[1], *asked, "-k", "5").out.splitlines()
    rows = text[text.index("rank  score  item") + 1 :]
    assert [row.split(maxsplit=3) for row in rows] == [
        [str(one["rank"]), f"{one['score']:.3f}", one["item"], one["title"]] for one in results
    ]


def test_query_shows_what_is_known_beside_the_answer(twotower, made):
    text = twotower.good("query", made[1], "--user", "p01").out
    assert text.startswith("user p01 knows 12 items; the last ones:\n    ")
    assert len([line for line in text.splitlines() if line.startswith("    ")]) == 10
    history = twotower.good("query", made[1], "--history", "f01", "--history", "f02").out
    assert history.startswith("history:\n    The Long Way to Ceres\n    Seven Spoons for Aunt Odile\n\nrank")
    assert twotower.good("query", made[1], "--item", "f01").out.startswith("similar to:\n    The Long Way to Ceres\n")


@pytest.mark.parametrize(("asked", "left"), [("user", 28), ("history", 38), ("item", 39)])
def test_query_for_more_than_there_is(twotower, made, asked, left):
    results = twotower.good("query", made[1], *ASKED[asked], "-k", "10000", "--json").json["results"]
    assert len(results) == len({one["item"] for one in results}) == left


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("--user", "p001"), ('user "p001" is not among the 60 users', "did you mean p01?")),
        (("--item", "F01"), ('item "F01" is not among the 40 items', "did you mean f01?")),
        (("--history", "f01", "--history", "f001"), ('item "f001" is not among', "did you mean f01?")),
        (("--user", ""), ('user "" is not among the 60 users',)),
        ((), ("a query with none or several of --user, --history, --item",)),
        (("--user", "p01", "--item", "f01"), ("a query with none or several of",)),
        (("--history", "f01", "--item", "f01"), ("a query with none or several of",)),
    ],
    ids=str,
)
def test_query_that_cannot_be_answered(twotower, made, asked, said):
    refused(twotower("query", made[1], *asked), *said)
    refused(twotower("query", made[1], *asked, "--json"), *said)


@pytest.mark.parametrize("k", ["0", "-1", "x", "2.5"])
def test_query_for_a_number_that_is_none(twotower, made, k):
    done = twotower("query", made[1], "--user", "p01", "-k", k)
    assert (done.code, done.out) == (2, "") and "Invalid value for '-k'" in done.err


def test_query_what_is_no_bundle(twotower, made, tmp_path):
    refused(twotower("query", tmp_path / "nowhere", "--user", "p01"), "no folder")
    refused(twotower("query", made[0], "--user", "p01"), "manifest.json is missing")
    broken = shutil.copytree(made[1], tmp_path / "broken")
    content = bytearray((broken / "vectors.safetensors").read_bytes())
    content[-1] ^= 1
    (broken / "vectors.safetensors").write_bytes(content)
    refused(twotower("query", broken, "--user", "p01"), f"{broken / 'vectors.safetensors'} is damaged")


def test_click_says_the_same_as_a_process(made):
    """The runner, as somebody would use the commands from Python."""
    assert invoked("query", made[1], "--item", "f01").output.startswith("similar to:\n")
    done = invoked("query", made[1], "--item", "F01")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith('error: item "F01" is not among')


@pytest.mark.slow
def test_a_real_process_from_train_to_query(twotower, tmp_path):
    run, bundle = tmp_path / "a run", tmp_path / "a bundle"
    assert twotower.real("train", *SMALL, f"out={run}").code == 0
    refused(twotower.real("train", *SMALL, f"out={run}"), "exists already")
    assert twotower.real("evaluate", run, "--json").json["part"] == "valid"
    assert twotower.real("export", run, bundle).code == 0
    assert len(twotower.real("query", bundle, "--user", "p01", "--json").json["results"]) == 10


# serve ---------------------------------------------------------------------------------------------------------------


def test_serve_says_how_to_ask_and_leaves_in_peace(twotower, made):
    with twotower.start("serve", made[1], "--port", "0") as process:
        line = process.stdout.readline()
        said = re.fullmatch(rf"serving {made[1]} at http://127\.0\.0\.1:(\d+); try: curl -s (.*)\n", line)
        url, *options = shlex.split(said[2])
        assert url == f"http://127.0.0.1:{said[1]}/v1/recommend"
        assert options == ["-H", "content-type: application/json", "-d", '{"user": "p01", "k": 5}']
        connection = http.client.HTTPConnection("127.0.0.1", int(said[1]), timeout=20)
        connection.request("POST", "/v1/recommend", options[3], {"content-type": "application/json"})
        results = json.loads(connection.getresponse().read())["results"]
        connection.request("GET", "/readyz")
        served = json.loads(connection.getresponse().read())["bundle"]
        connection.close()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert {"results": results} == twotower.good("query", made[1], "--user", "p01", "-k", "5", "--json").json
    assert served["manifest_sha256"] == hashlib.sha256((made[1] / "manifest.json").read_bytes()).hexdigest()
    assert (served["name"], served["protocol"]) == (made[1].name, "last")
    assert (process.returncode, out) == (0, "")
    assert [entry.split()[2:5] for entry in err.splitlines()] == [
        ["POST", "/v1/recommend", "200"],
        ["GET", "/readyz", "200"],
    ]


def test_serve_what_is_no_bundle(twotower, made, tmp_path):
    refused(twotower("serve", tmp_path / "nowhere", "--port", "0"), "no folder")
    refused(twotower("serve", made[0], "--port", "0"), "manifest.json is missing")
    broken = shutil.copytree(made[1], tmp_path / "broken")
    (broken / "index.faiss").write_bytes(b"")
    refused(twotower("serve", broken, "--port", "0"), f"{broken / 'index.faiss'} is damaged")


def test_serve_at_an_address_that_cannot_be_used(twotower, made):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused(twotower("serve", made[1], "--port", str(port)), f"port {port}: Address already in use", "--port 0")
    refused(twotower("serve", made[1], "--host", "192.0.2.1", "--port", "0"), "host 192.0.2.1, port 0: ")
    refused(twotower("serve", made[1], "--port", "65536"), "port = 65536", "needed: a number from 0 to 65535")


@pytest.mark.parametrize("missing", ["fastapi", "prometheus_client", "uvicorn"])
def test_serve_without_the_extra(made, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, "twotower_lib.serving", raising=False)
    monkeypatch.delattr(twotower_lib, "serving", raising=False)
    done = invoked("serve", made[1])
    assert (done.exit_code, done.stdout) == (2, "")
    lines = [
        f"error: {missing} is not installed",
        'needed: the extra "serving"',
        'to do: pip install "twotower[serving]"',
    ]
    assert done.stderr.splitlines() == lines


def test_the_help_of_serve_says_the_defaults():
    from twotower_lib.serving import ServingSettings

    told = {one.name: one.help for one in main.commands["serve"].params if one.name != "bundle"}
    assert told.keys() == {"host", "port"}
    assert all(f"without it {getattr(ServingSettings(), name)}" in text for name, text in told.items())


# A person's own files ------------------------------------------------------------------------------------------------

WEIRD = ["007", "7", "NA", "9007199254740993", "9007199254740992", "a b", "x,y", "\N{ROCKET}", "nan", '"q"', "=1", "{}"]


def write(path, header, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture(scope="module")
def own(twotower, tmp_path_factory):
    """A bundle of a person's own files: columns in another order, ids that look like something else."""
    folder = tmp_path_factory.mktemp("own") / "my data, v=2 [new]"
    ids = [*WEIRD, *(f"extra {n}" for n in range(8))]
    events = [
        (str(1000 + 20 * n + m), name, ids[(n + m * (1 + 2 * (n % 2))) % len(ids)], "5")
        for n, name in enumerate(WEIRD)
        for m in range(15)
    ]
    clicks = write(folder / "clicks (a=b).csv", ("when", "who", "what", "stars"), sorted(events))
    items = write(folder / "items.csv", ("name", "what"), [(f"Title of <{one}>", one) for one in ids])
    columns = ("time=when", "user=who", "item=what", "rating=stars", "title=name")
    twotower.good(
        *("train", "data=csv", f"data.interactions={clicks}", f"data.items={items}", f"out={folder / 'run'}"),
        *(f"data.columns.{one}" for one in columns),
        *("model.user=[id, history]", "model.dim=8", "train.epochs=1"),
    )
    twotower.good("evaluate", folder / "run", "part=test", "--json")
    twotower.good("export", folder / "run", folder / "bundle")
    return folder / "bundle", ids, {name: {row[2] for row in events if row[1] == name} for name in WEIRD}


@pytest.mark.parametrize("name", WEIRD)
def test_own_ids_are_answered_as_they_were_written(twotower, own, name):
    bundle, ids, known = own
    results = twotower.good("query", bundle, "--user", name, "-k", "100", "--json").json["results"]
    held_out = set(ids) - {one["item"] for one in results}
    assert {one["title"] for one in results} == {f"Title of <{one['item']}>" for one in results}
    assert held_out < known[name]  # without the events held out for the test
    assert len(results) == len({one["item"] for one in results})
    similar = twotower.good("query", bundle, "--item", name, "-k", "100", "--json").json["results"]
    assert {one["item"] for one in similar} == set(ids) - {name}
    further = twotower.good("query", bundle, "--history", name, "--history", "extra 0", "-k", "100", "--json")
    assert {one["item"] for one in further.json["results"]} == set(ids) - {name, "extra 0"}


def test_an_own_id_that_looks_like_another_is_another(twotower, own):
    refused(twotower("query", own[0], "--user", "07"), 'user "07" is not among the 12 users', "did you mean 007?")
    refused(twotower("query", own[0], "--user", "9007199254740994"), "is not among")


BAD = {
    "missing columns": (b"who,what\na,b\n", 'no column "user"'),
    "empty ids": (b"user,item,time\nu,,1\n,a,2\n", "1 empty user id (line 3)"),
    "no number": (b"user,item,time\nu,a,1\nu,b,soon\n", 'line 3: "soon"'),
    "infinite": (b"user,item,time\nu,a,1\nu,b,inf\n", 'line 3: "inf"'),
    "duplicates": (b"user,item,time\nu,a,1\nu,a,1\n", "1 row repeats an earlier one (line 3)"),
    "empty": (b"", "the file is empty"),
    "a header only": (b"user,item,time\n", "a header and no rows"),
    "wrong encoding": (
        "user,item,time\nM\N{LATIN SMALL LETTER U WITH DIAERESIS}ller,a,1\n".encode("latin-1"),
        "not UTF-8",
    ),
    "a folder": (None, "a folder, not a file"),
    "too few events": (b"user,item,time\nu,a,1\n", "part of a last split of 1 events is empty"),
}


@pytest.mark.parametrize(("content", "said"), BAD.values(), ids=BAD.keys())
def test_a_bad_file(twotower, tmp_path, content, said):
    path = tmp_path / "my clicks.csv"
    path.mkdir() if content is None else path.write_bytes(content)
    settings = ("data=csv", f"data.interactions={path}", "data.columns.time=time", f"out={tmp_path / 'run'}")
    refused(twotower("train", *settings), said, lines=6)
    assert [one.name for one in tmp_path.iterdir()] == ["my clicks.csv"]


def test_a_file_that_is_not_there(twotower, tmp_path):
    done = twotower("train", "data=csv", f"data.interactions={tmp_path / 'no.csv'}", f"out={tmp_path / 'run'}")
    refused(done, f"{tmp_path / 'no.csv'}: there is no such file", lines=4)
    assert list(tmp_path.iterdir()) == []


# Published data ------------------------------------------------------------------------------------------------------


def test_with_the_network_closed_and_an_empty_cache(twotower, tmp_path):
    places = {"TWOTOWER_CACHE": str(tmp_path / "cache"), "TWOTOWER_MIRROR": ""}
    done = twotower("train", f"out={tmp_path / 'run'}", env=twotower.offline | places)
    assert (done.code, done.out) == (2, "")
    assert "error: ml-100k could not be fetched; tried:" in done.err
    for address in SOURCES["ml-100k"].addresses:
        assert all(file.at in done.err for file in address.files)
    assert "TWOTOWER_MIRROR: not set" in done.err
    assert "to do: set TWOTOWER_MIRROR to a folder that holds ml-100k.zip" in done.err
    assert "data=toy" in done.err and "Traceback" not in done.err
    assert not (tmp_path / "run").exists()
    assert not any((tmp_path / "cache").iterdir())


@pytest.mark.slow
def test_published_files_give_the_same_report_by_name_and_as_own_files(twotower, tmp_path, monkeypatch):
    if not (MIRROR / "amazon2014-electronic-irb.zip").is_file():
        pytest.skip(f"amazon2014-electronic-irb.zip is not in {MIRROR}; set TWOTOWER_MIRROR")
    monkeypatch.setenv("TWOTOWER_MIRROR", str(MIRROR))
    tables = formats.read(fetch("electronic"))
    files = {}
    for name, events in (("interactions", tables.events), ("test", tables.test)):
        pairs = zip(events.item, events.user, strict=True)
        files[name] = write(tmp_path / f"{name}.csv", ("item", "user"), pairs)
    quick = ("model.dim=8", "train.epochs=1", "train.batch_size=256", "train.refit=false")
    mirror = {"TWOTOWER_MIRROR": str(MIRROR)}
    named, own = tmp_path / "named", tmp_path / "own"
    twotower.good("train", "data=electronic", *quick, f"out={named}", env=mirror)
    twotower.good("train", "data=csv", *(f"data.{name}={path}" for name, path in files.items()), *quick, f"out={own}")
    reports = [twotower.good("evaluate", run, "part=test", "--json", env=mirror).json for run in (named, own)]
    assert reports[0] == reports[1]
    assert reports[0]["protocol"] == "given"
    assert reports[0]["metrics"]["recall@20"]["mean"] > reports[0]["chance"]["recall@20"]
