"""What the outside hears of an epoch: scikit-learn's callbacks and `verbose`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from skae._engine.train import Epoch
from skae._warnings import held_warnings, warn_caller


class Progress:
    """Passes epochs on to scikit-learn's callbacks, and prints them if the estimator is verbose.

    `attributes` makes, from an epoch, the attributes of an estimator fitted up to it. The epochs
    are tasks of a context of their own, or of the one that is given with `within`.
    """

    def __init__(
        self, estimator: Any, X: Any, sample_weight: Any, epochs: int,
        attributes: Callable[[Epoch], dict[str, Any]], *, tells_callbacks: bool, y: Any = None,
        within: Any = None,
    ):  # fmt: skip
        self.estimator, self.attributes, self.epochs = estimator, attributes, epochs
        # Scorers of reconstructions compare with X, and scikit-learn's monitor scores only
        # where there is a y: X where the estimator has none.
        metadata = {} if sample_weight is None else {"sample_weight": sample_weight}
        self.passed = {
            "estimator": estimator,
            "X": X,
            "y": X if y is None else y,
            "metadata": metadata,
        }
        self.context: Any = within
        self.seen, self.began = 0, time.perf_counter()
        if within is None and tells_callbacks and hasattr(estimator, "_init_callback_context"):
            self.context = estimator._init_callback_context(max_subtasks=epochs)
            self.context.call_on_fit_task_begin(**self.passed)

    def on_epoch(self, epoch: Epoch) -> bool:
        """Tell of an epoch; True when a callback asks to stop."""
        self.seen += 1
        if self.estimator.verbose:
            self._print(epoch)
        if self.context is None or not getattr(self.estimator, "_skl_callbacks", None):
            return False
        # Begun only now: a solver may find that there is no further epoch.
        task = self.context.subcontext(task_name="epoch")
        task.call_on_fit_task_begin(**self.passed)
        return bool(
            task.call_on_fit_task_end(
                **self.passed, reconstruction_attributes=lambda: self.attributes(epoch)
            )
        )

    def _print(self, epoch: Epoch) -> None:
        width = len(str(self.epochs))
        line = f"epoch {self.seen:{width}}/{self.epochs}  loss {epoch.loss[0]:13.6e}"
        if epoch.validation is not None:
            line += f"  validation {epoch.validation[0]:13.6e}"
        print(f"{line}  {time.perf_counter() - self.began:8.2f} s", flush=True)

    def finish(self) -> None:
        """Tell that the fit has ended; the estimator is fitted by now."""
        if self.context is not None:
            self.context.call_on_fit_task_end(**self.passed, reconstruction_attributes=dict)


def was_interrupted(estimator: Any) -> bool:
    """Whether Ctrl-C ended the last training of an estimator, which kept what it had."""
    return getattr(estimator, "stop_reason_", None) == "interrupted"


def pass_on_interruption(estimator: Any) -> None:
    """Raise KeyboardInterrupt where it ended a training that others were to follow.

    Who pressed Ctrl-C wants an end, and what would follow is not there to be kept.
    """
    if was_interrupted(estimator):
        raise KeyboardInterrupt("Interrupted before all parts were trained: nothing is kept.")


class Subtasks:
    """Fits the estimators that `estimator` holds, telling scikit-learn's callbacks of each."""

    def __init__(self, estimator: Any, X: Any, n: int | None):
        self.passed = {"estimator": estimator, "X": X}
        self.context: Any = None
        if hasattr(estimator, "_init_callback_context"):
            self.context = estimator._init_callback_context(max_subtasks=n)
            self.context.call_on_fit_task_begin(**self.passed)

    def fit(
        self, task_name: str, inner: Any, *args: Any, may_end: bool = False, **options: Any
    ) -> Any:
        """Fit `inner`, to which callbacks propagate.

        Raises KeyboardInterrupt where that was interrupted, unless all may end with it.
        """
        with held_warnings() as held:
            self._fit(task_name, inner, *args, **options)
        if not may_end:
            pass_on_interruption(inner)
        for message, category in held:
            warn_caller(message, category)
        return inner

    def _fit(self, task_name: str, inner: Any, *args: Any, **options: Any) -> None:
        if self.context is None:
            inner.fit(*args, **options)
            return
        task = self.context.subcontext(task_name=task_name)
        task.call_on_fit_task_begin(**self.passed)
        with task.propagate_callback_context(inner):
            inner.fit(*args, **options)
        task.call_on_fit_task_end(**self.passed)

    def finish(self) -> None:
        """Tell that the fit has ended."""
        if self.context is not None:
            self.context.call_on_fit_task_end(**self.passed)
