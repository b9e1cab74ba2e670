"""A reader in front of a notebook: what they do, and what they see."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest

pytest.importorskip("playwright.sync_api", reason="the browser test needs playwright: make install-dev")

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect, sync_playwright

from tests.browser.lab import ROOT, Lab

SCREENSHOTS = ROOT / "build" / "screenshots"
WIDTH, HEIGHT, ALL_OF_IT = 1280, 900, 32_000
SERIOUS = {"serious", "critical"}

OUTPUTS = ".jp-OutputArea-output"
WITHOUT_WORDS = f"{OUTPUTS} img:is([alt=''], [alt='Image'])"
"""JupyterLab writes "Image" where an image has no description, so that axe does not miss it."""

PANEL = "window.jupyterapp.shell.currentWidget"
CONNECTED = f"window.jupyterapp && {PANEL}?.sessionContext?.session?.kernel?.connectionStatus === 'connected'"
CELLS = f"{PANEL}.content.model.sharedModel.cells.map(cell => cell.toJSON())"
RUN_ALL = "void window.jupyterapp.commands.execute('notebook:run-all-cells').then(() => {window.allHaveRun = true})"
FOCUS = f"""async number => {{
    const notebook = {PANEL}.content;
    notebook.activeCellIndex = number;
    await notebook.scrollToItem(number, 'start');
    notebook.mode = 'command';
    notebook.activeCell.node.focus();
}}"""
LAST_LINE = """panel => {
    panel.scrollTop = 0;
    return Math.max(...[...panel.querySelectorAll('.jp-Cell')].map(cell => cell.getBoundingClientRect().bottom));
}"""
"""How far down the notebook ends once it is scrolled to its top; a taller window alone does not scroll it back."""

THEME = "theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})"


class Reader:
    """One page with one notebook.

    Attributes:
        complaints: what the browser complained about: errors in its console, requests that failed or left this machine.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        page.on("console", lambda said: said.type == "error" and self.complaints.append(f"console: {said.text}"))
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error.stack}"))
        page.on("requestfailed", lambda asked: self.complaints.append(f"failed: {asked.url} {asked.failure}"))
        page.on("response", lambda got: got.status >= 400 and self.complaints.append(f"{got.status}: {got.url}"))
        page.on("request", lambda asked: is_far(asked.url) and self.complaints.append(f"not here: {asked.url}"))

    # What they do

    def open(self, lab: Lab, notebook: str) -> None:
        self.page.goto(lab.address(notebook))
        self.page.wait_for_function(CONNECTED, timeout=60_000)

    def run_all(self) -> None:
        self.page.evaluate(RUN_ALL)
        self.page.wait_for_function("window.allHaveRun", timeout=180_000)

    def go_to_cell(self, number: int) -> None:
        """Scroll a cell to the top and select it, as the arrow keys would."""
        self.page.evaluate(FOCUS, number)

    def tab_to(self, control: Locator, key: str = "Tab") -> None:
        """Press Tab until a control has the focus."""
        passed = []
        for _ in range(40):
            self.page.keyboard.press(key)
            if control.evaluate("control => control === document.activeElement"):
                return
            passed.append(self.page.evaluate("document.activeElement.outerHTML.slice(0, 80)"))
        raise AssertionError("\n".join([f"{key} does not reach {control}, but:", *passed]))

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def type(self, words: str) -> None:
        self.page.keyboard.type(words)

    def change_theme(self, name: str) -> None:
        """Change JupyterLab's theme, and wait for its splash to go: a second one within 200 ms is an error in it."""
        self.page.evaluate(THEME, name)
        expect(self.page.locator("#jupyterlab-splash")).to_have_count(0)
        expect(self.page.locator("body")).to_have_attribute("data-jp-theme-name", name)

    def keep_screenshot(self, name: str) -> None:
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png", animations="disabled")

    @contextmanager
    def keeping_failure(self, name: str) -> Iterator[None]:
        """Keep a screenshot of the page if something fails, and say what the browser complained about."""
        (SCREENSHOTS / f"{name}.png").unlink(missing_ok=True)
        try:
            yield
        except Exception as error:
            self.keep_screenshot(name)
            error.add_note("\n".join(self.complaints))
            raise

    # What they see

    def cells(self) -> list[dict[str, Any]]:
        """The cells as they would be saved."""
        return self.page.evaluate(CELLS)

    def cell_number(self, source: str) -> int:
        """The number of the first code cell that holds a text."""
        return next(n for n, one in enumerate(self.cells()) if one["cell_type"] == "code" and source in one["source"])

    def output(self, number: int) -> Locator:
        return self.page.locator(f'.jp-Cell[data-windowed-list-index="{number}"] .jp-OutputArea-output')

    def barriers(self, selector: str) -> list[str]:
        """What axe calls serious or critical inside a part of the page; most of JupyterLab is not ours.

        axe passes in silence over what it takes for hidden: all that is scrolled out of sight, and everything in a
        `<body>` without a height, which JupyterLab's has not.
        """
        self.page.add_style_tag(content="body { height: 100vh }")
        self.page.set_viewport_size({"width": WIDTH, "height": ALL_OF_IT})
        assert self.page.locator(".jp-WindowedPanel-outer").evaluate(LAST_LINE) < ALL_OF_IT, "axe would not see its end"
        found = Axe().run(self.page, selector)
        self.page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
        ids = {one["id"] for one in found.response["violations"] if one["impact"] in SERIOUS}
        return [found.generate_report(name) for name in sorted(ids)]


def is_far(url: str) -> bool:
    """Whether an address is one of another machine."""
    return urlparse(url).scheme in {"http", "https", "ws", "wss"} and urlparse(url).hostname != "127.0.0.1"


def faults(cells: list[dict[str, Any]]) -> list[str]:
    """Code cells that did not run in their turn, and what went wrong."""
    codes = [cell for cell in cells if cell["cell_type"] == "code"]
    counts = [cell["execution_count"] for cell in codes]
    outputs = [output for cell in codes for output in cell["outputs"]]
    return [
        *([] if counts == list(range(1, len(codes) + 1)) else [f"run in the order {counts}"]),
        *(f"{one['ename']}: {one['evalue']}" for one in outputs if one["output_type"] == "error"),
        *(f"stderr: {one['text']}" for one in outputs if one.get("name") == "stderr"),
    ]


@contextmanager
def reading(chromium: Path) -> Iterator[Reader]:
    """A browser with an empty profile that knows no address but this machine's.

    For one test at a time: as long as it is open, Playwright's event loop runs in this thread, and a test that needs a
    loop of its own would fail.
    """
    expect.set_options(timeout=20_000)
    nowhere = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=[nowhere])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.set_default_timeout(30_000)
        reader = Reader(page)
        try:
            with reader.keeping_failure("failed"):
                yield reader
        finally:
            browser.close()
