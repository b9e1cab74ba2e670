"""The checks of exercises: every way in which one can end, and every exercise against everybody who may answer it."""

from __future__ import annotations

import html
import json
import linecache
import math
import re
import subprocess
import sys
from dataclasses import replace
from datetime import date
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import exercise_table
from twotower_lib import exercises, storage
from twotower_lib.errors import SettingError
from twotower_lib.exercises import compare, engine, exercise, forget, of_chapter, predict, progress, progress_file
from twotower_lib.exercises.engine import Exercise, Misconception
from twotower_lib.exercises.judging import Case
from twotower_lib.exercises.outcomes import LOOK, OK, WAIT, Kind
from twotower_lib.exercises.progress_file import DAMAGED, FILE, NOT_SAVED

ROOT = Path(__file__).resolve().parent.parent
ALL = [one for number in exercises.CHAPTERS for one in of_chapter(number)]
MACHINERY = {"__init__", "engine", "guesses", "judging", "outcomes", "progress_file", "raised", "results", "values"}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """An empty folder to run in, and a kernel that remembers nothing."""
    monkeypatch.chdir(tmp_path)
    forget()
    return tmp_path


def double(**other) -> Exercise:
    """A small exercise: the double of each value; the last case is large."""
    fields = dict(
        name="99.1",
        title="Doubled",
        verb="double",
        minutes=1,
        difficulty=1,
        core=True,
        cases=(
            Case(name="zero and one", arguments={"values": torch.tensor([0.0, 1.0])}),
            Case(name="a square", arguments={"values": torch.tensor([[2.0, 3.0], [4.0, 5.0]])}),
            Case(name="many", arguments={"values": torch.arange(20.0).reshape(4, 5)}),
        ),
        oracle=lambda values: (np.array(values.tolist()) * 2).tolist(),
        solution=lambda values: values * 2,
        misconceptions=(
            Misconception(name="halved", function=lambda values: values / 2, sentence="Halved, not doubled."),
            Misconception(name="squared", function=lambda values: values * values, sentence="Squared, not doubled."),
            Misconception(name="summed", function=lambda values: values.sum() * 2, sentence="One sum."),
        ),
        hints=("Read `values` again.", "Twice.", "Begin with 2."),
    )
    return Exercise(**(fields | other))


def words(text: str) -> list[str]:
    return text.replace("`", "").split()


def words_of_html(page: str) -> list[str]:
    inline = re.sub(r"</?(code|b|span)[^>]*>", "", page)
    return html.unescape(re.sub(r"<[^>]+>", " ", inline)).split()


def function_in_a_cell(source: str, number: int = 1):
    """The function `f` of a source, as a kernel compiles a cell."""
    name = f"/tmp/ipykernel_{number}/{number}.py"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    space: dict = {"torch": torch}
    exec(compile(source, name, "exec"), space)
    return space["f"]


# Every exercise against everybody who may answer it ------------------------------------------------------------------


@cache
def table() -> list[exercise_table.Row]:
    """Made once, in the folder of the first test that asks."""
    return exercise_table.rows()


def test_every_answer_gets_its_own_sentence():
    print("\n" + exercise_table.text(table()))
    assert len(table()) == sum(3 + len(one.misconceptions) for one in ALL) == 247
    for row in table():
        told = repr(row.outcome)
        if row.who in (exercise_table.STUB, exercise_table.DOTS):
            assert row.outcome.kind is Kind.NOT_ATTEMPTED and "not attempted yet" in told
        elif row.who == exercise_table.SOLUTION:
            assert row.outcome.solved and row.outcome.notes == ()
        else:
            (known,) = (one for one in row.exercise.misconceptions if one.name == row.who)
            assert (row.outcome.misconception, row.sentence) == (known.name, known.sentence)
            assert not row.outcome.solved
        assert words_of_html(row.outcome._repr_html_()) == words(told)


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.name)
def test_the_sentences_of_an_exercise_differ(one):
    sentences = [row.sentence for row in table() if row.exercise is one]
    assert len(set(sentences)) == len(sentences)


@pytest.mark.parametrize("one", ALL, ids=lambda one: one.name)
def test_misconceptions_are_enough_and_their_functions_short(one):
    assert len(one.misconceptions) >= 3
    assert len(one.cases) >= 3
    assert one.minutes <= 15


