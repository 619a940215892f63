"""How a network is trained: the parameters, and what they come to for the engine."""

from __future__ import annotations

import secrets
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from torch import Tensor

from skae._engine.batches import Source
from skae._engine.rng import Draws, Streams
from skae._engine.train import SCHEDULES, Result, Training
from skae._warnings import warn_caller
from skae.estimators._estimator import estimator
from skae.estimators._input import checked_device
from skae.objective import Rows


@estimator
class TrainingParameters:
    """How a network is trained.

    Parameters
    ----------
    alpha : float, default=0.0
        Weight decay: ``alpha / 2 |W|^2`` is added to the mean loss per sample, biases excluded.
        A textbook's lambda is ``n d alpha / 2`` beside a loss summed over n rows and d features,
        as in ``lambda (|W1|^2 + |W2|^2)``. scikit-learn's MLP, whose gradient sums over outputs,
        has the same minimum at its ``alpha = batch_size d alpha / 2``.

    dropout : float, default=0.0
        Probability in [0, 1) of dropping a hidden or code unit in training, for every row on its
        own; kept units count 1 / (1 - dropout). (Some texts give the probability of keeping.)
        With an encoder or decoder of one's own it covers what is built in, and the code.

    input_dropout : float, default=0.0
        The same for the inputs. A dropped input counts as its feature's training mean (as 0
        under sgd or with an encoder of one's own), and kept ones are scaled about it.

    solver : {"adam", "sgd", "lbfgs", "cg"}, default="adam"
        "adam" and "sgd" (with momentum) step once a batch. "lbfgs" and "cg" use all rows at every
        step and need an objective without noise. Adam, lbfgs and cg work in the units of the
        data, so that X and c + s X train alike; sgd is the textbook's, on the raw weights.

    learning_rate : {"constant", "linear", "cosine"}, default="constant"
        Schedule of the step size; the last two fall to zero over `learning_rate_horizon`.

    learning_rate_init : float, default=0.001
        Step size of adam and sgd at the start.

    learning_rate_horizon : int, default=None
        Epochs, counted from the first, over which a schedule runs. None is `max_iter` of this
        call; give it to continue a schedule with `warm_start`. Calls of `partial_fit` are the
        epochs of one schedule, for which None is `max_iter` of them.

    momentum : float, default=0.9
        Momentum of sgd, in [0, 1).

    nesterovs_momentum : bool, default=True
        Whether sgd looks ahead.

    batch_size : int, default="auto"
        Rows per step; "auto" is ``min(200, n_samples)``. The last batch of an epoch may be
        shorter; no row is left out.

    shuffle : bool, default=True
        Whether every epoch takes the rows in a new order.

    max_iter : int, default=200
        Largest number of epochs, or of iterations for lbfgs and cg.

    tol : float, default=1e-4
        Training stops when the loss has not fallen by this fraction of the best one for
        `n_iter_no_change` epochs in a row. None trains for exactly `max_iter` epochs.

    n_iter_no_change : int, default=10
        See `tol`.

    early_stopping : bool, default=False
        Watch the loss of rows held out from training instead, and keep the best weights.

    validation_fraction : float, default=0.1
        Share of the rows held out when `early_stopping`.

    random_state : int, RandomState instance, default=None
        Seeds initial weights, shuffling, the held-out rows and all noise, in streams of their
        own. None takes fresh entropy; the global generators are never touched.

    device : str or torch.device, default=None
        Where to train; None is where X is.

    precision : {"float32", "float64", "bfloat16"}, default=None
        Arithmetic. None is X's dtype (small integers: float32). "bfloat16" multiplies matrices
        in bfloat16 during training and keeps everything in float32. Results have X's dtype.

    verbose : bool, default=False
        Print a line an epoch.
    """

    alpha: float = 0.0
    dropout: float = 0.0
    input_dropout: float = 0.0
    solver: str = "adam"
    learning_rate: str = "constant"
    learning_rate_init: float = 1e-3
    learning_rate_horizon: int | None = None
    momentum: float = 0.9
    nesterovs_momentum: bool = True
    batch_size: int | str = "auto"
    shuffle: bool = True
    max_iter: int = 200
    tol: float | None = 1e-4
    n_iter_no_change: int = 10
    early_stopping: bool = False
    validation_fraction: float = 0.1
    random_state: Any = None
    device: Any = None
    precision: str | None = None
    verbose: bool = False

    _parameter_constraints = {
        "alpha": [Interval(Real, 0, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "input_dropout": [Interval(Real, 0, 1, closed="left")],
        "solver": [StrOptions({"adam", "sgd", "lbfgs", "cg"})],
        "learning_rate": [StrOptions(set(SCHEDULES))],
        "learning_rate_init": [Interval(Real, 0, None, closed="neither")],
        "learning_rate_horizon": [Interval(Integral, 1, None, closed="left"), None],
        "momentum": [Interval(Real, 0, 1, closed="left")],
        "nesterovs_momentum": ["boolean"],
        "batch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "shuffle": ["boolean"],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left"), None],
        "n_iter_no_change": [Interval(Integral, 1, None, closed="left")],
        "early_stopping": ["boolean"],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "random_state": ["random_state"],
        "device": [str, torch.device, None],
        "precision": [StrOptions({"float32", "float64", "bfloat16"}), None],
        "verbose": ["verbose"],
    }

    def _arithmetic(self) -> dict[str, Any]:
        return {"precision": self.precision, "device": checked_device(self.device)}

    def _seed(self) -> int:
        if self.random_state is None:
            return secrets.randbits(31)
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _hold_out(
        self, source: Source, rows: Rows, streams: Streams
    ) -> tuple[Source, Rows, tuple[Source, Rows] | None]:
        """Training rows, and validation rows if the estimator stops early by them."""
        if not self.early_stopping:
            return source, rows, None
        held = self._held_out(source.n)
        order = self._order(rows, source.n, streams.draws("split", source.dtype))
        kept, held_out = order[held:].sort().values, order[:held].sort().values
        validation = source.subset(held_out), rows.take(held_out)
        for part, what in ((kept, "train on"), (held_out, "validate by")):
            weight = rows.take(part).weight
            if weight is not None and not weight.sum() > 0:
                raise ValueError(
                    f"The sample weights leave no rows to {what}: all that early_stopping=True "
                    "assigned to it have weight zero. Set early_stopping=False."
                )
        return source.subset(kept), rows.take(kept).normalised(), validation

    def _held_out(self, n: int) -> int:
        """How many of n rows are held out; an error where none would be left."""
        held = max(1, round(self.validation_fraction * n))
        if held >= n:
            raise ValueError(
                f"early_stopping=True with validation_fraction={self.validation_fraction} leaves "
                f"no training rows of n_samples={n}. Lower it, or set early_stopping=False."
            )
        return held

    def _order(self, rows: Rows, n: int, draws: Draws) -> Tensor:
        """The order that held-out rows are the first of."""
        return draws.permutation(n)

    def _training_numbers(
        self, n: int, unit: float, epochs: int, partial: bool = False
    ) -> Training:
        size = min(200, n) if self.batch_size == "auto" else int(self.batch_size)
        return Training(
            solver=self.solver,
            learning_rate_init=float(self.learning_rate_init),
            learning_rate=self.learning_rate,
            horizon=self.learning_rate_horizon or (self.max_iter if partial else None),
            momentum=self.momentum,
            nesterov=self.nesterovs_momentum,
            batch_size=size,
            shuffle=self.shuffle,
            max_iter=epochs,
            tol=None if partial else self.tol,
            n_iter_no_change=self.n_iter_no_change,
            precision=self.precision,
            unit=unit,
        )

    def _check_end(self, result: Result, epochs: int, partial: bool) -> None:
        reason, epoch = result.monitor.reasons[0], len(result.monitor.loss_curves[0])
        if reason == "diverged":
            raise ValueError(
                f"Training diverged at epoch {epoch}: the loss is "
                f"{result.monitor.loss_curves[0][-1]}. Lower learning_rate_init (now "
                f"{self.learning_rate_init}), or scale X."
            )
        if reason == "interrupted":
            warn_caller(
                f"Training was interrupted after {epoch} epochs. The model fitted so far is kept.",
                ConvergenceWarning,
            )
        if reason == "max_iter" and self.tol is not None and not partial:
            warn_caller(
                f"Training stopped at max_iter={epochs} before the loss settled within tol="
                f"{self.tol}. Raise max_iter, or set tol=None to train for exactly max_iter.",
                ConvergenceWarning,
            )


def seed_all(estimator: Any, random_state: np.random.RandomState) -> None:
    """Seed every `random_state` of an estimator, those of nested ones included."""
    names = [
        name
        for name in sorted(estimator.get_params())
        # A fitted estimator to start from is the user's, and has drawn already.
        if name.split("__")[-1] == "random_state" and "initialize_from__" not in name
    ]
    estimator.set_params(**{name: int(random_state.randint(2**31 - 1)) for name in names})
