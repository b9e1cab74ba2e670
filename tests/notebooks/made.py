"""A small notebook that keeps every rule, to be broken in one place by each test."""

from __future__ import annotations

import jupytext
from nbformat import NotebookNode
from nbformat.v4 import new_output

HEADER = """\
# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---
"""

QUESTION = """\
# <details><summary>Why?</summary>
#
# Because.
#
# </details>
"""

SOURCE = f"""{HEADER}
# %% [markdown]
# # A small notebook
#
# Afterwards you can
#
# - **add** two numbers (the assertion under
#   *A sum*);
# - **say** what a sum is (the questions);
# - **draw** a line (the picture).
#
# **You should know** numbers. **Time**: 5 minutes. **Paper**: [Euclid, Elements](https://example.org/elements).

# %% [markdown]
# ## A sum
#
# ```
# # no heading
# ```

# %%
total = 2 + 2
assert total == 4
print(f"The sum is {{total}}")

# %% [markdown]
# ### A picture

# %% tags=["picture"]
total

# %% [markdown]
# ## In production
#
# - Shops add prices ([the till](https://example.org/till)).
#
# ## Five questions
#
{QUESTION * 5}#
# ## What you have seen
#
# A sum. Next: `01_data`.
"""

FIGURE = '<figure><img alt="A line from 0 to 4." src="data:image/png;base64,AAAA"></figure>'


def executed(source: str = SOURCE, html: str = FIGURE) -> NotebookNode:
    """The notebook as it is stored after a run; its second code cell shows a picture."""
    notebook = jupytext.reads(source, "py:percent")
    notebook.metadata = NotebookNode(kernelspec=notebook.metadata.kernelspec)
    codes = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(codes, 1):
        cell.execution_count = number
    codes[0].outputs = [new_output("stream", name="stdout", text="The sum is 4\n")]
    data = {"text/html": html, "text/plain": "Picture: A line from 0 to 4."}
    codes[1].outputs = [new_output("execute_result", data=data, execution_count=2)]
    return notebook