def test_no_check_shows_the_code_of_a_solution():
    """What is told of a wrong answer holds no line with an operator on the arguments."""
    for row in table():
        assert not re.search(r"\b(users|items|scores|counts|share)\b *(@|/|\.T|\.log|\[)", repr(row.outcome))


ALSO_RIGHT = {
    "01.1": [
        lambda counts, first: sum(sorted(counts.tolist(), reverse=True)[:first]) / sum(counts.tolist()),
        lambda counts, first: 1 - np.sort(counts)[: len(counts) - first].sum() / counts.sum(),
    ],
    "01.2": [
        lambda preference, shown: np.einsum("ui,ui->i", preference, shown),
        lambda preference, shown: [float(p @ e) for p, e in zip(preference.T, shown.T, strict=True)],
    ],
    "01.3": [
        lambda clicks, shown: (clicks / shown).sum(axis=0) / len(clicks),
        lambda clicks, shown: torch.tensor(clicks / shown).mean(dim=0),
    ],
    "01.4": [
        lambda rows: sorted(
            {at + 2 for at, row in enumerate(rows) if not all(map(str.strip, row[:2])) or row in rows[:at]}
            | {at + 2 for at, row in enumerate(rows) if not re.fullmatch(r"\d+(e\d+)?", row[2])}
        ),
    ],
    "02.1": [
        lambda users, times, share: [
            sum(v == u and s > t for v, s in zip(users, times, strict=True)) < int(share * list(users).count(u))
            for u, t in zip(users, times, strict=True)
        ],
    ],
    "02.2": [
        lambda users, times, user, now: [one == user and time < now for one, time in zip(users, times, strict=True)],
        lambda users, times, user, now: np.where(users == user, times, now) < now,
    ],
    "02.3": [
        lambda items, times: [(times[items == item] < time).sum() for item, time in zip(items, times, strict=True)],
        lambda items, times: np.array(
            [np.searchsorted(np.sort(times[items == i]), t) for i, t in zip(items, times, strict=True)]
        ),
    ],
    "02.4": [
        lambda shown, first, now: [
            np.mean([first[item] > t for item in row]) for row, t in zip(shown, now, strict=True)
        ],
        lambda shown, first, now: 1 - (now >= first[shown].T).mean(0),
    ],
    "03.1": [
        lambda hits, held_out: [
            sum(1 / math.log2(rank + 2) for rank, hit in enumerate(row) if hit)
            / sum(1 / math.log2(rank + 2) for rank in range(min(count, len(row))))
            for row, count in zip(hits, held_out, strict=True)
        ],
    ],
    "03.2": [
        # a row's mean as a weighted sum: how often each person was drawn
        lambda one, other, drawn: np.quantile(
            [np.bincount(row, minlength=len(one)) @ (one - other) / len(row) for row in drawn], [0.025, 0.975]
        ),
        lambda one, other, drawn: tuple(
            np.percentile(one[drawn].mean(1) - other[drawn].mean(1), end) for end in (2.5, 97.5)
        ),
    ],
    "03.3": [
        # each column as its own regression on all other items
        lambda gram, regularisation: (
            np.array(
                [
                    np.insert(
                        np.linalg.solve(
                            np.delete(np.delete(gram, j, 0), j, 1) + regularisation * np.eye(len(gram) - 1),
                            np.delete(gram[:, j], j),
                        ),
                        j,
                        0.0,
                    )
                    for j in range(len(gram))
                ]
            ).T
        ),
        lambda gram, regularisation: (
            np.eye(len(gram))
            - np.linalg.inv(gram + regularisation * np.eye(len(gram)))
            @ np.diag(1 / np.diag(np.linalg.inv(gram + regularisation * np.eye(len(gram)))))
        ),
    ],
    "03.4": [
        lambda scores, known, held_out, k: [
            sum(wanted[item] for item in np.argsort(-np.where(seen, -np.inf, row))[:k]) / wanted.sum()
            for row, seen, wanted in zip(scores, known, held_out, strict=True)
        ],
        lambda scores, known, held_out, k: [
            np.isin(np.argsort(row - 1e9 * seen)[::-1][:k], np.flatnonzero(wanted)).sum() / wanted.sum()
            for row, seen, wanted in zip(scores, known, held_out, strict=True)
        ],
    ],
    "05.1": [
        lambda items, dim, widths: (items * dim, items * int(np.dot([2 * dim, *widths], [*widths, 1]))),
    ],
    "05.2": [
        lambda vectors, bias, t: torch.column_stack([vectors / vectors.norm(dim=1, keepdim=True), t * bias]),
        lambda vectors, bias, t: np.c_[
            (vectors / vectors.square().sum(1, keepdim=True).sqrt()).numpy(), t * bias.numpy()
        ],
    ],
    "05.3": [
        lambda vectors, mask: [
            rows[marks].mean(0) if marks.any() else torch.zeros(rows.shape[1])
            for rows, marks in zip(vectors, mask, strict=True)
        ],
        lambda vectors, mask: vectors.masked_fill(~mask[:, :, None], torch.nan).nanmean(1).nan_to_num(),
    ],
    "05.4": [
        # a softmax of -age ln 2 / half-life
        lambda ages, mask, half_life: torch.softmax(
            (-math.log(2) * ages / half_life).masked_fill(~mask, -math.inf), dim=1
        ),
    ],
    "06.1": [
        lambda users, items, t: [[float(u @ v) / t for v in items] for u in users],
        lambda users, items, t: users.numpy() @ items.numpy().T / t,
        lambda users, items, t: ((users / t) @ items.T).requires_grad_(),
    ],
    "06.2": [
        lambda scores, t, counts, total: scores / t - counts.log() + math.log(total),
        lambda scores, t, counts, total: torch.log(torch.exp(scores.double() / t) * total / counts),
    ],
    "06.3": [
        lambda users, items: (items[:, None] == items).fill_diagonal_(False),
        lambda users, items: [[i != j and a == b for j, b in enumerate(items.tolist())] for i, a in enumerate(items)],
    ],
    "06.4": [
        # counts instead of shares: a constant cancels
        lambda users, items, share, t: engine_loss(users @ items.T / t - (1000 * share).log()),
        # T log q inside the bracket is log q outside of it
        lambda users, items, share, t: engine_loss((users @ items.T - t * share.log()) / t),
        lambda users, items, share, t: float(engine_loss(users @ items.T / t - share.log())),
    ],
    "08.1": [lambda run: run + 2, lambda run: torch.tensor([3, 4, 5, 6])[run - 1]],
    "08.2": [
        lambda log_q, drop: ((log_q[:, None] - log_q).exp() * ~drop).sum(1).log().mean(),
        # a constant added to log q cancels
        lambda log_q, drop: engine_loss((-log_q - 7.0).expand(len(log_q), -1).masked_fill(drop, -math.inf)),
    ],
    "08.3": [
        lambda step, total, warmup, peak: np.interp(
            step,
            [-1, warmup - 1, *range(warmup, total)],
            [0, peak, *(peak / 2 * (1 + np.cos(np.linspace(0, np.pi, total - warmup + 1)[:-1])))],
        ),
    ],
    "08.4": [
        lambda vectors: torch.pdist(vectors).pow(2).mul(-2).logsumexp(0) - math.log(math.comb(len(vectors), 2)),
        lambda vectors: math.log(
            sum(math.exp(-2 * float((a - b).square().sum())) for i, a in enumerate(vectors) for b in vectors[:i])
            / math.comb(len(vectors), 2)
        ),
    ],
    "11.1": [
        lambda query, centroids, list_of, probes: [
            sum(other > score for other in centroids @ query) < probes for score in (centroids @ query)[list_of]
        ],
    ],
    "11.2": [
        lambda exact, found, wanted: [
            np.mean([len({*map(int, a)} & {*map(int, b)}) / len(a) for a, b in zip(these, those, strict=True)])
            for these, those in ((wanted, exact), (exact, found), (wanted, found))
        ],
    ],
    "11.3": [
        lambda vectors: np.column_stack(
            [
                vectors,
                # rounding may leave less than nothing
                np.sqrt(
                    np.maximum(np.linalg.norm(vectors, axis=1).max() ** 2 - np.linalg.norm(vectors, axis=1) ** 2, 0)
                ),
            ]
        ),
    ],
    "11.4": [
        # the vectors that the codes stand for, without any table
        lambda query, centroids, codes: (
            np.concatenate([centroids[part][codes[:, part]] for part in range(len(centroids))], axis=1) @ query
        ),
    ],
}


