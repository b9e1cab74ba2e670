"""Mistakes in what a reader is shown, and for each the test that sees it."""

from tests.mutants import mutant

TOWERS, RETRIEVER, EXPLORER, PLOTS = (
    f"twotower_lib/{name}.py" for name in ("towers", "retriever", "explorer", "plots")
)


def in_retriever_test(name: str, file: str, old: str, new: str, test: str) -> dict[str, str]:
    """A mutant of another module that the retriever's test sees."""
    return {**mutant(name, file, old, new, test), "test": f"tests/test_retriever.py::{test}"}


MUTANTS = [
    # --- where a score comes from ---
    in_retriever_test(
        "shares of a mean not divided by its length",
        TOWERS,
        " * towers.user.shares(codes)[:, None]\n",
        "\n",
        "test_contributions_add_up_to_the_score",
    ),
    in_retriever_test(
        "shares before the linear map",
        TOWERS,
        "parts = towers.user.head(torch.cat([shares, rest])).double()",
        "parts = torch.cat([shares, rest]).double()",
        "test_contributions_add_up_to_the_score",
    ),
    in_retriever_test(
        "shares of an embedding that was not normalised",
        TOWERS,
        "parts.sum(0).norm().clamp(min=SHORTEST) if settings.normalise else 1",
        "1",
        "test_normalised_contributions_are_those_divided_by_the_length",
    ),
    in_retriever_test(
        "shares of items that the tower does not read",
        TOWERS,
        "read = features.recent(query.history)[0]",
        "read = query.history[0]",
        "test_only_what_is_read_contributes",
    ),
    in_retriever_test(
        "a deep head split as if it were linear",
        TOWERS,
        'if "history" not in settings.user or settings.user_head.depth > 1:',
        'if "history" not in settings.user:',
        "test_an_embedding_that_is_no_sum_has_no_contributions",
    ),
    mutant(
        "bias left out of the sum",
        RETRIEVER,
        "return self.of_history.sum(axis=1) + self.of_bias + self.of_rest",
        "return self.of_history.sum(axis=1) + self.of_rest",
        "test_contributions_add_up_to_the_score",
    ),
    mutant(
        "other features of the user left out of the sum",
        RETRIEVER,
        "return self.of_history.sum(axis=1) + self.of_bias + self.of_rest",
        "return self.of_history.sum(axis=1) + self.of_bias",
        "test_contributions_add_up_to_the_score",
    ),
    # --- the explorer ---
    mutant(
        "sources that leave the rest out",
        EXPLORER,
        "float(shares[rest].sum())",
        "float(shares[rest].max())",
        "test_the_sources_of_every_shown_score_add_up_to_it",
    ),
    mutant(
        "smallest shares named as the sources",
        EXPLORER,
        'np.argsort(-shares, kind="stable")',
        'np.argsort(shares, kind="stable")',
        "test_the_largest_shares_are_named_and_the_rest_is_counted",
    ),
    mutant(
        "known items shown as recommendations",
        EXPLORER,
        "bundle.retriever.recommend(query, k, query.history)",
        "bundle.retriever.recommend(query, k)",
        "test_what_a_person_knows_is_listed_latest_first_and_never_recommended",
    ),
    mutant(
        "place in a model's own list instead of the other's",
        EXPLORER,
        "for name, lines in self.lists.items() if name != model)",
        "for name, lines in self.lists.items() if name == model)",
        "test_places_in_the_other_list_in_words",
    ),
    mutant(
        "titles written as tags",
        EXPLORER,
        'item = f"<b>{escape(line.title)}</b>',
        'item = f"<b>{line.title}</b>',
        "test_titles_are_texts_and_never_tags",
    ),
    mutant(
        "a history that is given turned round",
        EXPLORER,
        "self._list(self.history, list(history), -1)",
        "self._list(self.history, list(history)[::-1], -1)",
        "test_it_can_begin_with_a_history",
    ),
    # --- pictures ---
    mutant(
        "a picture without a description",
        PLOTS,
        "    if len(alt) < SHORTEST_ALT:",
        "    if len(alt) < 0:",
        "test_no_picture_without_a_description",
    ),
    mutant(
        "axes without labels",
        PLOTS,
        "axes.get_xlabel() and axes.get_ylabel()",
        "axes.get_xlabel() or axes.get_ylabel()",
        "test_no_picture_without_labelled_axes",
    ),
]
