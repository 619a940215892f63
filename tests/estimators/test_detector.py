"""What a detector has to give, and what it then has."""

import numpy as np
import pytest
from sklearn.utils.validation import validate_data

from skae.estimators._detector import BaseOutlierDetector
from skae.estimators._estimator import estimator


@estimator
class Center(BaseOutlierDetector):
    """Reconstructs every row by the weighted mean of a random half of the rows.

    Parameters
    ----------
    power : float, default=2.0
        Of the distance to it.
    """

    power: float = 2.0

    _parameter_constraints = {**BaseOutlierDetector._parameter_constraints, "power": [float]}

    def _validated(self, X, *, reset):
        return validate_data(self, X, reset=reset, dtype=np.float64)

    def _fit_model(self, X, weight, seeds, tasks):
        half = seeds.permutation(len(X))[: len(X) // 2 + 1]
        return np.average(X[half], axis=0, weights=None if weight is None else weight[half])

    def _scores_by(self, model, X):
        return -self._cells_by(model, X).mean(1)

    def _cells_by(self, model, X):
        return np.abs(X - model) ** self.power

    def _reconstructions_by(self, model, X):
        return np.broadcast_to(model, X.shape)


@pytest.mark.parametrize("threshold", ["training", "held_out", "cross_fitted", "extreme_value"])
def test_four_hooks_are_a_detector(X, threshold):
    settings = {"threshold": threshold, "contamination": 0.2, "calibration_fraction": 0.5,
                "tail_fraction": 0.4, "random_state": 0}  # fmt: skip
    fitted = Center(**settings).fit(X, sample_weight=np.arange(60) % 3)
    off = X[:1] + np.array([0, 0, 50, 0, 0])
    assert fitted.predict(off) == [-1]
    if threshold == "training":
        with pytest.raises(ValueError, match="predict_fdr needs calibration rows"):
            fitted.predict_fdr(off)
    else:
        assert fitted.predict_fdr(off) == [-1]
    assert 0 < fitted.p_values(off)[0] < 0.1
    np.testing.assert_allclose(fitted.feature_scores(X).sum(1), -fitted.score_samples(X))
    assert fitted.explain(off, n_features=1)["feature"].tolist() == ["x2"]
    np.testing.assert_array_equal(fitted.explain(off)["reconstruction"].sort_values(),
                                  np.sort(fitted.estimator_))  # fmt: skip
    again = Center(**settings).fit(X, sample_weight=np.arange(60) % 3)
    assert again.offset_ == fitted.offset_
    assert fitted.set_threshold(contamination=0.5).offset_ > again.offset_