def engine_loss(logits):
    """Without cross_entropy: log of the sum minus the positive."""
    return (logits.logsumexp(1) - logits.diagonal()).mean()


@pytest.mark.parametrize(("name", "function"), [(name, one) for name, many in ALSO_RIGHT.items() for one in many])
def test_other_right_answers_are_right(name, function):
    assert exercise(name).check(function).solved


def test_every_exercise_has_another_right_answer_here():
    assert list(ALSO_RIGHT) == [one.name for one in ALL]


# Enumeration ---------------------------------------------------------------------------------------------------------


def test_every_file_is_machinery_or_that_of_a_listed_chapter():
    found = {path.stem for path in Path(exercises.__file__).parent.glob("*.py")}
    assert found == MACHINERY | set(exercises.CHAPTERS.values())


@pytest.mark.parametrize("number", exercises.CHAPTERS)
def test_the_exercises_of_a_chapter_are_numbered(number):
    names = [one.name for one in of_chapter(number)]
    assert names == [f"{number}.{place}" for place in range(1, len(names) + 1)]
    assert 2 <= len(names) <= 4


def test_an_exercise_by_its_name_and_the_nearest_of_a_name_that_is_none():
    assert exercise("06.2").title == "Minus log q"
    assert repr(exercise("06.2")) == "Exercise 06.2: Minus log q (8 minutes, difficulty 2 of 3, core)"
    with pytest.raises(SettingError, match=r"no exercise '06.9'\nneeded: the name of an exercise\nto do: did you mean"):
        exercise("06.9")
    with pytest.raises(SettingError, match="no exercises in chapter '61'"):
        exercise("61.1")


