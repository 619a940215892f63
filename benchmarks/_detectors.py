"""Outlier detectors under one roof: scores that are high for outliers, and what they cost."""

from __future__ import annotations

import contextlib
import io
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors
from sklearn.svm import OneClassSVM

from skae import AutoencoderOutlierDetector


class Outcome(NamedTuple):
    """Scores of the rows tested, high for outliers, and seconds."""

    scores: np.ndarray
    fit: float
    score: float


Detector = Callable[[np.ndarray, np.ndarray | None, int], Outcome]
"""(training rows, rows to test or None for the training rows themselves, seed) -> outcome."""


def timed(fit: Callable[[], Any], score: Callable[[Any], np.ndarray]) -> Outcome:
    """Fit, then score."""
    began = time.perf_counter()
    model = fit()
    fitted = time.perf_counter()
    scores = np.asarray(score(model), dtype=np.float64)
    return Outcome(scores, fitted - began, time.perf_counter() - fitted)


def ours(**parameters: Any) -> Detector:
    """skae's ready-made detector; rows that are tested where they were trained are not novel."""

    def run(train: np.ndarray, test: np.ndarray | None, seed: int) -> Outcome:
        numbers = parameters | {"novelty": test is not None, "random_state": seed}
        detector = AutoencoderOutlierDetector(**numbers)
        if test is None:
            return timed(lambda: detector.fit(train), lambda model: -model.calibration_scores_)
        return timed(lambda: detector.fit(train), lambda model: -model.score_samples(test))

    return run


def neighbours(k: int) -> Detector:
    """Distance to the k-th nearest training row other than the row itself."""

    def run(train: np.ndarray, test: np.ndarray | None, seed: int) -> Outcome:
        near = min(k, len(train) - 1)
        return timed(
            lambda: NearestNeighbors(n_neighbors=near).fit(train),
            lambda model: model.kneighbors(test)[0][:, -1],
        )

    return run


def lof(train: np.ndarray, test: np.ndarray | None, seed: int) -> Outcome:
    """LOF with its 20 neighbours."""
    model = LocalOutlierFactor(n_neighbors=min(20, len(train) - 1), novelty=test is not None)
    if test is None:
        return timed(lambda: model.fit(train), lambda fitted: -fitted.negative_outlier_factor_)
    return timed(lambda: model.fit(train), lambda fitted: -fitted.score_samples(test))


def sklearn_peer(make: Callable[[int], Any]) -> Detector:
    """A detector with `score_samples`."""

    def run(train: np.ndarray, test: np.ndarray | None, seed: int) -> Outcome:
        rows = train if test is None else test
        return timed(lambda: make(seed).fit(train), lambda model: -model.score_samples(rows))

    return run


def pca(train: np.ndarray, test: np.ndarray | None, seed: int) -> Outcome:
    """Reconstruction error of the components that hold 90 % of the variance."""
    rows = train if test is None else test

    def errors(model: Any) -> np.ndarray:
        return ((model.inverse_transform(model.transform(rows)) - rows) ** 2).sum(1)

    return timed(lambda: PCA(0.9, svd_solver="full").fit(train), errors)


def pyod_peer(name: str) -> Detector | None:
    """A detector of PyOD with its defaults; None where PyOD is not installed."""
    try:
        make = _pyod_class(name)
    except ImportError:
        return None

    def fit(train: np.ndarray, seed: int) -> Any:
        options: dict[str, Any] = {} if name == "ECOD" else {"random_state": seed, "verbose": 0}
        if name == "DeepSVDD":
            options["n_features"] = train.shape[1]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return make(**options).fit(train)

    def run(train: np.ndarray, test: np.ndarray | None, seed: int) -> Outcome:
        def score(model: Any) -> np.ndarray:
            return model.decision_scores_ if test is None else model.decision_function(test)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return timed(lambda: fit(train, seed), score)

    return run


def _pyod_class(name: str) -> Any:
    if name == "AutoEncoder":
        from pyod.models.auto_encoder import AutoEncoder

        return AutoEncoder
    if name == "VAE":
        from pyod.models.vae import VAE

        return VAE
    if name == "DeepSVDD":
        from pyod.models.deep_svdd import DeepSVDD

        return DeepSVDD
    from pyod.models.ecod import ECOD

    return ECOD


OURS: dict[str, Detector] = {
    "skae": ours(),
    "skae (networks)": ours(n_kernel_denoisers=0),
    "skae (kernels)": ours(n_estimators=0),
}
PYOD = ("AutoEncoder", "VAE", "ECOD", "DeepSVDD")
PEERS: dict[str, Detector] = {
    "kNN": neighbours(5),
    "LOF": lof,
    "IsolationForest": sklearn_peer(lambda seed: IsolationForest(random_state=seed)),
    "OneClassSVM": sklearn_peer(lambda seed: OneClassSVM()),
    "PCA": pca,
} | {f"PyOD {name}": run for name in PYOD if (run := pyod_peer(name)) is not None}
