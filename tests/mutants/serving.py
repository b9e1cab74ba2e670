"""Mistakes in the service, and for each the test that sees it."""

from tests.mutants import mutant

BUNDLE, SERVING = "twotower_lib/bundle.py", "twotower_lib/serving.py"

MUTANTS = [
    # --- what it answers ---
    mutant(
        "seen items returned by the service",
        SERVING,
        "exclude = query.history if ask.exclude_seen else None",
        "exclude = None",
        "test_seen_items_are_left_out_unless_they_are_asked_for",
    ),
    mutant(
        "exclude_seen ignored",
        SERVING,
        "exclude = query.history if ask.exclude_seen else None",
        "exclude = query.history",
        "test_seen_items_are_left_out_unless_they_are_asked_for",
    ),
    mutant(
        "rank from 0",
        BUNDLE,
        "enumerate(pairs, 1)",
        "enumerate(pairs)",
        "test_a_known_user_is_answered_without_what_they_know",
    ),
    {
        "name": "score rounded on its way",
        "file": BUNDLE,
        "old": "self.catalogue.titles[item], float(score))",
        "new": "self.catalogue.titles[item], round(float(score), 6))",
        "test": "tests/test_parity.py::test_three_reports_are_one",
    },
    # --- what it refuses ---
    mutant(
        "user and history both accepted",
        SERVING,
        "if (ask.user is None) == (ask.history is None):",
        "if ask.user is None and ask.history is None:",
        "test_refused",
    ),
    mutant(
        "unknown fields accepted",
        SERVING,
        'extra="forbid"',
        'extra="ignore"',
        "test_refused",
    ),
    mutant(
        "values of another type converted",
        SERVING,
        "strict=True, frozen",
        "strict=False, frozen",
        "test_refused",
    ),
    mutant(
        "k limit off by one",
        SERVING,
        "        if value > most:\n",
        "        if value >= most:\n",
        "test_limits_are_the_last_that_is_allowed",
    ),
    mutant(
        "body limit off by one",
        SERVING,
        "if len(body) > self.most:",
        "if len(body) >= self.most:",
        "test_limits_are_the_last_that_is_allowed",
    ),
    mutant(
        "body limit not counted as it comes",
        SERVING,
        "while len(body) <= self.most:",
        "while True:",
        "test_a_body_is_counted_as_it_comes",
    ),
    mutant(
        "another media type read as JSON",
        SERVING,
        'if media_type != "application/json":',
        'if "json" not in media_type:',
        "test_another_media_type",
    ),
    mutant(
        "position in the history off by one",
        SERVING,
        "in enumerate(known) if not",
        "in enumerate(known, 1) if not",
        "test_refused",
    ),
    # --- what it says again ---
    mutant(
        "value repeated in the problem",
        SERVING,
        'one["msg"]) for one',
        "f\"{one['msg']}: {one['input']}\") for one",
        "test_refused",
    ),
    mutant(
        "name of an unknown field repeated in the problem",
        SERVING,
        "takewhile(lambda part: isinstance(part, int) or part in OURS, location[1:])",
        "takewhile(lambda part: True, location[1:])",
        "test_refused",
    ),
    mutant(
        "address repeated in a redirect",
        SERVING,
        "redirect_slashes=False",
        "redirect_slashes=True",
        "test_another_address_or_method",
    ),
    mutant(
        "text of a fault in the log",
        SERVING,
        "type(error).__name__, where)",
        "error, where)",
        "test_a_fault_of_ours_is_told_without_what_came",
    ),
    mutant(
        "access log of the server on",
        SERVING,
        'logging.getLogger("uvicorn.access").disabled = True',
        'logging.getLogger("uvicorn.access").disabled = False',
        "test_one_line_a_request",
    ),
    mutant(
        "metric label from the path",
        SERVING,
        'getattr(scope.get("route"), "path", "none")',
        'scope["path"]',
        "test_what_is_counted",
    ),
    mutant(
        "metric label from the method",
        SERVING,
        'if scope["method"] in METHODS else "other"',
        'if scope["method"] else "other"',
        "test_what_is_counted",
    ),
    mutant(
        "metrics of all services together",
        SERVING,
        "make = partial(Counter, registry=self.registry)",
        "make = partial(Counter)",
        "test_what_is_counted",
    ),
    mutant(
        "unknown ids not told from known ones",
        SERVING,
        ".inc(known.count(answer))",
        ".inc(len(known))",
        "test_what_is_counted",
    ),
    # --- under load, and at the end ---
    mutant(
        "body held back by Nagle's algorithm",
        SERVING,
        "socket.IPPROTO_TCP",
        "0",
        "test_an_answer_is_sent_at_once",
    ),
    mutant(
        "one request too many waits",
        SERVING,
        "        if slots.locked():\n",
        "        if False:\n",
        "test_one_request_too_many_is_told_to_come_back",
    ),
    mutant(
        "search on the loop",
        SERVING,
        "await run_in_threadpool(function, ask)",
        "function(ask)",
        "test_one_request_too_many_is_told_to_come_back",
    ),
    mutant(
        "ready until the door closes",
        SERVING,
        "not self.api.state.ready, False\n",
        "not self.api.state.ready, True\n",
        "test_it_leaves_in_two_steps",
    ),
    mutant(
        "door closed at once",
        SERVING,
        "(self.drain if sig == signal.SIGTERM and not again else 0)",
        "0",
        "test_it_leaves_in_two_steps",
    ),
]