# How a check can end -------------------------------------------------------------------------------------------------


def stub(values):
    raise NotImplementedError


def not_yet_in_torch(values):
    return values.to_sparse().flip(0)


def fails(values):
    kinds = {}
    return kinds["double"] * values


def in_place(values):
    values *= 2
    return values


ENDS = [
    (lambda values: values * 2, Kind.SOLVED, "solved, all 3 cases right"),
    (stub, Kind.NOT_ATTEMPTED, "not attempted yet\nThe function still raises NotImplementedError."),
    (lambda values: ..., Kind.NOT_ATTEMPTED, "not attempted yet\nThe function still returns `...`."),
    (3, Kind.NO_FUNCTION, "nothing to check\n`check` was given one number. It needs the function itself"),
    (lambda values: None, Kind.NOTHING, "The function returned None: is `return` missing?"),
    (fails, Kind.RAISED, "error     KeyError: 'double'\n          in        line "),
    (not_yet_in_torch, Kind.RAISED, "NotImplementedError: Could not run"),
    (lambda: 0, Kind.RAISED, "in        the call, before the first line of the function"),
    (lambda values: "two", Kind.FORM, "expected  a list of 2 numbers\n          yours     a value of type str"),
    (lambda values: [[0, 2]], Kind.FORM, "expected  a list of 2 numbers\n          yours     numbers of shape 1 x 2"),
    (lambda values: [[0], 2], Kind.FORM, "yours     a value of type list"),
    (lambda values: values > 0, Kind.FORM, "yours     a list of 2 truth values"),
    (
        lambda values: values + 1,
        Kind.VALUE,
        "expected  [0, 2]\n          yours     [1, 2]\n          The first difference",
    ),
    (lambda values: values / 0, Kind.NOT_FINITE, "The answer is nan at place 0: look for a log of 0"),
    (in_place, Kind.CHANGED, "The values are right, but the function changed its input `values`"),
]


@pytest.mark.parametrize(("function", "kind", "text"), ENDS, ids=[f"{kind}-{n}" for n, (_, kind, _) in enumerate(ENDS)])
def test_each_end_has_its_kind_and_its_words(function, kind, text):
    outcome = double().check(function)
    assert outcome.kind is kind
    assert text in repr(outcome)
    assert outcome.solved == (kind is Kind.SOLVED)
    assert words_of_html(outcome._repr_html_()) == words(repr(outcome))


def test_every_kind_has_been_seen():
    assert {kind for _, kind, _ in ENDS} == set(Kind)


def test_the_whole_text_of_a_failed_check():
    outcome = double().check(lambda values: values * 2 if values.ndim == 1 else values * values)
    assert repr(outcome) == "\n".join(
        [
            "Exercise 99.1: Doubled: not yet, 1 of 3 cases right",
            "  ✓ ok    zero and one",
            "  ✗ look  a square",
            "          given     values = [[2, 3], [4, 5]]",
            "          expected  [[4, 6], [8, 10]]",
            "          yours     [[4, 9], [16, 25]]",
            "          The first difference is at row 0, column 1 (counted from 0).",
            "  · wait  many: not judged yet",
            'Next: change that step and run both cells again. Hint 1 of 3: `exercise("99.1").hint()`.',
        ]
    )


