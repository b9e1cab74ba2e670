"""What moves the parameters: AdamW, and for tables that are much larger than a batch a lazy Adam.

Adam moves every row of a table in every step, also those that the batch has not met: on a table of tens of thousands of
rows that is most of a step. Lazy Adam moves the rows of the batch only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn


class LazyAdam(torch.optim.Optimizer):
    """Adam (Kingma & Ba 2015, algorithm 1) on the rows that have a gradient, for tables whose gradients are sparse.

    This is other mathematics than Adam's. A row that the batch has not met keeps its place and both moments, where Adam
    moves it on and lets them decay; the bias correction counts all steps, not those of the row. Where every row is met
    in every step, both are the same. `torch.optim.SparseAdam` computes the same by way of sparse tensors, more slowly.
    """

    def __init__(
        self, tables: Iterable[nn.Parameter], lr: float, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
    ) -> None:
        super().__init__(tables, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move the rows of the last batch."""
        assert closure is None
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is not None:
                    self._move(table, **group)

    def _move(self, table: nn.Parameter, lr: float, betas: tuple[float, float], eps: float, **_: Any) -> None:
        state = self.state[table]
        if not state:
            state |= {"step": 0, "mean": torch.zeros_like(table), "square": torch.zeros_like(table)}
        state["step"] += 1
        gradient = table.grad.coalesce()  # type: ignore[union-attr]
        rows, values = gradient.indices()[0], gradient.values()
        mean = state["mean"].index_select(0, rows).lerp_(values, 1 - betas[0])
        square = state["square"].index_select(0, rows).mul_(betas[1]).addcmul_(values, values, value=1 - betas[1])
        state["mean"].index_copy_(0, rows, mean)
        state["square"].index_copy_(0, rows, square)
        rate = lr * math.sqrt(1 - betas[1] ** state["step"]) / (1 - betas[0] ** state["step"])
        moved = table.index_select(0, rows).addcdiv_(mean, square.sqrt_().add_(eps), value=-rate)
        table.index_copy_(0, rows, moved)


def optimisers(model: nn.Module, lr: float, weight_decay: float, lazy_tables: bool) -> list[torch.optim.Optimizer]:
    """AdamW for all that is learned; with `lazy_tables` for all but the tables, whose gradients become sparse."""
    tables = [one for one in model.modules() if isinstance(one, nn.Embedding)] if lazy_tables else []
    for table in tables:
        table.sparse = True
    lazy = [one for table in tables for one in table.parameters()]
    rest = [one for one in model.parameters() if one.requires_grad and not any(one is other for other in lazy)]
    made: list[torch.optim.Optimizer] = [LazyAdam(lazy, lr)] if lazy else []
    return [*made, torch.optim.AdamW(rest, lr=lr, weight_decay=weight_decay, fused=True)] if rest else made
