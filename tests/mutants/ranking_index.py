"""Mistakes in the exact top k, the indexes and the baselines, and for each the test that sees it."""

TOPK, INDEX, BASELINES = (f"twotower_lib/{name}.py" for name in ("topk", "index", "baselines"))

MUTANTS = [
    dict(
        name="struck items left among the scores",
        file=TOPK,
        old="            _Struck(exclude.slice(start, stop)).strike_out(block, 0)\n",
        new="            pass\n",
        test="tests/contracts/test_recommenders.py::test_excluded_items_never_appear",
    ),
    dict(
        name="ties by row, downwards",
        file=TOPK,
        old="order = np.lexsort((item, -score, row))",
        new="order = np.lexsort((-item, -score, row))",
        test="tests/contracts/test_indexes.py::test_ties_come_in_the_order_of_rows",
    ),
    dict(
        name="index metric L2",
        file=INDEX,
        old="faiss.IndexFlatIP(",
        new="faiss.IndexFlatL2(",
        test="tests/test_index.py::test_the_file_is_one_of_faiss",
    ),
    dict(
        name="index metric L2 accepted from a file",
        file=INDEX,
        old="        _check_metric(index, metric)\n",
        new="",
        test="tests/test_index.py::test_refuses_a_file_that_measures_the_distance",
    ),
    dict(
        name="ease divided by rows instead of columns",
        file=BASELINES,
        old="inverse.div_(-inverse.diagonal().clone())",
        new="inverse.div_(-inverse.diagonal().clone()[:, None])",
        test="tests/test_baselines.py::test_ease_against_one_ridge_regression_a_column",
    ),
    dict(
        name="frequency of ials with another exponent",
        file=BASELINES,
        old="weight**settings.nu",
        new="weight ** (1 + settings.nu)",
        test="tests/test_baselines.py::test_ials_embeds_a_query_by_its_normal_equations",
    ),
]
