"""The grammar of a notebook as rules: each takes a notebook and gives a list of faults, empty where it is kept."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from nbformat import NotebookNode

LINES_OF_A_CELL = 25
GOALS = range(3, 6)
QUESTIONS = 5
EMPTY_LINKS = {"here", "click here", "link", "this", "this link", "this page", "more", "read more"}
BARE_PICTURES = {"image/png", "image/jpeg", "image/svg+xml", "image/gif"}

Rule = Callable[[NotebookNode], list[str]]


@dataclass
class Section:
    """A heading with the prose and the code up to the next heading."""

    level: int
    title: str
    prose: str = ""
    code: str = ""


def sections(notebook: NotebookNode) -> list[Section]:
    """The notebook by its headings; what stands before the first one has level 0."""
    found = [Section(0, "")]
    for cell in notebook.cells:
        if cell.cell_type == "code":
            found[-1].code += cell.source + "\n"
            continue
        for line in unfenced(cell.source):
            if heading := re.match(r"(#{1,6})\s+(.*)", line):
                found.append(Section(len(heading[1]), heading[2].strip()))
            else:
                found[-1].prose += line + "\n"
    return found


def unfenced(source: str) -> Iterator[str]:
    """The lines of a text without its blocks of code."""
    inside = False
    for line in source.splitlines():
        if line.startswith("```"):
            inside = not inside
        elif not inside:
            yield line


def section(notebook: NotebookNode, title: str) -> Section:
    """The first section of that title; an empty one where there is none."""
    return next((one for one in sections(notebook) if one.title == title), Section(0, ""))


def codes(notebook: NotebookNode) -> list[NotebookNode]:
    """The code cells."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def first(notebook: NotebookNode) -> str:
    """The first cell, where it is text."""
    return notebook.cells[0].source if notebook.cells[0].cell_type == "markdown" else ""


def goals(notebook: NotebookNode) -> list[str]:
    """The items of the list in the first cell, each on one line."""
    return [" ".join(item.split()) for item in re.findall(r"^- ((?:.+\n?)(?:  .+\n?)*)", first(notebook), re.M)]


