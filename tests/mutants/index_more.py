"""Mistakes in an index that changes, filters, codes and is tuned, and for each the test that sees it."""

from tests.mutants import mutant

ANN, INDEX, FILTERS, TUNING, SCANN = (
    f"twotower_lib/{name}.py" for name in ("ann", "index", "filters", "index_tuning", "scann_index")
)

MUTANTS = [
    mutant(
        "deleted items found again beside a filter",
        INDEX,
        "return Selection(mask if self._there is None else mask & self._there.mask)",
        "return Selection(mask)",
        "test_deleted_rows_are_never_searched_and_stay_so_beside_a_filter",
    ),
    mutant(
        "deleted items forgotten on the way to the file",
        INDEX,
        "whole = self.index if self._there is None else _naming(self.index, self._there.mask)",
        "whole = self.index",
        "test_a_file_keeps_what_was_added_and_deleted",
    ),
    mutant(
        "an item added after a delete is not there",
        INDEX,
        "np.append(self._there.mask, np.ones(len(new), dtype=bool))",
        "np.append(self._there.mask, np.zeros(len(new), dtype=bool))",
        "test_recall_after_adds_and_deletes",
    ),
    mutant(
        "added to memory that another index reads",
        INDEX,
        "        self._shared = True\n",
        "",
        "test_nothing_is_added_to_memory_that_two_indexes_share",
    ),
    mutant(
        "vectors behind the codes counted as searched",
        INDEX,
        "return Bytes(whole - vectors, vectors)",
        "return Bytes(whole, vectors)",
        "test_bytes_by_hand",
    ),
    mutant(
        "codes alone decide",
        ANN,
        "return wanted * self.rerank if self.kind in CODED else wanted",
        "return wanted",
        "test_a_pq_answers_with_the_best_of_its_candidates",
    ),
    mutant(
        "what is not allowed fills up a short list",
        FILTERS,
        "Recommendations(np.where(good, items, NOTHING),",
        "Recommendations(items,",
        "test_what_is_left_of_so_many_by_hand",
    ),
    mutant(
        "the best recall taken for the fastest",
        TUNING,
        'good.sort_values("queries_a_second").iloc[-1]["settings"]',
        'good.sort_values("recall").iloc[-1]["settings"]',
        "test_the_best_is_the_fastest_of_those_that_reach_the_target",
    ),
    mutant(
        "what fills up an answer of scann taken for item 0",
        SCANN,
        "np.full((len(vectors), fetched), NOTHING)",
        "np.full((len(vectors), fetched), 0)",
        "test_an_answer_that_stays_short_is_filled_up_with_no_item",
    ),
]
