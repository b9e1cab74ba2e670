"""The registry and how files are fetched. Nothing here reaches beyond loopback."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from twotower_lib import sources
from twotower_lib.errors import SourceError
from twotower_lib.sources import SOURCES, Address, RemoteFile, Source, fetch, located

ROOT = Path(__file__).parent.parent
MIRROR = Path(os.environ.get("TWOTOWER_MIRROR") or ROOT.parent / "shared" / "data")
CONTENT = b"user item\n"
REFUSED = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, an empty mirror, and no pip."""
    (tmp_path / "mirror").mkdir()
    monkeypatch.setenv("TWOTOWER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TWOTOWER_MIRROR", str(tmp_path / "mirror"))
    pip_is(monkeypatch, "sys.exit('ERROR: no route\\nERROR: No matching distribution found')")


def pip_is(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """A stand-in for `pip download`: its last argument is the folder that pip would write to."""
    monkeypatch.setattr(sources, "PIP_DOWNLOAD", (sys.executable, "-c", f"import sys, pathlib; {code}"))


def registered(monkeypatch: pytest.MonkeyPatch, *addresses: Address, content: bytes = CONTENT) -> None:
    """A source `small` with these addresses; all of its files hold the same content."""
    source = Source(name="small", title="", schema="", licence="", citation="", addresses=addresses)
    monkeypatch.setitem(SOURCES, "small", source)
    for file in (file for address in addresses for file in address.files):
        monkeypatch.setitem(sources.HASHES, file.name, "sha256:" + hashlib.sha256(content).hexdigest())


def web(name: str, at: str) -> Address:
    return Address("https", "lightgcn", (RemoteFile(name, at),))


PIP = Address("pip", "toy", (RemoteFile("small.whl", "small==1"),))


class Handler(BaseHTTPRequestHandler):
    """`/whole` is the content, `/other` is something else, `/half` breaks off, everything else is not there."""

    def do_GET(self) -> None:
        body = {"/whole": CONTENT, "/other": b"<html>", "/half": CONTENT}.get(self.path)
        self.send_response(404 if body is None else 200)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write((body or b"")[: 3 if self.path == "/half" else None])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Address of a server on loopback."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


# The registry --------------------------------------------------------------------------------------------------------


def test_all_sources_are_known() -> None:
    assert list(SOURCES) == ["ml-100k", "ml-latest-small", "gowalla", "yelp2018", "electronic", "toy", "csv"]
    assert all(name == source.name for name, source in SOURCES.items())


def test_every_source_has_a_setting_of_its_name() -> None:
    found = {path.stem: path.read_text() for path in (ROOT / "twotower_lib/configs/data").glob("*.yaml")}
    assert found == {name: f"source: {name}\n" for name in SOURCES}


@pytest.mark.parametrize(
    "source", [source for source in SOURCES.values() if source.name != "csv"], ids=lambda s: s.name
)
def test_every_published_source_is_described(source: Source) -> None:
    assert len(source.sha256) == 64
    assert source.licence
    assert source.citation
    assert source.schema.startswith("user, item")
    assert min(source.users, source.items, source.interactions) > 0
    assert source.addresses


def test_file_names_are_unique_and_hashes_belong_to_files() -> None:
    names = [file.name for source in SOURCES.values() for address in source.addresses for file in address.files]
    assert len(names) == len(set(names)) == 12
    assert set(sources.HASHES) <= set(names)
    assert {value.split(":")[0] for value in sources.HASHES.values()} == {"sha256", "md5"}


def test_an_unknown_name_names_the_nearest() -> None:
    with pytest.raises(SourceError, match=r'no data set "ml-100"(.|\n)*did you mean ml-100k\?'):
        fetch("ml-100")


def test_own_files_are_not_fetched() -> None:
    with pytest.raises(SourceError, match=r"nothing can be fetched for csv(.|\n)*data.interactions=FILE"):
        fetch("csv")


def test_toy_is_shipped() -> None:
    found = fetch("toy")
    assert (found.format, found.paths) == ("toy", (ROOT / "datasets" / "toy.csv",))


@pytest.mark.parametrize("name", [n for n in sources.HASHES if n.endswith((".gz", "irb.zip", "gcn.zip", "small.zip"))])
def test_files_of_the_real_mirror_are_those_of_the_registry(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not (MIRROR / name).is_file():
        pytest.skip(f"{name} is not in {MIRROR}; set TWOTOWER_MIRROR")
    monkeypatch.setenv("TWOTOWER_MIRROR", str(MIRROR))
    source = next(s for s in SOURCES.values() if any(f.name == name for a in s.addresses for f in a.files))
    found = located(source.name)
    assert found is not None
    assert found.paths == (MIRROR / name,)


# The order of places -------------------------------------------------------------------------------------------------


def test_the_mirror_comes_before_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registered(monkeypatch, web("small.txt", REFUSED))
    (tmp_path / "cache").mkdir()
    for folder in ("cache", "mirror"):
        (tmp_path / folder / "small.txt").write_bytes(CONTENT)
    assert fetch("small").paths == (tmp_path / "mirror" / "small.txt",)


def test_a_cached_file_of_any_address_comes_before_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registered(monkeypatch, web("small.txt", REFUSED), PIP)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "small.whl").write_bytes(CONTENT)
    monkeypatch.setattr(sources, "_download", None)
    found = fetch("small")
    assert (found.format, found.paths) == ("toy", (tmp_path / "cache" / "small.whl",))


def test_located_never_downloads(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registered(monkeypatch, web("small.txt", f"{server}/whole"))
    assert located("small") is None
    assert not (tmp_path / "cache").exists()


def test_an_address_counts_only_with_all_of_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two = Address("https", "lightgcn", (RemoteFile("a.txt", REFUSED), RemoteFile("b.txt", REFUSED)))
    registered(monkeypatch, two)
    (tmp_path / "mirror" / "a.txt").write_bytes(CONTENT)
    assert located("small") is None
    (tmp_path / "mirror" / "b.txt").write_bytes(CONTENT)
    assert located("small") is not None


# Downloads -----------------------------------------------------------------------------------------------------------


def test_a_second_fetch_downloads_nothing(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registered(monkeypatch, web("small.txt", f"{server}/whole"))
    first = fetch("small")
    assert first.paths == (tmp_path / "cache" / "small.txt",)
    assert first.paths[0].read_bytes() == CONTENT
    monkeypatch.setattr(sources, "_download", None)
    assert fetch("small") == first


def test_a_damaged_cached_file_is_replaced(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registered(monkeypatch, web("small.txt", f"{server}/whole"))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "small.txt").write_bytes(CONTENT[:-1])
    assert fetch("small").paths[0].read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/other", "what it sent has another hash than the registry"),
        ("/half", "cannot be reached|broken|Connection|IncompleteRead"),
        ("/gone", "answered 404"),
    ],
)
def test_a_bad_download_leaves_nothing(
    path: str, reason: str, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered(monkeypatch, web("small.txt", server + path))
    with pytest.raises(SourceError, match=f"{path}: .*({reason})"):
        fetch("small")
    assert list((tmp_path / "cache").iterdir()) == []


def test_pip_brings_what_the_web_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registered(monkeypatch, web("small.txt", REFUSED), PIP)
    pip_is(monkeypatch, f"pathlib.Path(sys.argv[-1], 'small.whl').write_bytes({CONTENT!r})")
    assert fetch("small").paths == (tmp_path / "cache" / "small.whl",)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["small.whl"]


def test_pip_asks_for_this_version_with_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registered(monkeypatch, PIP)
    copy = tmp_path / "asked.txt"
    pip_is(monkeypatch, f"pathlib.Path({str(copy)!r}).write_text(pathlib.Path(sys.argv[-3]).read_text())")
    with pytest.raises(SourceError, match="pip brought no such file"):
        fetch("small")
    assert copy.read_text() == f"small==1 --hash=sha256:{hashlib.sha256(CONTENT).hexdigest()}\n"


def test_another_file_from_pip_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registered(monkeypatch, PIP)
    pip_is(monkeypatch, "pathlib.Path(sys.argv[-1], 'small.whl').write_bytes(b'other')")
    with pytest.raises(SourceError, match="pip download small==1: pip brought no such file"):
        fetch("small")
    assert list((tmp_path / "cache").iterdir()) == []


def test_with_no_connection_every_address_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror_only = Address("mirror", "lightgcn", (RemoteFile("small.zip"),))
    registered(monkeypatch, mirror_only, web("small.txt", f"{REFUSED}/small.txt"), PIP)
    (tmp_path / "mirror" / "small.zip").write_bytes(b"damaged")
    with pytest.raises(SourceError) as caught:
        fetch("small")
    mirror = tmp_path / "mirror"
    assert str(caught.value).splitlines() == [
        "small could not be fetched; tried:",
        f"  {mirror / 'small.zip'}: its hash is not the one of the registry, the file is damaged or another",
        f"  TWOTOWER_MIRROR {mirror}: holds no small.txt",
        f"  TWOTOWER_MIRROR {mirror}: holds no small.whl",
        f"  {REFUSED}/small.txt: cannot be reached",
        "  pip download small==1: No matching distribution found",
        "needed: one place that holds it",
        "to do: set TWOTOWER_MIRROR to a folder that holds small.zip or small.txt or small.whl; "
        "or use another data set such as data=toy; or try again with a connection",
    ]


def test_without_a_mirror_the_text_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TWOTOWER_MIRROR")
    registered(monkeypatch, PIP)
    with pytest.raises(SourceError, match="TWOTOWER_MIRROR: not set"):
        fetch("small")


@pytest.mark.parametrize("name", [name for name, source in SOURCES.items() if source.addresses and name != "toy"])
def test_every_source_names_all_its_public_addresses(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("closed")

    monkeypatch.setattr("pooch.retrieve", refuse)
    with pytest.raises(SourceError) as caught:
        fetch(name)
    text = str(caught.value)
    for address in SOURCES[name].addresses:
        assert all(file.name in text for file in address.files)
        assert address.via == "mirror" or address.files[0].at in text


# What is generated, and what an import costs -------------------------------------------------------------------------


@pytest.mark.parametrize("script", ["dataset_readme.py", "toy_data.py"])
def test_generated_files_are_up_to_date(script: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "scripts" / script), "--check"]
    assert subprocess.run(command, env=environment, check=False).returncode == 0


def test_importing_the_registry_is_cheap() -> None:
    code = (
        "import sys, twotower_lib.sources; print(*{'pooch', 'requests', 'pandas', 'torch', 'numpy'} & set(sys.modules))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
