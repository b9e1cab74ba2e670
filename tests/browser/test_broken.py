"""What the other test would miss: a notebook in which everything is wrong that it looks for."""

import nbformat
import pytest

pytest.importorskip("playwright.sync_api", reason="the browser test needs playwright: make install-dev")

from nbformat.v4 import new_code_cell, new_notebook

from tests.browser.reader import faults, reading

CELLS = [
    "from IPython.display import HTML",
    'HTML(\'<img src="nowhere.png" alt="none">\')',
    'HTML(\'<img src="http://192.0.2.1/far.png" alt="far">\')',  # an address that belongs to nobody
    "HTML('<button></button>')",
    'HTML(\'<div style="height: 2000px"></div><p style="color: #ccc; background: #fff">pale, and out of sight</p>\')',
    'HTML(\'<img src="data:," alt="none" onerror="throw Error(&quot;on this page&quot;)">\')',
    "import sys; print('a warning', file=sys.stderr)",
    "1 / 0",
    "'never reached'",
]


def test_a_broken_notebook_is_noticed(lab, chromium):
    kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
    notebook = new_notebook(cells=[new_code_cell(one) for one in CELLS], metadata={"kernelspec": kernel})
    path = lab.notebooks / "broken.ipynb"
    nbformat.write(notebook, path)
    with reading(chromium) as reader:
        reader.open(lab, "broken.ipynb")
        reader.run_all()
        assert faults(reader.cells()) == [
            "run in the order [1, 2, 3, 4, 5, 6, 7, 8, None]",
            "ZeroDivisionError: division by zero",
            "stderr: a warning\n",
        ]
        found = "\n".join(reader.barriers(".jp-OutputArea-output"))
        assert "button-name" in found and "pale, and out of sight" in found
        complaints = "\n".join(reader.complaints)
    path.unlink()  # out of the screenshots of the other test
    for expected in ("404: ", "not here: http://192.0.2.1/far.png", "failed: http://192.0.2.1", "console: ", "error: "):
        assert expected in complaints