def test_every_note_is_in_both_forms():
    FILE.write_text("{")
    outcome = double().check(lambda values: values)
    assert len(outcome.notes) == 2
    assert words_of_html(outcome._repr_html_()) == words(repr(outcome))


def test_marks_are_words_and_only_one_case_is_to_be_looked_at():
    outcome = double().check(lambda values: values * 2 if values.ndim == 1 else values)
    assert [line.mark for line in outcome.lines] == [OK, LOOK, WAIT]
    assert all(re.fullmatch(r"\W \w+", mark) for mark in (OK, LOOK, WAIT))


def test_a_large_answer_is_shown_at_the_first_place_that_differs():
    def wrong(values):
        return values * 2 + (torch.arange(values.numel()).reshape(values.shape) == 13)

    facts = dict(double().check(wrong).lines[-1].facts)
    assert facts["expected"] == "26 at row 2, column 3"  # place 13 of 4 x 5 holds 13
    assert facts["yours"] == "27"
    assert facts["given"] == "values = numbers of shape 4 x 5"


def test_a_difference_after_the_fourth_digit_is_shown():
    exact = double(cases=(Case(name="a", arguments={"values": torch.tensor([1.0, 3.0])}, tolerance=1e-9),))
    facts = dict(exact.check(lambda values: values.double() * 2 + 1e-6).lines[0].facts)
    assert facts["expected"] == "[2, 6]" and facts["yours"] == "[2.000001, 6.000001]"


def test_a_misconception_is_named_only_if_it_gives_the_answers_to_all_cases():
    def squared_at_first(values):
        return values * values if values.ndim == 1 else values + 7

    assert double().check(lambda values: values * values).misconception == "squared"
    outcome = double().check(squared_at_first)
    assert outcome.misconception == "" and outcome.kind is Kind.VALUE
    assert "Squared" not in repr(outcome)


def test_a_misconception_of_another_shape_is_named():
    outcome = double().check(lambda values: values.sum() * 2)
    assert (outcome.kind, outcome.misconception) == (Kind.FORM, "summed")
    assert "One sum." in repr(outcome)


def test_the_reader_s_own_line_comes_first_and_the_trace_is_folded_and_last():
    f = function_in_a_cell("def f(values):\n    x = torch.ones(3)\n    return x @ values[:1] # here\n")
    outcome = double().check(f)
    assert dict(outcome.lines[0].facts)["in"] == "line 3 of your cell: return x @ values[:1] # here"
    text, page = repr(outcome), outcome._repr_html_()
    assert text.index("your cell") < text.index("Next:") < text.index("Full trace") < text.index("in f")
    assert page.index("your cell") < page.index("<details><summary>Full trace</summary>")
    assert page.count("in f\n") == 1 and page.index("<pre>") < page.index("in f\n")
    assert "ipykernel" not in text and str(ROOT) not in text and "engine.py" not in text and "judging.py" not in text


def test_a_trace_through_other_files_holds_no_path_of_this_machine():
    trace = double().check(lambda values: torch.nn.Module()(values)).trace
    assert 'File "modules/module.py", line' in trace and 'File "tests/test_exercises.py", line' in trace
    assert str(ROOT) not in trace and torch.__file__.removesuffix("__init__.py") not in trace


def test_an_error_below_a_helper_of_another_file_is_told_by_the_reader_s_line():
    f = function_in_a_cell("def f(values):\n    return torch.nn.Module()(values)\n", 2)
    assert dict(double().check(f).lines[0].facts)["in"] == "line 2 of your cell: return torch.nn.Module()(values)"


def test_a_decorated_function_is_the_reader_s_own():
    f = function_in_a_cell("@torch.no_grad()\ndef f(values):\n    raise NotImplementedError('your code here')\n", 3)
    assert double().check(f).kind is Kind.NOT_ATTEMPTED


def test_every_call_gets_its_own_copy_of_the_arguments():
    one = double()
    assert one.check(in_place).kind is Kind.CHANGED
    assert one.check(lambda values: values * 2).solved


