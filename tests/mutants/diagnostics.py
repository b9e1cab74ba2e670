"""Mistakes in what a run says of itself, and for each the test that sees it."""

from tests.mutants import mutant

DIAGNOSTICS = "twotower_lib/diagnostics.py"

MUTANTS = [
    mutant(
        "alignment of distances that are not squared",
        DIAGNOSTICS,
        "(users - items).square().sum(dim=1).mean().item()",
        "(users - items).norm(dim=1).mean().item()",
        "test_alignment_by_loops",
    ),
    mutant(
        "uniformity as a mean of logs",
        DIAGNOSTICS,
        ".mul(-2).exp().mean().log().item()",
        ".mul(-2).mean().item()",
        "test_uniformity_by_loops",
    ),
    mutant(
        "uniformity with t = 1",
        DIAGNOSTICS,
        ".mul(-2).exp()",
        ".mul(-1).exp()",
        "test_uniformity_by_loops",
    ),
    mutant(
        "dimensions of cosines that are not squared",
        DIAGNOSTICS,
        "(there.T @ there).square().sum().item()",
        "(there @ there.T).sum().item()",
        "test_dimensions_known_by_construction",
    ),
    mutant(
        "scores beyond the bins lost",
        DIAGNOSTICS,
        "scores.double().clamp(LOWEST, HIGHEST)",
        "scores.double()",
        "test_the_histogram_is_that_of_numpy_with_the_ends_kept",
    ),
    mutant(
        "item bias without a gradient of its own",
        DIAGNOSTICS,
        "*([] if towers.bias is None else towers.bias.parameters())",
        "*[]",
        "test_gradients_of_a_side_by_hand",
    ),
    mutant(
        "masked candidates among the negatives",
        DIAGNOSTICS,
        "histogram(scores[~no_negative])",
        "histogram(scores)",
        "test_scores_and_masks_by_loops",
    ),
    mutant(
        "lengths after the normalisation",
        DIAGNOSTICS,
        "lengths, unit = vectors.norm(dim=1), _unit(vectors)",
        "lengths, unit = _unit(vectors).norm(dim=1), _unit(vectors)",
        "test_lengths_are_those_before_the_normalisation_and_items_count_once",
    ),
    mutant(
        "dropout while a run is looked at",
        DIAGNOSTICS,
        "    towers.eval()\n",
        "",
        "test_a_diagnosis_disturbs_nothing",
    ),
    mutant(
        "alarm for a healthy run",
        DIAGNOSTICS,
        "used >= COLLAPSED",
        "used <= COLLAPSED",
        "test_all_items_in_one_place_raise_the_alarm",
    ),
    mutant(
        "gradients before a stop forgotten",
        "twotower_lib/training.py",
        "with_gradients(position.gradients, phase.towers)",
        "with_gradients({}, phase.towers)",
        "test_the_gradients_of_a_line_are_those_of_its_steps",
    ),
    mutant(
        "alarm at every epoch",
        "twotower_lib/training.py",
        "            self.alarmed = True\n",
        "",
        "test_an_alarm_is_said_once_and_logged_each_time",
    ),
]
