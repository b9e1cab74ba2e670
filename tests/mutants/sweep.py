"""Mutants of `sweep.py`."""

from tests.mutants import mutant

FILE = "twotower_lib/sweep.py"

MUTANTS = [
    mutant(
        "sweep: settings beside the grid forgotten",
        FILE,
        "recipe.compose([*overrides, *_overrides(given)])",
        "recipe.compose([*_overrides(given)])",
        "test_the_product_in_the_order_of_the_file",
    ),
    mutant(
        "sweep: only the first fault told",
        FILE,
        'for fault in dict.fromkeys(faults))\n    return SettingError(f"the grid',
        'for fault in faults[:1])\n    return SettingError(f"the grid',
        "test_all_faults_are_told_at_once_and_each_once",
    ),
    mutant(
        "sweep: a fault told once for every combination",
        FILE,
        "for fault in dict.fromkeys(faults))",
        "for fault in faults)",
        "test_a_combination_that_its_settings_refuse",
    ),
    mutant(
        "sweep: parts and metrics may differ between runs",
        FILE,
        "    if SAME_QUESTIONS.fullmatch(name):\n",
        "    if not SAME_QUESTIONS:\n",
        "test_a_fault[split]",
    ),
    mutant(
        "sweep: a repeated value is trained twice",
        FILE,
        "if value in values[:place]]",
        "if value in values[:0]]",
        "test_a_fault[seed]",
    ),
    mutant(
        "sweep: a changed grid is taken for the old one",
        FILE,
        "if is_there and not force:",
        "if is_there and out is None:",
        "test_a_changed_grid_is_refused",
    ),
    mutant(
        "sweep: a folder of somebody else is taken",
        FILE,
        "    refuse_existing(out, force, SWEEP)\n",
        "",
        "test_a_folder_that_is_not_ours",
    ),
    mutant(
        "sweep: what cannot begin is found when its turn comes",
        FILE,
        "        recipe.begin(trial.recipe, prepared, prepared.split, trial.recipe.train.epochs)\n",
        "        str(trial)\n",
        "test_a_run_that_cannot_begin_is_told_before_any_is_trained",
    ),
    mutant(
        "sweep: a run of other settings is kept under --force",
        FILE,
        "settings.load(Recipe, run / recipe.RECIPE) == trial.recipe",
        "settings.load(Recipe, run / recipe.RECIPE) is not None",
        "test_force_takes_a_changed_grid_and_keeps_what_both_have",
    ),
    mutant(
        "sweep: a stopped run counts as complete",
        FILE,
        "            return None\n",
        "            continue\n",
        "test_stopped_in_a_run_and_resumed",
    ),
    mutant(
        "sweep: the worst setting first",
        FILE,
        "ascending=False",
        "ascending=True",
        "test_the_table_says_what_validation_says",
    ),
]
