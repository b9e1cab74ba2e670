"""Mutants of the commands."""

from tests.mutants import mutant

MUTANTS = [
    mutant(
        "fetch downloads before it has looked at every name",
        "twotower_lib/cli.py",
        "        source_named(name)  # a misspelt name is told before anything is downloaded\n",
        "        str(name)\n",
        "test_fetch_looks_at_every_name_first",
    ),
]
