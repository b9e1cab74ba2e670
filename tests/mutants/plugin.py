"""The table at the end of a run: which mutant, and the test that went red."""

from __future__ import annotations

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [one for state in ("passed", "failed") for one in terminalreporter.stats.get(state, [])]
    rows = [dict(one.user_properties) for one in reports if "mutant" in dict(one.user_properties)]
    if not rows:
        return
    width = max(len(row["mutant"]) for row in rows)
    terminalreporter.section("mutants")
    terminalreporter.write_line(f"{'mutant':<{width}}  test that went red")
    for row in rows:
        terminalreporter.write_line(f"{row['mutant']:<{width}}  {row['red']}")
    survivors = sum(row["red"].startswith("NONE") for row in rows)
    terminalreporter.write_line(f"{len(rows)} mutants, {survivors or 'none'} survived")
