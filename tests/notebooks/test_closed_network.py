"""In a notebook, and in the Python processes that it starts, this machine can be reached and no other."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_notebook

from notebooks import ENVIRONMENT, execute
from tests.notebooks import MAKEFILE, ROOT

SENTENCE = "no notebook may reach the network"

OPEN = {
    "loopback": (
        "with socket.create_server(('127.0.0.1', 0)) as server, socket.create_connection(server.getsockname()): pass"
    ),
    "loopback by name": "socket.getaddrinfo('localhost', 80)",
    "this machine by name": "socket.getfqdn()",
    "a server on every address": "socket.getaddrinfo(None, 0, flags=socket.AI_PASSIVE)",
    "a Unix socket": (
        "with socket.socket(socket.AF_UNIX) as a, socket.socket(socket.AF_UNIX) as b: "
        "a.bind('here'), a.listen(), b.connect('here')"
    ),
}

CLOSED = {
    "an address": "socket.create_connection(('192.0.2.1', 80), timeout=1)",
    "an address of IPv6": "socket.socket(socket.AF_INET6).connect(('2001:db8::1', 80))",
    "without an exception": "socket.socket().connect_ex(('192.0.2.1', 80))",
    "one packet": "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 9))",
    "a name": "socket.getaddrinfo('example.org', 80)",
    "an old look-up": "socket.gethostbyname('example.org')",
    "a page": "urllib.request.urlopen('http://192.0.2.1/', timeout=1)",
    "under the module": "__import__('_socket').socket().connect(('192.0.2.1', 80))",
    "asyncio": "await asyncio.open_connection('192.0.2.1', 80)",
}
"""192.0.2.0/24 and 2001:db8::/32 belong to nobody."""

PIP = f"""
import subprocess, sys
command = [sys.executable, "-m", "pip", "download", "--isolated", "--no-deps", "--no-cache-dir", "twotower-nowhere"]
done = subprocess.run([*command, "--index-url", "https://192.0.2.1/simple"], capture_output=True, text=True)
print(done.returncode != 0 and {SENTENCE!r} in done.stderr)
"""

TRY = """
try:
    {code}
    print("open")
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a real kernel prints for each line of code."""
    tries = {name: TRY.format(code=code) for name, code in (OPEN | CLOSED).items()} | {"pip": PIP}
    cells = [new_code_cell("import asyncio, socket, urllib.request"), *map(new_code_cell, tries.values())]
    notebook = new_notebook(cells=cells)
    execute(notebook, tmp_path_factory.mktemp("closed") / "00_closed.py")
    return dict(zip(tries, (cell.outputs[0].text for cell in notebook.cells[1:]), strict=True))


@pytest.mark.parametrize("name", OPEN)
def test_this_machine_can_be_reached(said, name):
    assert said[name] == "open\n"


@pytest.mark.parametrize("name", CLOSED)
def test_no_other_can(said, name):
    assert re.match(rf"NetworkClosed \S+ was asked for, and {SENTENCE}\nneeded: .*\nto do: ", said[name])


def test_nor_from_a_process_that_the_notebook_starts(said):
    assert said["pip"] == "True\n"


def test_without_the_folder_the_same_line_gets_as_far_as_the_system():
    """So it is this folder that closes the network, not the machine of the test."""
    code = "import socket; s = socket.socket(); s.settimeout(0.1); print(s.connect_ex(('192.0.2.1', 80)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert SENTENCE not in done.stderr and done.stdout.strip().isdigit()


def test_nbval_gets_the_same_environment_from_the_makefile():
    (line,) = re.findall(r"^CLOSED := (.*)$", MAKEFILE, re.M)
    given = dict(one.split("=") for one in line.replace("$(CURDIR)", str(ROOT)).split())
    assert given == ENVIRONMENT
    assert (Path(ENVIRONMENT["PYTHONPATH"]) / "sitecustomize.py").is_file()
    assert re.search(r"\$\(CLOSED\) \$\(BIN\)/pytest --nbval", MAKEFILE)