def test_arguments_that_are_no_numbers_are_compared_too():
    cases = (Case(name="a", arguments={"values": torch.tensor([1.0, 3.0]), "sets": [{1}, {2, 3}], "name": "x"}),)
    functions = [lambda values, sets, name: values * 2, lambda values, sets, name: values]
    wrong = (Misconception(name="as they are", function=functions[1], sentence="Not doubled."),)
    one = double(cases=cases, oracle=functions[0], solution=functions[0], misconceptions=wrong)
    assert one.check(lambda values, sets, name: values * 2).solved
    assert one.check(lambda values, sets, name: (sets[0].add(5), values * 2)[1]).kind is Kind.CHANGED


def clock(monkeypatch, seconds):
    """Times that functions take: the solution 0.001, anything else what the list says, one run after the other."""
    left, one = list(seconds), double()
    monkeypatch.setattr(engine, "_seconds", lambda function, case: 0.001 if function is one.solution else left.pop(0))
    return one


@pytest.mark.parametrize(
    ("seconds", "slow"),
    [
        ([0.06, 0.06, 0.06], True),  # over 50 x 0.001
        ([0.06, 0.06, 0.04], False),  # a machine that was busy twice
        ([0.04], False),
    ],
)
def test_a_slow_function_gets_a_remark_if_every_try_is_slow(monkeypatch, seconds, slow):
    outcome = clock(monkeypatch, seconds).check(lambda values: values + values)
    assert outcome.solved
    assert ("more than 50 times slower" in repr(outcome)) == slow == bool(outcome.notes)


def test_a_function_that_takes_no_time_is_never_slow(monkeypatch):
    one = double()
    monkeypatch.setattr(engine, "_seconds", lambda function, case: 1e-6 if function is one.solution else 0.004)
    assert one.check(lambda values: values + values).notes == ()


def test_a_loop_over_single_values_is_slow():
    def loops(users, items, temperature):
        return [[(u * v).sum() / temperature for v in items] for u in users]

    outcome = exercise("06.1").check(loops)
    assert outcome.solved and "Is there a loop over single values?" in repr(outcome)


# Records that contradict themselves ----------------------------------------------------------------------------------


def misconceptions(*functions):
    return tuple(Misconception(name=f"m{n}", function=one, sentence=".") for n, one in enumerate(functions))


SQUARE = Case(name="a", arguments={"values": torch.tensor([2.0])})

REFUSED = [
    (dict(name="6.1"), "a name of another form"),
    (dict(hints=("a", "b")), "2 hints"),
    (dict(difficulty=4), "1 minutes, difficulty 4 of 3, core"),
    (dict(minutes=0), "0 minutes"),
    (dict(misconceptions=()), "3 cases and 0 misconceptions"),
    (dict(cases=()), "0 cases and 3 misconceptions"),
    (dict(cases=(SQUARE, SQUARE)), "two cases or two misconceptions of one name"),
    (dict(misconceptions=misconceptions(lambda v: v)[:1] * 2), "two cases or two misconceptions of one name"),
    (dict(cases=tuple(reversed(double().cases))), r"cases with \[20, 4, 2\] input values"),
    (dict(oracle=lambda values: values * 3), "the solution and the oracle disagree"),
    (dict(solution=lambda values: values * 3), "the solution and the oracle disagree"),
    (dict(solution=in_place), r"the solution on case 'zero and one': \('values',\)"),
    (dict(oracle=fails), "the oracle on case 'zero and one': 'double'"),
    (dict(misconceptions=misconceptions(fails)), "misconception 'm0' on case 'zero and one': 'double'"),
    (
        dict(misconceptions=misconceptions(lambda v: None)),
        "misconception 'm0' on case 'zero and one': a value of type None",
    ),
    (dict(misconceptions=misconceptions(lambda v: v + v)), "the oracle and m0 give the same answer to every case"),
    (dict(misconceptions=misconceptions(lambda v: v, lambda v: v + 0)), "m0 and m1 give the same answer to every case"),
    (dict(cases=(SQUARE,)), "the oracle and squared give the same answer to every case"),  # 2 x 2 = 2 + 2
]


@pytest.mark.parametrize(("fields", "came"), REFUSED, ids=[came[:40] for _, came in REFUSED])
def test_a_record_that_contradicts_itself_is_refused(fields, came):
    with pytest.raises(SettingError, match=f"^exercise [69.]+1: {came}"):
        double(**fields)


# Hints ---------------------------------------------------------------------------------------------------------------


