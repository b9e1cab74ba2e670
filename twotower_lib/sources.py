"""The registry of data sets: name -> addresses with their hashes, licence, citation; `fetch` -> verified local files.

`fetch` looks in this order and stops at the first place that holds what the registry promises:

1. the package itself (only `toy`, which is ours);
2. the folder named by `TWOTOWER_MIRROR`;
3. the cache: the folder named by `TWOTOWER_CACHE`, or the system's own cache folder;
4. the public addresses, in the order of the registry.

Nothing stands at its final name in the cache before it is whole and its hash is right. Where the hash of a file at an
address is not known, `data.load` checks the hash of the sorted pairs, which does not depend on the file's order.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from twotower_lib.errors import SourceError, nearest

MIRROR_VARIABLE = "TWOTOWER_MIRROR"
CACHE_VARIABLE = "TWOTOWER_CACHE"
CONNECT_SECONDS, READ_SECONDS = 3, 60
PIP_DOWNLOAD = (
    *(sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--only-binary=:all:"),
    *("--quiet", "--no-input", "--retries", "1", "--timeout", "15"),
)

Via = Literal["shipped", "mirror", "https", "pip"]


@dataclass(frozen=True)
class RemoteFile:
    """One file: its name in a mirror and in the cache, and where it is."""

    name: str
    at: str = ""

    @property
    def hash(self) -> str:
        """`sha256:...` or `md5:...`; empty where it is not known."""
        return HASHES.get(self.name, "")


@dataclass(frozen=True)
class Address:
    """One place that holds a whole source, and the format in which it is held there.

    `via` says how to get there: it is shipped with the package, it lies in a mirror folder only, it has a public
    https address, or it is a package that pip downloads.
    """

    via: Via
    format: str
    files: tuple[RemoteFile, ...]


def _one(via: Via, format: str, name: str, at: str = "") -> Address:
    """An address that is a single file."""
    return Address(via, format, (RemoteFile(name, at),))


def _two(via: Via, format: str, source: str, folder: str) -> Address:
    """An address that is a folder with `train.txt` and `test.txt`."""
    parts = ("train.txt", "test.txt")
    return Address(via, format, tuple(RemoteFile(f"{source}-{part}", f"{folder}/{part}") for part in parts))


@dataclass(frozen=True, kw_only=True)
class Source:
    """What the registry knows about one data set; `sha256` is the hash of its sorted pairs."""

    name: str
    title: str
    schema: str
    licence: str
    citation: str
    users: int = 0
    items: int = 0
    interactions: int = 0
    test: int = 0
    has_ratings: bool = False
    sha256: str = ""
    addresses: tuple[Address, ...] = ()


@dataclass(frozen=True)
class Fetched:
    """Verified local files of one source, and the format to read them with."""

    source: str
    format: str
    paths: tuple[Path, ...]


_MOVIELENS = (
    "F. Maxwell Harper and Joseph A. Konstan. 2015. The MovieLens Datasets: History and Context. "
    "ACM Transactions on Interactive Intelligent Systems 5(4), 19. https://doi.org/10.1145/2827872"
)
_LIGHTGCN = (
    "Xiangnan He, Kuan Deng, Xiang Wang, Yan Li, Yongdong Zhang and Meng Wang. 2020. LightGCN: Simplifying and "
    "Powering Graph Convolution Network for Recommendation. SIGIR. https://doi.org/10.1145/3397271.3401063"
)
_CHO = (
    "Eunjoon Cho, Seth A. Myers and Jure Leskovec. 2011. Friendship and Mobility: User Movement in Location-Based "
    "Social Networks. KDD. https://doi.org/10.1145/2020408.2020579"
)
_MCAULEY = (
    "Julian McAuley, Christopher Targett, Qinfeng Shi and Anton van den Hengel. 2015. Image-Based Recommendations "
    "on Styles and Substitutes. SIGIR. https://doi.org/10.1145/2766462.2767755"
)
_GROUPLENS_AT = "https://files.grouplens.org/datasets/movielens"
_GOWALLA_AT = "https://raw.githubusercontent.com/gusye1234/LightGCN-PyTorch/HEAD/data/gowalla"
_YELP_AT = "https://raw.githubusercontent.com/kuandeng/LightGCN/HEAD/Data/yelp2018"
_ELECTRONIC_AT = "https://raw.githubusercontent.com/Tiny-Snow/IR-Benchmark-Dataset/HEAD/data_iid/amazon2014-electronic"

HASHES = {
    "ml-100k.zip": "md5:0e33842e24a9c977be4e0107933c0723",
    "recbole-1.2.1-py3-none-any.whl": "sha256:9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
    "ml-latest-small.zip": "sha256:696d65a3dfceac7c45750ad32df2c259311949efec81f0f144fdfb91ebc9e436",
    "gowalla-lightgcn.zip": "sha256:f7d22b48c8c5972b092ee97bfe8ac2e1393be02dde674325efae6766a704e916",
    "yelp2018-lightgcn.tar.gz": "sha256:0ec97fc6fda2c8029af974c38edff7fa7fb36e246d196133b7ec8c376a6fad83",
    "yelp2018-train.txt": "sha256:1e9568725a9e833d0ac3bae01c94cd95367f73b3bb6104fd26b5f65ea5054093",
    "yelp2018-test.txt": "sha256:9cd9b37926cd1447a06625ffa7914527573fb097c10cb0bbdb1d1b8ded3742fe",
    "amazon2014-electronic-irb.zip": "sha256:7c67d05b3792aebaa46a7c46af438c574263f9e34e8a4ae67a40de17dc094ee0",
}
"""What each file must hash to; a file that is not listed is checked by its sorted pairs alone."""

_ML_100K = Source(
    name="ml-100k",
    title="MovieLens 100K",
    schema="user, item, rating 1-5, time; title, year, genres of films; age, gender, occupation of people",
    licence="research use only; not to be redistributed (GroupLens)",
    citation=_MOVIELENS,
    users=943,
    items=1_682,
    interactions=100_000,
    has_ratings=True,
    sha256="21a3fc2958210e359381237a82bfa4b05ff24d9709b4d33cb843a0019b114401",
    addresses=(
        _one("https", "ml-100k-grouplens", "ml-100k.zip", f"{_GROUPLENS_AT}/ml-100k.zip"),
        _one("pip", "ml-100k-recbole", "recbole-1.2.1-py3-none-any.whl", "recbole==1.2.1"),
    ),
)
_ML_LATEST_SMALL = Source(
    name="ml-latest-small",
    title="MovieLens latest-small",
    schema="user, item, rating 0.5-5, time; title, year, genres of films",
    licence="non-commercial; may be redistributed under the same terms (GroupLens)",
    citation=_MOVIELENS,
    users=610,
    items=9_742,
    interactions=100_836,
    has_ratings=True,
    sha256="e084063a7f3e4099f8756644220fbf166a8b51f52c41d54e632fc387bdf87cee",
    addresses=(_one("https", "ml-latest", "ml-latest-small.zip", f"{_GROUPLENS_AT}/ml-latest-small.zip"),),
)
_GOWALLA = Source(
    name="gowalla",
    title="Gowalla, the published LightGCN split",
    schema="user, item; train and test are published and kept, and test is no random draw (README)",
    licence="public check-ins of SNAP; cite both papers",
    citation=f"{_CHO} Split: {_LIGHTGCN}",
    users=29_858,
    items=40_981,
    interactions=810_128,
    test=217_242,
    sha256="70a0bf63851d0375026a42506ecc7b28ec564921cbb5f4f390d8c511dd1a392e",
    addresses=(
        _one("mirror", "lightgcn", "gowalla-lightgcn.zip"),
        _two("https", "lightgcn", "gowalla", _GOWALLA_AT),
    ),
)
_YELP2018 = Source(
    name="yelp2018",
    title="Yelp2018, the published LightGCN split",
    schema="user, item; train and test are published and kept, and test is no random draw (README)",
    licence="Yelp's dataset licence: academic use; not to be redistributed",
    citation=f"Yelp Open Dataset. Split: {_LIGHTGCN}",
    users=31_668,
    items=38_048,
    interactions=1_237_259,
    test=324_147,
    sha256="beaae630567985666ba916f727c01537243299dbbd9883b2aaec997f79ab6226",
    addresses=(
        _one("mirror", "lightgcn", "yelp2018-lightgcn.tar.gz"),
        _two("https", "lightgcn", "yelp2018", _YELP_AT),
    ),
)
_ELECTRONIC = Source(
    name="electronic",
    title="Amazon 2014 Electronics, 10-core, the IR-Benchmark split",
    schema="user, item; train and test are published and kept",
    licence="research use; not to be redistributed",
    citation=f"{_MCAULEY} Split: IR-Benchmark (github.com/Tiny-Snow/IR-Benchmark).",
    users=13_455,
    items=8_360,
    interactions=182_398,
    test=52_123,
    sha256="eb2c5ad3d6bdf06b0c157d63b838fd05ac529494a28989d191cddc5ed49f0e97",
    addresses=(
        _one("mirror", "ir-benchmark", "amazon2014-electronic-irb.zip"),
        _one("https", "ir-benchmark", "amazon2014-electronic-proc.zip", f"{_ELECTRONIC_AT}/proc.zip"),
    ),
)
_TOY = Source(
    name="toy",
    title="Toy: 60 invented people, 40 invented films",
    schema="user, item, time; title, categories of films",
    licence="MIT, as this project",
    citation="Made by scripts/toy_data.py of this project; nobody and nothing in it is real.",
    users=60,
    items=40,
    interactions=896,
    sha256="8247d35e0d872fbcf3893f736ec577510708262e8da6ea4b754f37f6c12d8576",
    addresses=(_one("shipped", "toy", "toy.csv", "datasets"),),
)
_CSV = Source(
    name="csv",
    title="A person's own files",
    schema="user, item, and where named: time, rating; an items file, a users file",
    licence="the owner's",
    citation="",
    has_ratings=True,
)

SOURCES: dict[str, Source] = {
    source.name: source for source in (_ML_100K, _ML_LATEST_SMALL, _GOWALLA, _YELP2018, _ELECTRONIC, _TOY, _CSV)
}


def source_named(name: str) -> Source:
    """The registry's entry.

    Raises:
        SourceError: no source has this name.
    """
    if name not in SOURCES:
        raise SourceError(f'there is no data set "{name}"', f"one of {', '.join(SOURCES)}", nearest(name, SOURCES))
    return SOURCES[name]


def cache_folder() -> Path:
    """Where downloads are kept."""
    import pooch

    return Path(os.environ.get(CACHE_VARIABLE) or pooch.os_cache("twotower"))


def fetch(name: str) -> Fetched:
    """Verified local files of a source; downloads only what lies neither in the mirror nor in the cache.

    Raises:
        SourceError: the name is unknown, or no address could give the files; the text names each address tried.
    """
    source = source_named(name)
    if not source.addresses:
        raise SourceError(f"nothing can be fetched for {name}", "files of your own", "give data.interactions=FILE")
    tried: list[str] = []
    found = _local(source, tried) or _first(source, lambda address: _download(address, tried))
    if found is None:
        raise _not_fetched(source, tried)
    return found


def located(name: str) -> Fetched | None:
    """Verified local files of a source where they are here already; never uses the network."""
    return _local(source_named(name), [])


def _local(source: Source, tried: list[str]) -> Fetched | None:
    """What lies in the package, the mirror or the cache."""
    return (
        _first(source, _shipped)
        or _first(source, lambda address: _from_mirror(address, tried))
        or _first(source, lambda address: _verified(address, cache_folder(), tried))
    )


def _first(source: Source, look: Callable[[Address], tuple[Path, ...] | None]) -> Fetched | None:
    """The first address where this way of looking finds something."""
    for address in source.addresses:
        paths = look(address)
        if paths is not None:
            return Fetched(source.name, address.format, paths)
    return None


def _shipped(address: Address) -> tuple[Path, ...] | None:
    """Files of the package itself: inside it in a wheel, beside it in a checkout."""
    if address.via != "shipped":
        return None
    package = Path(__file__).parent
    for folder in (package, package.parent):
        paths = tuple(folder / file.at / file.name for file in address.files)
        if all(path.is_file() for path in paths):
            return paths
    return None


def _from_mirror(address: Address, tried: list[str]) -> tuple[Path, ...] | None:
    """The files of an address in the mirror folder, under the names of the registry."""
    mirror = os.environ.get(MIRROR_VARIABLE)
    if not mirror:
        return None
    paths = _verified(address, Path(mirror), tried)
    if paths is None and not any((Path(mirror) / file.name).exists() for file in address.files):
        tried.append(f"{MIRROR_VARIABLE} {mirror}: holds no {' and no '.join(file.name for file in address.files)}")
    return paths


def _verified(address: Address, folder: Path, tried: list[str]) -> tuple[Path, ...] | None:
    """The files in this folder if all are there and have the right hash; a wrong one is written into `tried`."""
    paths = tuple(folder / file.name for file in address.files)
    if not all(path.is_file() for path in paths):
        return None
    wrong = [path for path, file in zip(paths, address.files, strict=True) if not _matches(path, file.hash)]
    tried.extend(f"{path}: its hash is not the one of the registry, the file is damaged or another" for path in wrong)
    return None if wrong else paths


def _matches(path: Path, expected: str) -> bool:
    """Whether the file has this hash; an unknown hash cannot be wrong here (the pairs are checked later)."""
    if not expected:
        return True
    algorithm, _, digest = expected.partition(":")
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest() == digest


def _download(address: Address, tried: list[str]) -> tuple[Path, ...] | None:
    """The files of a public address, whole and verified in the cache; a failure is written into `tried`."""
    download = {"https": _download_https, "pip": _download_pip}.get(address.via)
    if download is None:
        return None
    paths = []
    for file in address.files:
        try:
            paths.append(download(file, cache_folder()))
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            where = file.at if address.via == "https" else f"pip download {file.at}"
            tried.append(f"{where}: {_reason(error)}")
            return None
    return tuple(paths)


def _download_https(file: RemoteFile, folder: Path) -> Path:
    """Pooch writes to a temporary name, checks the hash, and renames."""
    import pooch

    pooch.get_logger().setLevel("WARNING")
    print(f"fetching {file.at}", file=sys.stderr)
    downloader = pooch.HTTPDownloader(timeout=(CONNECT_SECONDS, READ_SECONDS), progressbar=sys.stderr.isatty())
    return Path(pooch.retrieve(file.at, file.hash or None, file.name, folder, downloader=downloader))


def _download_pip(file: RemoteFile, folder: Path) -> Path:
    """Pip finds the package wherever it is set up to look; the file it brings is checked by hash, then renamed."""
    print(f"fetching {file.at} with pip", file=sys.stderr)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        wanted = Path(temporary, "wanted.txt")
        wanted.write_text(f"{file.at} --hash={file.hash}\n", encoding="utf-8")
        command = [*PIP_DOWNLOAD, "--requirement", str(wanted), "--dest", temporary]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        brought = Path(temporary, file.name)
        if done.returncode or not brought.is_file() or not _matches(brought, file.hash):
            raise OSError(_pip_reason(done.stderr))
        return brought.replace(folder / file.name)


def _pip_reason(text: str) -> str:
    """The line in which pip says what was wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or ["pip brought no such file"])[-1]


def _reason(error: Exception) -> str:
    """One short clause about a download that failed."""
    import requests

    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"answered {error.response.status_code}"
    if isinstance(error, requests.ConnectionError):
        return "cannot be reached"
    if "hash of downloaded file" in str(error):
        return "what it sent has another hash than the registry"
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]


def _not_fetched(source: Source, tried: list[str]) -> SourceError:
    """Every address tried with its reason, and what to do."""
    if not os.environ.get(MIRROR_VARIABLE):
        tried = [f"{MIRROR_VARIABLE}: not set", *tried]
    files = " or ".join(" and ".join(file.name for file in address.files) for address in source.addresses)
    return SourceError(
        f"{source.name} could not be fetched; tried:\n" + "\n".join(f"  {line}" for line in tried),
        "one place that holds it",
        f"set {MIRROR_VARIABLE} to a folder that holds {files}; or use another data set such as data=toy; "
        "or try again with a connection",
    )
