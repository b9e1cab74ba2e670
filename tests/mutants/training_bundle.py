"""Mistakes in training, recipe, bundle, retriever, storage and the commands, and for each the test that sees it."""

from tests.mutants import mutant

TRAINING, OPTIMISERS, RECIPE, BUNDLE, RETRIEVER, CLI = (
    f"twotower_lib/{name}.py" for name in ("training", "optimisers", "recipe", "bundle", "retriever", "cli")
)

MUTANTS = [
    # --- one step ---
    mutant(
        "warm-up off by one step",
        TRAINING,
        "settings.learning_rate * (step + 1) / warmup",
        "settings.learning_rate * step / warmup",
        "test_the_learning_rate_by_hand",
    ),
    mutant(
        "chunks computed anew with other dropout",
        TRAINING,
        "checkpoint(part, items, start, use_reentrant=False)",
        "checkpoint(part, items, start, use_reentrant=False, preserve_rng_state=False)",
        "test_chunks_that_are_computed_anew_draw_the_same_dropout",
    ),
    mutant(
        "chunks that keep what lies between",
        TRAINING,
        "checkpoint(part, items, start, use_reentrant=False)",
        "part(items, start)",
        "test_nothing_between_is_kept_of_chunks",
    ),
    mutant(
        "chunks without the negatives of the others",
        TRAINING,
        "    return torch.cat(parts)\n",
        "    return torch.cat([parts[0], *(one.detach() for one in parts[1:])])\n",
        "test_embedding_in_chunks_changes_no_gradient",
    ),
    mutant(
        "cosine that does not reach 0",
        TRAINING,
        "math.cos(math.pi * (step - warmup)",
        "math.cos(math.pi / 2 * (step - warmup)",
        "test_the_learning_rate_by_hand",
    ),
    mutant(
        "learning rate never set",
        TRAINING,
        'group["lr"] = learning_rate_at(number, self.total_steps, self.train)\n',
        "learning_rate_at(number, self.total_steps, self.train)\n",
        "test_the_optimisers_get_the_learning_rate_of_their_step",
    ),
    mutant(
        "bias correction of the first moment only",
        OPTIMISERS,
        'lr * math.sqrt(1 - betas[1] ** state["step"]) /',
        "lr /",
        "test_it_is_the_sparse_adam_of_torch",
    ),
    mutant(
        "lazy Adam forgets its first moment",
        OPTIMISERS,
        '        state["mean"].index_copy_(0, rows, mean)\n',
        "",
        "test_it_is_the_sparse_adam_of_torch",
    ),
    mutant(
        "an item that is twice in a batch moved twice, each time as if alone",
        OPTIMISERS,
        "        gradient = table.grad.coalesce()  # type: ignore[union-attr]\n"
        "        rows, values = gradient.indices()[0], gradient.values()\n",
        "        rows, values = table.grad._indices()[0], table.grad._values()\n",
        "test_it_is_the_sparse_adam_of_torch",
    ),
    mutant(
        "tables moved by both optimisers",
        OPTIMISERS,
        "one.requires_grad and not any(one is other for other in lazy)",
        "one.requires_grad",
        "test_tables_are_lazy_and_all_else_is_not",
    ),
    mutant(
        "second mask instead of both",
        TRAINING,
        "torch.stack(masks).any(0) if masks",
        "masks[-1] if masks",
        "test_each_correction_is_switched_on_by_its_setting",
    ),
    mutant(
        "same-item mask always on",
        TRAINING,
        "same_item=settings.same_item,",
        "same_item=True,",
        "test_each_correction_is_switched_on_by_its_setting",
    ),
    mutant(
        "strength of log q not passed on",
        TRAINING,
        "        log_q_strength=settings.log_q,\n",
        "",
        "test_each_correction_is_switched_on_by_its_setting",
    ),
    # --- the whole run ---
    mutant(
        "as good taken for better",
        TRAINING,
        "metrics[self.settings.metric] > position.best",
        "metrics[self.settings.metric] >= position.best",
        "test_patience",
    ),
    mutant(
        "patience off by one epoch",
        TRAINING,
        "0 < patience <= position.epoch - position.best_epoch",
        "0 < patience < position.epoch - position.best_epoch",
        "test_patience",
    ),
    mutant(
        "last epoch taken for the best",
        TRAINING,
        "if metrics and metrics[self.settings.metric] > position.best:",
        "if metrics:",
        "test_patience",
    ),
    mutant(
        "refit without the validation part",
        TRAINING,
        "self.make_phase(self.split.refit(), position.best_epoch)",
        "self.make_phase(self.split, position.best_epoch)",
        "test_final_is_trained_on_train_and_valid_for_as_many_epochs_as_were_best",
    ),
    mutant(
        "refit for all epochs",
        TRAINING,
        "self.make_phase(self.split.refit(), position.best_epoch)",
        "self.make_phase(self.split.refit(), self.settings.epochs)",
        "test_patience",
    ),
    mutant(
        "chance line of the wrong batch",
        TRAINING,
        "chance_loss=math.log(phase.batches.batch_size)",
        "chance_loss=math.log2(phase.batches.batch_size)",
        "test_a_line_an_epoch",
    ),
    # --- stopped and resumed ---
    mutant(
        "dropout begins anew after a resume",
        TRAINING,
        '        torch.set_rng_state(state["random"])\n',
        "",
        "test_stopped_in_the_middle_of_an_epoch_and_resumed",
    ),
    mutant(
        "optimiser begins anew after a resume",
        TRAINING,
        "            optimiser.load_state_dict(saved)\n",
        "            pass\n",
        "test_stopped_in_the_middle_of_an_epoch_and_resumed",
    ),
    mutant(
        "epoch begins anew after a resume",
        TRAINING,
        "phase.batches.epoch(position.epoch, position.step)",
        "phase.batches.epoch(position.epoch)",
        "test_stopped_in_the_middle_of_an_epoch_and_resumed",
    ),
    mutant(
        "losses before a stop forgotten",
        TRAINING,
        'return Position(**state["position"]), None',
        'return replace(Position(**state["position"]), loss_sum=0.0), None',
        "test_stopped_in_the_middle_of_an_epoch_and_resumed",
    ),
    mutant(
        "lines after the last checkpoint kept",
        TRAINING,
        'if written and (PHASES.index(written["phase"]), written["epoch"]) <= here:',
        "if written:",
        "test_lines_that_a_killed_run_wrote_too_many_are_dropped",
    ),
    mutant(
        "second signal swallowed",
        TRAINING,
        "        signal.signal(number, before[number])\n",
        "",
        "test_a_signal_is_noted_and_the_second_acts_as_usual",
    ),
    # --- recipe ---
    mutant(
        "test asked by default",
        RECIPE,
        'against: Sequence[str] = (), part: Part = "valid"',
        'against: Sequence[str] = (), part: Part = "test"',
        "test_every_evaluation_is_noted",
    ),
    mutant(
        "validation asked of towers that saw it",
        RECIPE,
        'is_refitted = part == "test" and recipe.train.refit',
        "is_refitted = recipe.train.refit",
        "test_towers_of_a_part_never_saw_it",
    ),
    mutant(
        "incomplete run judged",
        RECIPE,
        ' or not load_state(out / "last")["position"]["done"]',
        "",
        "test_an_incomplete_run_is_neither_judged_nor_exported",
    ),
    mutant(
        "times that changed go unnoticed",
        RECIPE,
        "(events.user, events.item, events.time, self.split.part)",
        "(events.user, events.item)",
        "test_data_that_changed_is_noticed",
    ),
    mutant(
        "folder made before the data was read",
        RECIPE,
        "    prepared = prepare(recipe)\n    begin(",
        "    out.mkdir(parents=True)\n    prepared = prepare(recipe)\n    out.rmdir()\n    begin(",
        "test_no_folder_is_left_when_something_is_wrong",
    ),
    # --- bundle and retriever ---
    mutant(
        "bundle of the wrong checkpoint",
        RECIPE,
        'trained_towers(recipe, prepared, out, "test")',
        'trained_towers(recipe, prepared, out, "valid")',
        "test_towers_of_a_part_never_saw_it",
    )
    | {"test": "tests/test_bundle.py::test_the_report_of_the_towers_is_that_of_the_loaded_bundle"},
    mutant(
        "index of other vectors than the towers'",
        BUNDLE,
        "index = FaissIndex(vectors, settings)",
        "index = FaissIndex(-vectors, settings)",
        "test_the_report_of_the_towers_is_that_of_the_loaded_bundle",
    ),
    mutant(
        "known items recommended to their user",
        BUNDLE,
        "self.retriever.recommend(query, k, query.history)",
        "self.retriever.recommend(query, k)",
        "test_a_known_user_is_answered_without_what_they_know",
    ),
    mutant(
        "metric of the bundle not compared",
        BUNDLE,
        ', folder.facts["metric"])',
        ")",
        "test_towers_of_another_metric_are_refused",
    ),
    mutant(
        "bias kept among similar items",
        RETRIEVER,
        "            vectors[:, -1] = 0.0\n",
        "            pass\n",
        "test_similar_leaves_out_biases_and_the_item_itself",
    ),
    mutant(
        "item similar to itself",
        RETRIEVER,
        "Ragged.of([[item] for item in items])",
        "None",
        "test_similar_leaves_out_biases_and_the_item_itself",
    ),
    mutant(
        "excluded items found by the retriever",
        RETRIEVER,
        "queries), k, exclude)",
        "queries), k)",
        "test_recommends_the_largest_inner_products_without_the_excluded",
    ),
    # --- commands ---
    mutant(
        "a person's mistake ends with code 1",
        CLI,
        "ctx.exit(2)",
        "ctx.exit(1)",
        "test_query_that_cannot_be_answered",
    ),
]
