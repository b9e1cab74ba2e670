"""Mistakes in the checks of exercises, and for each the test that sees it."""

ENGINE, JUDGING, RAISED, OUTCOMES, PROGRESS, GUESSES, VALUES = (
    f"twotower_lib/exercises/{name}.py"
    for name in ("engine", "judging", "raised", "outcomes", "progress_file", "guesses", "values")
)
TOWERS, INDEX = "twotower_lib/exercises/towers.py", "twotower_lib/exercises/index.py"


def mutant(name: str, file: str, old: str, new: str, test: str) -> dict[str, str]:
    """A mutant of a file whose test is that of all exercises."""
    return {"name": name, "file": file, "old": old, "new": new, "test": f"tests/test_exercises.py::{test}"}


def oracle(name: str, file: str, old: str, new: str, test: str) -> dict[str, str]:
    """A mutant of an oracle of an exercise."""
    return {"name": name, "file": file, "old": old, "new": new, "test": f"tests/test_exercise_oracles.py::{test}"}


MUTANTS = [
    # --- judging an answer ---
    mutant(
        "every answer is right",
        JUDGING,
        "    if not right.all():\n",
        "    if not right.any():\n",
        "test_the_whole_text_of_a_failed_check",
    ),
    mutant(
        "input changed in place not seen",
        JUDGING,
        "    given = deepcopy(dict(case.arguments))\n",
        "    given = dict(case.arguments)\n",
        "test_each_end_has_its_kind_and_its_words",
    ),
    mutant(
        "truth values taken for numbers",
        VALUES,
        "one.shape == other.shape and (one.dtype == bool) == (other.dtype == bool)",
        "one.shape == other.shape",
        "test_each_end_has_its_kind_and_its_words",
    ),
    mutant(
        "tensors that want a gradient refused",
        VALUES,
        "value = value.detach().cpu()",
        "value = value.cpu()",
        "test_other_right_answers_are_right",
    ),
    mutant(
        "the last place that differs shown as the first",
        JUDGING,
        "np.argwhere(~right)[0])",
        "np.argwhere(right)[0])",
        "test_a_large_answer_is_shown_at_the_first_place_that_differs",
    ),
    mutant(
        "values that are not finite told as other values",
        JUDGING,
        "np.asarray(~np.isfinite(yours) & ~right)",
        "np.asarray(~np.isfinite(yours) & right)",
        "test_each_end_has_its_kind_and_its_words",
    ),
    mutant(
        "any NotImplementedError taken for a stub",
        RAISED,
        "    return own == last and all(",
        "    return bool(last) or all(",
        "test_each_end_has_its_kind_and_its_words",
    ),
    mutant(
        "a stub told as an error",
        JUDGING,
        "    if is_stub(function, error):\n",
        "    if not is_stub(function, error) and False:\n",
        "test_every_answer_gets_its_own_sentence",
    ),
    mutant(
        "the line of somebody else's code told as the reader's",
        RAISED,
        "line {frames[-1].lineno} of {_place(frames[-1].filename)}: {frames[-1].line}",
        "line {_frames(error)[-1].lineno} of {_place(frames[-1].filename)}: {_frames(error)[-1].line}",
        "test_an_error_below_a_helper_of_another_file_is_told_by_the_reader_s_line",
    ),
    mutant(
        "paths of the machine in a trace",
        RAISED,
        'return "/".join(Path(filename).parts[-2:])',
        "return filename",
        "test_a_trace_through_other_files_holds_no_path_of_this_machine",
    ),
    # --- misconceptions ---
    mutant(
        "a misconception named after one case",
        ENGINE,
        "        if len(values) == len(mistaken) and _same_answers(exercise, values, mistaken):\n",
        "        if values and equal(values[0], mistaken[0], 1e-4):\n",
        "test_a_misconception_is_named_only_if_it_gives_the_answers_to_all_cases",
    ),
    mutant(
        "misconceptions of another shape not named",
        ENGINE,
        "if fault.kind in (Kind.VALUE, Kind.FORM, Kind.NOT_FINITE) else None",
        "if fault.kind in (Kind.VALUE, Kind.NOT_FINITE) else None",
        "test_a_misconception_of_another_shape_is_named",
    ),
    mutant(
        "two misconceptions of the same answers accepted",
        ENGINE,
        "combinations([right, *named], 2)",
        "((right, one) for one in named)",
        "test_a_record_that_contradicts_itself_is_refused",
    ),
    mutant(
        "a misconception that is right accepted",
        ENGINE,
        "combinations([right, *named], 2)",
        "combinations(named, 2)",
        "test_a_record_that_contradicts_itself_is_refused",
    ),
    mutant(
        "a solution that is wrong accepted",
        ENGINE,
        '_arrays(exercise, "the solution", exercise.solution)):',
        '_arrays(exercise, "the solution", exercise.oracle)):',
        "test_a_record_that_contradicts_itself_is_refused",
    ),
    mutant(
        "two hints accepted",
        ENGINE,
        "    if len(exercise.hints) != HINTS:\n",
        "    if len(exercise.hints) > HINTS:\n",
        "test_a_record_that_contradicts_itself_is_refused",
    ),
    # --- speed ---
    mutant(
        "slow after one slow try",
        ENGINE,
        "    return all(_seconds(function, case) > limit for _ in range(TRIES))\n",
        "    return any(_seconds(function, case) > limit for _ in range(TRIES))\n",
        "test_a_slow_function_gets_a_remark_if_every_try_is_slow",
    ),
    mutant(
        "slow without having taken time",
        ENGINE,
        "for _ in range(TRIES)), SLOW_SECONDS)",
        "for _ in range(TRIES)), 0.0)",
        "test_a_function_that_takes_no_time_is_never_slow",
    ),
    # --- what is shown ---
    mutant(
        "the trace first",
        OUTCOMES,
        "        lines = [self.head]\n",
        "        lines = [self.trace, self.head]\n",
        "test_the_reader_s_own_line_comes_first_and_the_trace_is_folded_and_last",
    ),
    mutant(
        "other words in HTML than in the text",
        OUTCOMES,
        '"".join(f"<p>{marked_up(note)}</p>" for note in self.notes)',
        '"".join(f"<p>{marked_up(note)}</p>" for note in self.notes[:1])',
        "test_every_note_is_in_both_forms",
    ),
    mutant(
        "an answer written as tags",
        OUTCOMES,
        "<code>{escape(value)}</code>",
        "<code>{value}</code>",
        "test_a_card_holds_no_tags_of_its_text",
    ),
    mutant(
        "hints unfolded",
        ENGINE,
        'f"{self.hints[number - 1]} {remark}".strip(), folded=True)',
        'f"{self.hints[number - 1]} {remark}".strip(), folded=False)',
        "test_hints_come_one_after_the_other_folded_and_counted",
    ),
    mutant(
        "the next hint is always the first",
        ENGINE,
        "        progress_file.hints_shown[self.name] = number\n",
        "",
        "test_hints_come_one_after_the_other_folded_and_counted",
    ),
    # --- the progress file ---
    mutant(
        "a stub counted as an attempt",
        ENGINE,
        "        if fault and fault.kind is Kind.NOT_ATTEMPTED:\n",
        "        if fault and fault.kind is Kind.SOLVED:\n",
        "test_attempts_hints_and_the_first_day_are_stored",
    ),
    mutant(
        "solved only until the next mistake",
        PROGRESS,
        'solved=old.solved or (today if solved else ""),',
        'solved=today if solved else "",',
        "test_attempts_hints_and_the_first_day_are_stored",
    ),
    mutant(
        "a damaged progress file replaced silently",
        PROGRESS,
        '    return remark if remark == DAMAGED else ""\n',
        '    return ""\n',
        "test_a_damaged_file_is_told_and_begun_anew",
    ),
    mutant(
        "progress written over the old file",
        PROGRESS,
        "        write_text(FILE, json.dumps(asdict(after), indent=1, sort_keys=True, ensure_ascii=False)",
        "        FILE.write_text(json.dumps(asdict(after), indent=1, sort_keys=True, ensure_ascii=False)",
        "test_it_is_written_whole_or_not_at_all",
    ),
    mutant(
        "an unwritable folder as an error",
        PROGRESS,
        "except OSError:\n            _unsaved[:] = [after]\n",
        "except FileNotFoundError:\n            _unsaved[:] = [after]\n",
        "test_a_folder_that_cannot_be_written_to_is_a_remark",
    ),
    mutant(
        "progress changed by two notebooks at once",
        PROGRESS,
        "fcntl.flock(folder, fcntl.LOCK_EX)",
        "fcntl.flock(folder, fcntl.LOCK_UN)",
        "test_two_notebooks_of_one_folder_lose_nothing_of_each_other",
    ),
    mutant(
        "nothing forgotten",
        PROGRESS,
        "        FILE.unlink()\n",
        "        FILE.stat()\n",
        "test_a_reader_sees_it_and_deletes_it",
    ),
    # --- guesses ---
    mutant(
        "too high told as too low",
        GUESSES,
        "return f\"Too {'low' if guess < measured else 'high'} by a factor",
        "return f\"Too {'low' if guess > measured else 'high'} by a factor",
        "test_how_far_a_guess_is_off",
    ),
    mutant(
        "the measured value given away before a guess",
        GUESSES,
        'Measured, after your guess: {asked.question}", value, folded=True)',
        'Measured, after your guess: {asked.question}", value, folded=False)',
        "test_without_a_guess_both_are_folded_and_say_the_question",
    ),
    mutant(
        "a guess of the last run kept",
        GUESSES,
        "stored.guesses | {key: asked}",
        "{key: asked} | stored.guesses",
        "test_a_new_run_forgets_the_guess_of_the_last_one",
    ),
    # --- oracles of chapter 05 ---
    oracle(
        "a cross network that reads one vector",
        TOWERS,
        "        size = dim + dim\n",
        "        size = dim\n",
        "test_a_question_costs_by_hand",
    ),
    oracle(
        "a mean over the gaps",
        TOWERS,
        "[one / max(len(kept), 1) for one in sums]",
        "[one / len(rows) for one in sums]",
        "test_a_mean_with_gaps_by_hand",
    ),
    oracle(
        "an item bias that is not times the temperature",
        TOWERS,
        "+ [temperature * own])",
        "+ [own])",
        "test_a_cosine_and_a_bias_by_hand",
    ),
    oracle(
        "recency to the base e",
        TOWERS,
        "2 ** (-age / half_life) if is_item",
        "math.exp(-age / half_life) if is_item",
        "test_recency_by_hand",
    ),
    # --- oracles of chapter 11 ---
    oracle(
        "the farthest lists read",
        INDEX,
        "key=lambda number: -scores[number])[:probes]",
        "key=lambda number: scores[number])[:probes]",
        "test_the_lists_that_are_read_by_hand",
    ),
    oracle(
        "the recall of an index over what is wanted",
        INDEX,
        "sum(item in mine for item in true) / len(true)",
        "sum(item in mine for item in true) / len(held_out)",
        "test_three_recalls_by_hand",
    ),
    oracle(
        "one more dimension without its root",
        INDEX,
        "math.sqrt(max(squares) - square)]",
        "max(squares) - square]",
        "test_one_more_dimension_by_hand",
    ),
    oracle(
        "every code looked up in the first part",
        INDEX,
        "centroids[part, code].tolist()",
        "centroids[0, code].tolist()",
        "test_scores_by_codes_by_hand",
    ),
    # --- stored results ---
    {
        "name": "the newest result by name, so that a machine hides a newer one",
        "file": "twotower_lib/exercises/results.py",
        "old": "key=lambda path: _parts(path)[::-1]",
        "new": "key=lambda path: path.name",
        "test": "tests/test_results.py::test_the_newest_by_date_whatever_the_machine",
    },
]
