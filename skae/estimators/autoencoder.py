"""The plain autoencoder."""

from __future__ import annotations

from skae.estimators._base import BaseAutoencoder
from skae.estimators._estimator import estimator
from skae.objective import Objective


@estimator
class Autoencoder(BaseAutoencoder):
    r"""Autoencoder: a network that reproduces its input through a code.

    With an encoder :math:`h = f_\theta(x)` and a decoder :math:`\hat x = g_\theta(h)` it
    minimises

    .. math::
        \frac{1}{n} \sum_{i=1}^{n} \frac{1}{d} \sum_{j=1}^{d} l(x_{ij}, \hat x_{ij})
        + \frac{\alpha}{2} \lVert W \rVert^2

    over n samples of d features, :math:`l` the loss and :math:`W` all weights. Where a
    textbook has the same sum without the factor 1 / (n d), its lambda is n d alpha / 2 beside it.

    A linear one spans the subspace of the principal components [1]_.

    Parameters
    ----------

    Attributes
    ----------
    components_ : ndarray of shape (n_components_, n_features_in_)
        Weights of a linear encoder of one layer.

    References
    ----------
    .. [1] Baldi and Hornik, "Neural networks and principal component analysis: learning from
       examples without local minima", Neural Networks 2 (1989).

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import MinMaxScaler
    >>> from skae import Autoencoder
    >>> X, y = load_digits(return_X_y=True)
    >>> model = make_pipeline(
    ...     MinMaxScaler(),
    ...     Autoencoder(n_components=16, max_iter=20, tol=None, random_state=0),
    ...     LogisticRegression(max_iter=1000),
    ... ).fit(X, y)
    >>> model[:-1].transform(X).shape
    (1797, 16)
    """

    def _objective(self) -> Objective:
        return Objective(**self._shared_terms())
