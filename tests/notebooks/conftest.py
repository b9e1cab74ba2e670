"""Scripts import each other by their bare names; so do these tests."""

import sys

from tests.notebooks import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
