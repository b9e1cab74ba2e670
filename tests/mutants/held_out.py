"""Mistakes with users that are held out whole, and for each the test that sees it."""

from tests.mutants import mutant

SPLIT = "twotower_lib/split.py"

MUTANTS = [
    mutant(
        "fold-in trained on",
        SPLIT,
        "return self.events.take(self.part < PARTS[part] - 1)",
        "return self.events.take(self.part < PARTS[part])",
        "test_a_split_by_users_beside_a_loop",
    ),
    mutant(
        "fold-in unknown when asked",
        SPLIT,
        "return items_of_users(self.events.take(self.part < PARTS[part]))",
        "return items_of_users(self.events.take(self.part < PARTS[part] - 1))",
        "test_no_model_has_a_row_for_a_held_out_user_who_is_asked_with_the_fold_in",
    ),
    mutant(
        "fold-in and what is asked swapped",
        SPLIT,
        "return ~last_fraction(shuffled",
        "return last_fraction(shuffled",
        "test_the_fold_in_leaves_a_share_of_each_user_rounded_down",
    ),
    mutant(
        "fold-in of the oldest events",
        SPLIT,
        "time=generator.permutation(len(events))",
        "time=np.arange(len(events))",
        "test_the_fold_in_prefers_no_event",
    ),
    mutant(
        "users held out in the order of their rows",
        SPLIT,
        "users = generator.permutation(np.unique(events.user))",
        "users = np.unique(events.user)",
        "test_users_prefers_no_user",
    ),
    mutant(
        "users without an event count among the held-out ones",
        SPLIT,
        "generator.permutation(np.unique(events.user))",
        "generator.permutation(events.n_users)",
        "test_users_holds_out_all_events_of_a_share_of_the_users_that_have_any",
    ),
    mutant(
        "fold-in of validation users left out of the refit",
        SPLIT,
        'np.where(self.part <= PARTS["valid"],',
        'np.where(self.part == PARTS["valid"],',
        "test_refit_trains_on_all_of_the_validation_users_and_on_none_of_the_test_users",
    ),
    mutant(
        "a user in two parts is let through",
        SPLIT,
        "    if torn:\n",
        "    if torn > 1:\n",
        "test_a_user_in_two_parts_of_a_split_by_users_is_a_leak",
    ),
    mutant(
        "held-out users with a fold-in count as cold",
        SPLIT,
        "return self.seen(part).lengths == 0",
        "return np.bincount(self.known(part).user, minlength=self.events.n_users) == 0",
        "test_parts_of_users_by_hand",
    ),
    {
        "name": "bundle without the fold-in",
        "file": "twotower_lib/recipe.py",
        "old": 'prepared.split.seen("test"),',
        "new": 'prepared.split.refit().seen("valid"),',
        "test": "tests/test_split.py::test_users_from_the_settings_to_the_bundle",
    },
]
