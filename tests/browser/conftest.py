"""One JupyterLab for the tests of this folder, and the browser of the system."""

import shutil
from pathlib import Path

import pytest

from tests.browser.lab import jupyterlab

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def chromium() -> Path:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium, or install Google Chrome")
    return Path(found)


@pytest.fixture(scope="package")
def lab(chromium, tmp_path_factory):
    with jupyterlab(tmp_path_factory.mktemp("jupyter")) as running:
        yield running
