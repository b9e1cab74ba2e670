"""Mutants of metrics.py, protocols.py, evaluation.py, storage.py and errors.py."""

METRICS, PROTOCOLS = "twotower_lib/metrics.py", "twotower_lib/protocols.py"
EVALUATION, STORAGE = "twotower_lib/evaluation.py", "twotower_lib/storage.py"
BY_HAND = "tests/test_evaluation.py::test_every_metric_of_five_users_by_hand"
IN_EVALUATION, IN_STORAGE = "tests/test_evaluation.py::test_", "tests/test_storage.py::test_"

MUTANTS = [
    # Metrics
    dict(
        name="discount off by one",
        file=METRICS,
        old="discount = 1 / np.log2(np.arange(2, hits.shape[1] + 2))",
        new="discount = 1 / np.log2(np.arange(3, hits.shape[1] + 3))",
        test=f"{BY_HAND}[ndcg@3]",
    ),
    dict(
        name="ideal list of ndcg as if k items were always held out",
        file=METRICS,
        old="[np.minimum(held_out, hits.shape[1]) - 1]",
        new="[np.full_like(held_out, hits.shape[1]) - 1]",
        test=f"{BY_HAND}[ndcg@3]",
    ),
    dict(
        name="recall's denominator capped silently",
        file=METRICS,
        old="return hits.sum(1) / held_out",
        new="return hits.sum(1) / np.minimum(held_out, hits.shape[1])",
        test=f"{BY_HAND}[recall@3]",
    ),
    dict(
        name="precision divided by the held-out items",
        file=METRICS,
        old="return hits.sum(1) / hits.shape[1]",
        new="return hits.sum(1) / np.minimum(hits.shape[1], held_out)",
        test=f"{BY_HAND}[precision@3]",
    ),
    dict(
        name="map divided by all held-out items",
        file=METRICS,
        old="return at_hits / np.minimum(held_out, hits.shape[1])",
        new="return at_hits / held_out",
        test=f"{BY_HAND}[map@3]",
    ),
    dict(
        name="map divided by its hits, so that one hit at the top is perfect",
        file=METRICS,
        old="return at_hits / np.minimum(held_out, hits.shape[1])",
        new="return at_hits / np.maximum(hits.sum(1), 1)",
        test=f"{BY_HAND}[map@3]",
    ),
    dict(
        name="mrr counts ranks from 0",
        file=METRICS,
        old="(hits.argmax(1) + 1)",
        new="np.maximum(hits.argmax(1), 1)",
        test=f"{BY_HAND}[mrr@3]",
    ),
    dict(
        name="hits of one query counted for another",
        file=METRICS,
        old="width = 1 + max(",
        new="width = max(",
        test="tests/test_metrics.py::test_hits_belong_to_their_own_query_and_never_to_an_empty_place",
    ),
    dict(
        name="popularity divided by k where fewer items were shown",
        file=EVALUATION,
        old="np.maximum((shown >= 0).sum(1), 1)",
        new="shown.shape[1]",
        test=f"{BY_HAND}[popularity@3]",
    ),
    dict(
        name="head, torso and tail are thirds of the items",
        file=EVALUATION,
        old="before * len(SLICES) // max(len(known), 1)",
        new="np.arange(known.n_items) * len(SLICES) // known.n_items",
        test=f"{IN_EVALUATION}slices_hold_a_third_of_the_interactions_each",
    ),
    # Protocol
    dict(
        name="seen items kept",
        file=PROTOCOLS,
        old="exclude=seen,",
        new="exclude=Ragged.empty(len(users)),",
        test=f"{IN_EVALUATION}no_known_item_is_shown",
    ),
    dict(
        name="cold users dropped silently",
        file=PROTOCOLS,
        old="users = np.flatnonzero(held_out.lengths > 0)",
        new="users = np.flatnonzero((held_out.lengths > 0) & (split.seen(part).lengths > 0))",
        test=f"{IN_EVALUATION}cold_users_are_asked_and_marked",
    ),
    dict(
        name="users without a held-out item not counted",
        file=PROTOCOLS,
        old="left_out=split.events.n_users - len(users)",
        new="left_out=0",
        test=f"{IN_EVALUATION}who_has_nothing_held_out_is_left_out_and_counted",
    ),
    dict(
        name="an approximate index taken for an exact one",
        file=EVALUATION,
        old="if not recommender.is_exact and not approximate:",
        new="if recommender.is_exact and approximate:",
        test=f"{IN_EVALUATION}an_approximate_index_is_refused_unless_it_is_the_index_that_is_measured",
    ),
    # Intervals and report
    dict(
        name="bootstrap by query instead of user",
        file=EVALUATION,
        old='by_user = values.groupby(table["user"].to_numpy())',
        new="by_user = values.groupby(np.arange(len(table)))",
        test=f"{IN_EVALUATION}an_interval_by_hand",
    ),
    dict(
        name="intervals of 90 % called 95 %",
        file=EVALUATION,
        old="[2.5, 97.5]",
        new="[5.0, 95.0]",
        test=f"{IN_EVALUATION}the_interval_of_many_users_is_that_of_the_normal_distribution",
    ),
    dict(
        name="difference the wrong way round",
        file=EVALUATION,
        old='delta = one.table.drop(columns="user") - other.table.drop(columns="user")',
        new='delta = other.table.drop(columns="user") - one.table.drop(columns="user")',
        test=f"{IN_EVALUATION}a_difference_is_paired",
    ),
    dict(
        name="a report without chance",
        file=EVALUATION,
        old='missing = {"chance", "popularity"} - self.references.keys()',
        new='missing = {"popularity"} - self.references.keys()',
        test=f"{IN_EVALUATION}no_report_without_its_references",
    ),
    dict(
        name="NaN in the JSON of a report",
        file=EVALUATION,
        old="return None if np.isnan(value) else value",
        new="return value",
        test=f"{IN_EVALUATION}a_metric_that_no_query_has_is_not_in_the_json",
    ),
    # Folders
    dict(
        name="only the size of a file is checked, not its hash",
        file=STORAGE,
        old='if _sha256(path / name) != entry["sha256"]:',
        new='if (path / name).stat().st_size != entry["bytes"]:',
        test=f"{IN_STORAGE}every_flipped_byte_is_noticed_and_its_file_named",
    ),
    dict(
        name="the manifest's own hash is not checked",
        file=STORAGE,
        old="if _sealed(manifest) == written:",
        new="if manifest:",
        test=f"{IN_STORAGE}every_flipped_byte_is_noticed_and_its_file_named",
    ),
    dict(
        name="files too many are accepted",
        file=STORAGE,
        old='sorted(found ^ manifest["files"].keys())',
        new='sorted(manifest["files"].keys() - found)',
        test=f"{IN_STORAGE}a_file_too_many_is_named",
    ),
    dict(
        name="a folder of another kind is opened",
        file=STORAGE,
        old='manifest["kind"] != kind or manifest["format"] != FORMAT',
        new='manifest["format"] != FORMAT',
        test=f"{IN_STORAGE}a_folder_of_another_kind",
    ),
    dict(
        name="renamed before it was read back",
        file=STORAGE,
        old="        open_folder(work, kind)\n        _put_in_place(work, path)\n",
        new="        _put_in_place(work, path)\n        open_folder(path, kind)\n",
        test=f"{IN_STORAGE}what_the_disk_did_not_keep_is_noticed_before_the_folder_is_there",
    ),
    dict(
        name="renamed before it was flushed",
        file=STORAGE,
        old="        _flush(path)\n    _flush(folder)",
        new="        pass\n    _flush(folder)",
        test=f"{IN_STORAGE}everything_is_flushed_before_the_folder_is_renamed",
    ),
    dict(
        name="the old folder removed before the new one is in place",
        file=STORAGE,
        old="os.replace(path, aside)",
        new="shutil.rmtree(path)",
        test=f"{IN_STORAGE}killed_before_any_step_of_a_replacement_leaves_the_old_folder_or_the_new",
    ),
    dict(
        name="a folder written where it shall be, not beside it",
        file=STORAGE,
        old="""    work = _beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear_leftovers(path)
        work.mkdir()
""",
        new="""    work = path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear_leftovers(path)
        work.mkdir(exist_ok=True)
""",
        test=f"{IN_STORAGE}an_exception_leaves_what_was_there",
    ),
    dict(
        name="an exception leaves the temporary folder",
        file=STORAGE,
        old="    finally:\n        shutil.rmtree(work, ignore_errors=True)",
        new="    finally:\n        pass",
        test=f"{IN_STORAGE}an_exception_leaves_what_was_there",
    ),
    dict(
        name="force replaces what is not ours",
        file=STORAGE,
        old="if not (path / mark).is_file():",
        new="if not path.exists():",
        test=f"{IN_STORAGE}what_is_not_ours_is_never_replaced",
    ),
    dict(
        name="the folder of a living process is cleared",
        file=STORAGE,
        old="    os.kill(process, 0)\n    except ProcessLookupError:\n        return False",
        new="    os.kill(process, 0)\n        return False\n    except ProcessLookupError:\n        return False",
        test=f"{IN_STORAGE}the_folder_of_a_living_process_stays",
    ),
    dict(
        name="a text written in place",
        file=STORAGE,
        old="    work = _beside(path)\n    try:\n        with work.open",
        new="    work = path\n    try:\n        with work.open",
        test=f"{IN_STORAGE}a_text_that_the_disk_does_not_take_leaves_what_was_there",
    ),
    # Errors
    dict(
        name="an error loses its advice between processes",
        file="twotower_lib/errors.py",
        old="return type(self), (self.came, self.needed, self.do)",
        new="return type(self), (self.came, self.needed)",
        test="tests/test_errors.py::test_an_error_crosses_a_process_border_whole",
    ),
]