def test_hints_come_one_after_the_other_folded_and_counted():
    one = double()
    cards = [one.hint() for _ in range(4)]
    assert [card.title for card in cards] == [f"Hint {n} of 3 for exercise 99.1" for n in (1, 2, 3, 3)]
    assert [card.text for card in cards] == [*one.hints, one.hints[2]]
    assert cards[0]._repr_html_().startswith("<details ") and "open" not in cards[0]._repr_html_()
    assert "<code>values</code>" in cards[0]._repr_html_()
    assert words_of_html(cards[0]._repr_html_()) == words(repr(cards[0]))
    assert progress_file.read()[0].exercises["99.1"].hints == 3


def test_a_hint_by_its_number_and_the_next_one_in_a_failed_check():
    one = double()
    assert one.hint(2).text == "Twice."
    assert "Hint 3 of 3" in repr(one.check(lambda values: values))
    assert one.hint().title.startswith("Hint 3")
    for number in (0, 4):
        with pytest.raises(SettingError, match=f"hint {number}\nneeded: a number from 1 to 3"):
            one.hint(number)


def test_a_kernel_that_starts_anew_shows_the_same_hints():
    double().hint()
    progress_file.hints_shown.clear()
    assert double().hint().title.startswith("Hint 1")


# The progress file ---------------------------------------------------------------------------------------------------


def test_attempts_hints_and_the_first_day_are_stored(folder, monkeypatch):
    one = double()
    one.check(stub)
    assert not FILE.exists()  # not attempted, nothing to store
    one.check(lambda values: values)
    one.hint(1)
    one.check(lambda values: values * 2)
    stored = json.loads((folder / ".progress.json").read_text(encoding="utf-8"))
    today = date.today().isoformat()
    assert stored["exercises"] == {"99.1": {"attempts": 2, "hints": 1, "solved": today, "last": today}}
    monkeypatch.setattr(progress_file, "date", type("Later", (), {"today": lambda: date(2999, 1, 1)}))
    one.check(lambda values: values)
    entry = progress_file.read()[0].exercises["99.1"]
    assert (entry.attempts, entry.solved, entry.last) == (3, today, "2999-01-01")
    assert [path.name for path in folder.iterdir()] == [".progress.json"]


def test_two_notebooks_of_one_folder_lose_nothing_of_each_other():
    code = "from twotower_lib.exercises.progress_file import record\nfor _ in range(100): record({name!r}, attempts=1)"
    both = [subprocess.Popen([sys.executable, "-c", code.format(name=name)]) for name in ("99.1", "99.2")]
    assert [one.wait() for one in both] == [0, 0]
    stored = progress_file.read()[0].exercises
    assert {name: entry.attempts for name, entry in stored.items()} == {"99.1": 100, "99.2": 100}


def test_a_reader_sees_it_and_deletes_it():
    exercise("06.3").check(lambda users, items: None)
    at = [one.name for one in ALL].index("06.3")
    shown = progress()
    assert len(shown.rows) == len(ALL)
    assert shown.rows[at] == ("06.3 The same item once more", "tried", "1", "0", "")
    assert re.search(r"06\.3 The same item once more +tried +1 +0$", repr(shown), re.M)
    assert words_of_html(shown._repr_html_()) == words(repr(shown))
    exercise("06.3").check(exercise("06.3").solution)
    assert progress().rows[at][1] == "solved" and progress().rows[0][1] == "open"
    assert forget() == ".progress.json is deleted."
    assert not FILE.exists() and progress().rows[at][1] == "open"
    assert forget() == "There is no .progress.json here: nothing was stored."


ENTRY = '{"attempts": 1, "hints": 0, "solved": "", "last": ""}'


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b'{"exercises": 3, "guesses": {}}',
        b'{"exercises": {"06.1": 3}, "guesses": {}}',
        b'{"exercises": {"06.1": {"points": 3}}, "guesses": {}}',
        b'{"exercises": {"06.1": {"attempts": "many"}}, "guesses": {}}',
        b'{"exercises": {}, "guesses": {"a": {"question": 3}}}',
        b'{"exercises": {}, "guesses": {"a": {"question": "?", "guess": [1]}}}',
    ],
)
def test_a_damaged_file_is_told_and_begun_anew(text):
    FILE.write_bytes(text)
    assert progress().remark == DAMAGED == ".progress.json was damaged and is begun anew."
    outcome = double().check(lambda values: values)
    assert outcome.notes[-1] == DAMAGED
    assert progress_file.read()[0].exercises.keys() == {"99.1"}
    assert double().check(lambda values: values).notes[-1] != DAMAGED