def html(notebook: NotebookNode) -> Iterator[str]:
    """Everything in which a picture can be shown by HTML: prose and outputs."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            yield cell.source
        for output in cell.get("outputs", []):
            yield output.get("data", {}).get("text/html", "")


# The rules -----------------------------------------------------------------------------------------------------------


def headings_in_order(notebook: NotebookNode) -> list[str]:
    """One heading of the first level, at the start; no level is skipped."""
    found = [one for one in sections(notebook) if one.level]
    faults = [f"{one.title}: a second title" for one in found[1:] if one.level == 1]
    faults += [] if first(notebook).startswith("# ") else ["the first cell does not begin with a title"]
    return faults + [f"{b.title}: level {b.level} after {a.level}" for a, b in pairwise(found) if b.level > a.level + 1]


def three_to_five_goals(notebook: NotebookNode) -> list[str]:
    """What the reader will be able to do: verbs in bold, each with its proof in brackets."""
    found = goals(notebook)
    faults = [] if len(found) in GOALS else [f"{len(found)} goals"]
    return faults + [f"no verb, or no proof: {one}" for one in found if not re.match(r"\*\*\w+\*\* .*\(.+\)", one)]


def proofs_exist(notebook: NotebookNode) -> list[str]:
    """A section that a goal names in italics exists, and asserts something."""
    named = [title for goal in goals(notebook) for title in re.findall(r"(?<!\*)\*([^*]+)\*(?!\*)", goal)]
    return [f"{title}: no such proof" for title in named if "assert " not in section(notebook, title).code]


def what_to_know(notebook: NotebookNode) -> list[str]:
    """The first cell says what the reader should know."""
    return [] if re.search(r"\*\*You should know\*\* \S", first(notebook)) else ["what should the reader know?"]


def minutes(notebook: NotebookNode) -> list[str]:
    """The first cell says once how many minutes it takes."""
    found = re.findall(r"\d+ minutes", first(notebook))
    return [] if len(found) == 1 else [f"minutes in the first cell: {found}"]


def paper(notebook: NotebookNode) -> list[str]:
    """The first cell links the paper."""
    return [] if re.search(r"\*\*Papers?\*\*: \[[^\]]+\]\(https://", first(notebook)) else ["no paper"]


def short_cells(notebook: NotebookNode) -> list[str]:
    """A cell of code is one idea: not empty, and short enough to be seen at once."""
    lengths = [(cell.source, len(cell.source.splitlines())) for cell in codes(notebook)]
    return [f"{n} lines: {source[:40]!r}" for source, n in lengths if not 0 < n <= LINES_OF_A_CELL]


def alt_everywhere(notebook: NotebookNode) -> list[str]:
    """Every picture, in prose or in an output, has a text."""
    tags = [tag for text in html(notebook) for tag in re.findall(r"<img\b[^>]*>", text)]
    faults = [tag[:60] for tag in tags if not re.search(r'\balt="[^"\s][^"]*"', tag)]
    return faults + [link for text in html(notebook) for link in re.findall(r"!\[\s*\]\([^)]*\)", text)]


def no_bare_pictures(notebook: NotebookNode) -> list[str]:
    """A picture is shown by `figure`: an `image/png` of its own has no alt text and is compared by nobody."""
    outputs = [output for cell in codes(notebook) for output in cell.outputs]
    return [kind for output in outputs for kind in BARE_PICTURES & output.get("data", {}).keys()]


def links_say_where(notebook: NotebookNode) -> list[str]:
    """The text of a link makes sense alone."""
    texts = [text for cell in notebook.cells for text in re.findall(r"(?<!!)\[([^\]]+)\]\(", cell.source)]
    return [text for text in texts if text.lower().strip(" .") in EMPTY_LINKS or text.startswith("http")]


def in_production(notebook: NotebookNode) -> list[str]:
    """What a published system did, with its source."""
    return [] if "](https://" in section(notebook, "In production").prose else ["no box `In production` with a source"]


def five_questions(notebook: NotebookNode) -> list[str]:
    """Five questions, each with an answer that is folded."""
    text = section(notebook, "Five questions").prose
    found = re.findall(r"<details><summary>[^<]+</summary>\s*\w[^<]+</details>", text)
    return [] if len(found) == QUESTIONS else [f"{len(found)} questions with a folded answer"]


def summary(notebook: NotebookNode) -> list[str]:
    """A summary under a heading that is the same everywhere."""
    return [] if section(notebook, "What you have seen").prose.strip() else ["no summary `What you have seen`"]


def next_one(notebook: NotebookNode) -> list[str]:
    """The last cell names the next notebook, or says that there is none."""
    last = notebook.cells[-1].source
    return [] if re.search(r"\bNext\b[^.]*\d\d_\w+|last chapter", last) else ["the last cell names no next notebook"]


def no_semicolons(notebook: NotebookNode) -> list[str]:
    """A `;` at the end of a cell hides its output from the reader, and fails in nbval."""
    return [cell.source[-40:] for cell in codes(notebook) if cell.source.rstrip().endswith(";")]


def tags_not_comments(notebook: NotebookNode) -> list[str]:
    """What nbval should know of a cell is a tag."""
    return [cell.source[:40] for cell in codes(notebook) if re.search(r"#\s*(NBVAL|PYTEST_VALIDATE)_", cell.source)]


RULES: list[Rule] = [
    headings_in_order,
    three_to_five_goals,
    proofs_exist,
    what_to_know,
    minutes,
    paper,
    short_cells,
    alt_everywhere,
    no_bare_pictures,
    links_say_where,
    in_production,
    five_questions,
    summary,
    next_one,
    no_semicolons,
    tags_not_comments,
]
