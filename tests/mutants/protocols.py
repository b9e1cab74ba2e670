"""Mistakes in who is asked knowing what, and in the leak meter, and for each the test that sees it."""

from tests.mutants import mutant

PROTOCOLS, LEAKS, EVALUATION = (f"twotower_lib/{name}.py" for name in ("protocols", "leaks", "evaluation"))
BY_HAND = "test_each_moment_is_asked_with_what_came_before"

MUTANTS = [
    # --- point in time ---
    mutant(
        "a second known to itself",
        PROTOCOLS,
        "now = np.flatnonzero(starts_moment)[asked]",
        "now = np.append(np.flatnonzero(starts_moment), len(told))[asked + 1] - 1",
        BY_HAND,
    ),
    mutant(
        "a history that begins with another user",
        PROTOCOLS,
        "first = np.flatnonzero(starts_user)[(np.cumsum(starts_user) - 1)[now]]",
        "first = np.zeros_like(now)",
        BY_HAND,
    ),
    mutant(
        "validation that reads the test part",
        PROTOCOLS,
        "told = split.events.take(split.part <= PARTS[part])  #",
        "told = split.events.take(split.part <= PARTS['test'])  #",
        "test_validation_does_not_read_the_test_part",
    ),
    mutant(
        "moments of two users taken for one",
        PROTOCOLS,
        "starts_moment = starts_user | (",
        "starts_moment = (",
        "test_two_users_of_one_second_are_two_questions",
    ),
    mutant(
        "known items of a moment not excluded",
        PROTOCOLS,
        "exclude=before,",
        "exclude=Ragged.empty(len(now)),",
        BY_HAND,
    ),
    mutant(
        "a moment named after the last held-out event",
        PROTOCOLS,
        "asked.time[np.unique(asked.user, True)[1]]",
        "asked.time[np.searchsorted(asked.user, users, side='right') - 1]",
        "test_a_user_is_asked_once_at_the_first_held_out_moment",
    ),
    mutant(
        "a frozen model said of any split",
        PROTOCOLS,
        'unmoved = self.protocol == "time" and self.way == MOMENTS',
        "unmoved = self.way == MOMENTS",
        "test_a_report_names_protocol_way_and_leak",
    ),
    # --- the leak meter ---
    mutant(
        "the second of the question counted as later",
        LEAKS,
        'np.searchsorted(np.sort(known), times, side="right")',
        "np.searchsorted(np.sort(known), times)",
        "test_the_future_by_hand",
    ),
    mutant(
        "the others' future with one's own in it",
        LEAKS,
        '"others": (later - own_later) / (len(known) - own)',
        '"others": later / len(known)',
        "test_the_future_by_hand",
    ),
    mutant(
        "when an item was last seen",
        LEAKS,
        "np.minimum.at(first, events.item, _times_of(events))",
        "first[events.item] = _times_of(events)",
        "test_when_an_item_was_first_seen",
    ),
    mutant(
        "an empty place taken for the last item",
        LEAKS,
        "[:, None]) & is_shown",
        "[:, None])",
        "test_what_was_shown_too_early",
    ),
]
MUTANTS.append(
    {
        **mutant(
            "the two ways of asking compared",
            EVALUATION,
            "asked.protocol, asked.part, asked.way))",
            "asked.protocol, asked.part))",
            "",
        ),
        "test": "tests/test_protocols.py::test_answers_to_the_two_ways_of_asking_do_not_compare",
    }
)