def test_a_folder_that_cannot_be_written_to_is_a_remark(monkeypatch):
    def refuse(path, text):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(progress_file, "write_text", refuse)
    outcome = double().check(lambda values: values * 2)
    assert outcome.solved and outcome.notes == (NOT_SAVED,)
    assert NOT_SAVED in double().hint().text
    assert NOT_SAVED in predict("How many?", 3, key="k").text
    assert compare("k", 3).text == "Your guess: 3. Measured: 3. Close."
    assert progress_file.read()[0].exercises["99.1"].attempts == 1  # until the kernel ends
    monkeypatch.setattr(progress_file, "write_text", storage.write_text)
    assert double().check(lambda values: values * 2).notes == ()
    assert progress_file.read()[0].exercises["99.1"].attempts == 2


def test_a_folder_in_the_place_of_the_file_is_a_remark():
    FILE.mkdir()
    assert double().check(lambda values: values * 2).notes == (NOT_SAVED,)
    assert forget().startswith(".progress.json could not be deleted: ")


def test_it_is_written_whole_or_not_at_all(monkeypatch):
    double().check(lambda values: values)
    before = FILE.read_bytes()

    def killed(source, target):
        raise OSError("killed")

    monkeypatch.setattr(storage.os, "replace", killed)
    double().check(lambda values: values)
    assert FILE.read_bytes() == before


# Guesses -------------------------------------------------------------------------------------------------------------


def test_without_a_guess_both_are_folded_and_say_the_question():
    asked = predict("How many of 100?", unit="films", key="06.a")
    shown = compare("06.a", 12.0)
    assert repr(asked).startswith("Guess first: How many of 100?\nNo guess yet.")
    assert repr(shown) == "Measured, after your guess: How many of 100?\nMeasured: 12 films."
    for card in (asked, shown):
        assert card._repr_html_().startswith("<details ") and "How many of 100?</summary>" in card._repr_html_()
        assert words_of_html(card._repr_html_()) == words(repr(card))


def test_a_guess_stands_beside_the_measured_value():
    assert predict("How many?", 40, unit="films", key="06.a").text == "Your guess: 40 films."
    progress_file._unsaved.clear()
    shown = compare("06.a", 16)
    assert repr(shown) == "How many?\nYour guess: 40 films. Measured: 16 films. Too high by a factor of 2.5."
    assert not shown.folded and words_of_html(shown._repr_html_()) == words(repr(shown))


@pytest.mark.parametrize(
    ("guess", "measured", "sentence"),
    [
        (10, 40, "Too low by a factor of 4."),
        (40.0, 10, "Too high by a factor of 4."),
        (10.5, 10, "Close."),
        (-1, 1, "Too low by 2."),
        (2, 0, "Too high by 2."),
        (0, 0, "Exactly."),
        ("More obscure ", "more obscure", "As you said."),
        ("better known", "more obscure", "Not what you said: what did you not think of?"),
    ],
)
def test_how_far_a_guess_is_off(guess, measured, sentence):
    predict("?", guess, key="06.a")
    assert compare("06.a", measured).text.endswith(f". {sentence}")


@pytest.mark.parametrize(("value", "text"), [(1682, "1,680"), (0.123456, "0.123"), (12.0, "12"), (-0.5, "-0.5")])
def test_numbers_have_three_digits_that_count(value, text):
    predict("?", key="06.a")
    assert compare("06.a", value).text == f"Measured: {text}."


def test_a_new_run_forgets_the_guess_of_the_last_one():
    predict("?", 3, key="06.a")
    predict("?", key="06.a")
    assert compare("06.a", 3).folded


def test_comparing_what_was_never_asked():
    predict("?", key="06.known")
    with pytest.raises(
        SettingError, match=r"nothing was asked under '06.knwon'\nneeded: .*\nto do: did you mean 06.known"
    ):
        compare("06.knwon", 3)


def test_a_card_holds_no_tags_of_its_text():
    assert "<i>" not in predict("Is a <i> b?", key="k")._repr_html_()
    page = replace(double().check(lambda values: {}["<script>"]), notes=("<b>",))._repr_html_()
    assert "KeyError: &#x27;&lt;script&gt;&#x27;</code>" in page
    assert "<script>" not in page and "<p><b></p>" not in page
