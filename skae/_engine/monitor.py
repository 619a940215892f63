"""Loss curves, stopping and the parameters to keep, for every model of a stack on its own."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor


class Monitor:
    """Watches one loss per model, the validation loss where there is one.

    A model stops when its watched loss has not fallen below ``best - tol |best - origin|`` for
    `n_iter_no_change` epochs in a row, when its gradient's norm is at most `gradient_tol`, or when
    its loss is no longer finite. With validation, the parameters of the best epoch are kept;
    without, those of the last. Before the objective has settled losses are no measure: no epoch is
    waited for, and none is the best.
    """

    def __init__(
        self,
        models: int,
        tol: float | None,
        n_iter_no_change: int,
        gradient_tol: float | None = None,
        origin: float = 0.0,
    ):
        self.tol, self.patience, self.gradient_tol = tol, n_iter_no_change, gradient_tol
        self.origin = origin
        self.loss_curves: list[list[float]] = [[] for _ in range(models)]
        self.validation_curves: list[list[float]] = [[] for _ in range(models)]
        self.best = [math.inf] * models
        self.waited = [0] * models
        self.improved = [False] * models  # whether the last epoch was the best so far
        self.reasons: list[str | None] = [None] * models
        self.kept: list[Tensor | None] = [None] * models  # of stopped models
        self.best_flat: list[Tensor | None] = [None] * models  # under validation

    @property
    def active(self) -> list[int]:
        """The models that still train."""
        return [i for i, reason in enumerate(self.reasons) if reason is None]

    def record(
        self,
        loss: list[float],
        validation: list[float] | None,
        flat: Tensor,
        settled: bool = True,
        gradient: list[float] | None = None,
    ) -> None:
        """Take in an epoch of the models that still train; norms of gradients if they count."""
        for i in self.active:
            self.loss_curves[i].append(loss[i])
            watched = loss[i]
            if validation is not None:
                watched = validation[i]
                self.validation_curves[i].append(watched)
            if not (math.isfinite(loss[i]) and math.isfinite(watched)):
                self._stop(i, "diverged", self._row(i, flat))
                continue
            self.improved[i] = False
            if not settled:
                continue
            best = self.best[i]
            size = abs(best - self.origin) if best < math.inf else 0.0
            better = watched < best - (self.tol or 0.0) * size
            self.waited[i] = 0 if better else self.waited[i] + 1
            self.improved[i] = watched < best
            if watched < best:
                self.best[i] = watched
                if validation is not None:
                    self.best_flat[i] = self._row(i, flat).clone()
            if gradient is not None and gradient[i] <= (self.gradient_tol or 0.0):
                self._stop(i, "gradient", self._row(i, flat))
            elif self.tol is not None and self.waited[i] >= self.patience:
                self._stop(i, "converged", self._row(i, flat))

    def _row(self, i: int, flat: Tensor) -> Tensor:
        return flat.view(len(self.best), -1)[i]

    def _stop(self, i: int, reason: str, row: Tensor) -> None:
        # The loss of an epoch is of the weights before its last step.
        if self.best_flat[i] is None and not row.isfinite().all():
            reason = "diverged"
        self.reasons[i], self.kept[i] = reason, row.clone()

    def stop_all(self, reason: str, flat: Tensor) -> None:
        """Stop every model that still trains."""
        for i in self.active:
            self._stop(i, reason, self._row(i, flat))

    def chosen(self, flat: Tensor) -> Tensor:
        """The parameters to keep, in `flat`'s layout."""
        out = flat.clone()
        rows = out.view(len(self.best), -1)
        for i in range(len(rows)):
            kept = self.best_flat[i] if self.best_flat[i] is not None else self.kept[i]
            if kept is not None:
                rows[i].copy_(kept)
        return out

    def state(self) -> dict[str, Any]:
        """What a later run needs to go on."""
        reasons = zip(self.waited, self.reasons, strict=True)
        return {
            "loss_curves": [list(c) for c in self.loss_curves],
            "validation_curves": [list(c) for c in self.validation_curves],
            "best": list(self.best),
            "waited": [0 if reason == "converged" else w for w, reason in reasons],
            "best_flat": list(self.best_flat),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.loss_curves = [list(c) for c in state["loss_curves"]]
        self.validation_curves = [list(c) for c in state["validation_curves"]]
        self.best, self.waited = list(state["best"]), list(state["waited"])
        self.best_flat = list(state["best_flat"])
