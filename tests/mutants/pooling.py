"""Mistakes in how a history becomes one vector, in ages, and in ids that are dropped."""

from tests.mutants import mutant

TOWERS, FEATURES, BATCHES = (f"twotower_lib/{name}.py" for name in ("towers", "features", "batches"))

MUTANTS = [
    mutant(
        "recency turned round, the oldest weighs most",
        TOWERS,
        "return -math.log(2) * torch.exp",
        "return math.log(2) * torch.exp",
        "test_recency_by_hand",
    ),
    mutant(
        "half-life taken for the time to 1 / e",
        TOWERS,
        "return -math.log(2) * torch.exp",
        "return -torch.exp",
        "test_recency_by_hand",
    ),
    mutant(
        "shares of a list divided by those of the whole batch",
        TOWERS,
        "return weights / logits.new_zeros(n).index_add(0, owners, weights)[owners]",
        "return weights / weights.sum()",
        "test_a_history_is_pooled_alike_in_any_company",
    ),
    mutant(
        "softmax of a list without its largest logit taken off",
        TOWERS,
        "torch.exp(logits - highest[owners])",
        "torch.exp(logits)",
        "test_shares_of_a_list_are_a_softmax_however_large_its_logits",
    ),
    mutant(
        "shares that are never used",
        TOWERS,
        "return pooled(self.tables[name], codes, self.shares(codes))",
        "return pooled(self.tables[name], codes)",
        "test_pooling_equals_the_naive_loop",
    ),
    mutant(
        "what an item adds taken for its share of the mean",
        TOWERS,
        "* towers.user.shares(codes)[:, None]",
        "/ max(len(read), 1)",
        "test_what_the_items_of_a_history_add_is_the_whole_vector",
    ),
    mutant(
        "recency of histories without an order",
        TOWERS,
        'if settings.pooling == "recency" and features.history_mode != "before":',
        'if settings.pooling == "recency" and features.history_mode == "":',
        "test_pooling_by_recency_needs_an_order",
    ),
    mutant(
        "ids dropped while embedding",
        TOWERS,
        "if not (self.training and self.settings.drops_ids(side)):",
        "if not self.settings.drops_ids(side):",
        "test_an_id_is_dropped_as_often_as_set_and_only_in_training",
    ),
    mutant(
        "ids kept with the chance of being dropped",
        TOWERS,
        ">= self.settings.id_dropout",
        "< self.settings.id_dropout",
        "test_an_id_is_dropped_as_often_as_set_and_only_in_training",
    ),
    mutant(
        "ids dropped on a side that has nothing else",
        TOWERS,
        'and "id" in side and len(side) > 1',
        'and "id" in side',
        "test_a_side_with_nothing_beside_its_id_keeps_it",
    ),
    mutant(
        "ages counted among the known items only",
        FEATURES,
        "None if ages is None else ages[known]",
        "None if ages is None else lists.from_end - 1",
        "test_ages_count_the_events_since",
    ),
    mutant(
        "ages in training one event too old",
        BATCHES,
        "kept % there.shape[1] if is_ordered else None",
        "kept % there.shape[1] + 1 if is_ordered else None",
        "test_ages_in_training_are_those_of_a_question",
    ),
]
