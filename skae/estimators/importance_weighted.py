"""The importance-weighted autoencoder."""

from __future__ import annotations

from typing import Any

from sklearn.utils._param_validation import StrOptions

from skae.bounds import Evidence, GaussianCode, ImportanceWeighted
from skae.estimators._estimator import estimator
from skae.estimators._inference import in_chunks
from skae.estimators._two_layers import LayeredAutoencoder
from skae.monte_carlo import BLOCK
from skae.two_layers import TwoLayerBound


@estimator
class ImportanceWeightedAutoencoder(LayeredAutoencoder):
    r"""Variational autoencoder trained on a tighter bound, of several codes for each row.

    The model is that of `VariationalAutoencoder`: :math:`z \sim N(0, I)`, :math:`x \sim
    p_\theta(x \mid z)`, and a Gaussian :math:`q_\phi(z \mid x)` from the encoder. With S =
    `n_importance_samples` codes drawn for each row it maximises [1]_

    .. math::
        L_S = E_{z_1 \dots z_S \sim q_\phi(z \mid x)} \log \frac 1 S \sum_{s=1}^{S} w_s, \qquad
        w_s = \frac{p_\theta(x \mid z_s) \, p(z_s)}{q_\phi(z_s \mid x)},

    averaged over rows, in nats, the likelihood summed over features. L_S grows with S from the
    evidence lower bound at S = 1 towards log p(x), and leaves the encoder more freedom. At S = 1
    this is the `VariationalAutoencoder`, bit for bit. A step takes the decoder S times as long.

    The gradient is that of :math:`\sum_s \tilde w_s \log w_s` with the normalised weights
    :math:`\tilde w_s` held. Its noise grows with S beside the encoder's gradient, which shrinks.
    The doubly reparameterised one [2]_ has the same expectation for the encoder,

    .. math::
        E \sum_{s=1}^{S} \tilde w_s^2 \, \frac{\partial \log w_s}{\partial z_s}
        \frac{\partial z_s}{\partial \phi},

    and less variance. The decoder's is the same in both.

    With `n_top_components` the code has a code of its own: z above is then :math:`(z_1, z_2)`, of
    which the decoder sees :math:`z_1`, and

    .. math::
        w_s = \frac{p_\theta(x \mid z_1) \, p_\theta(z_1 \mid z_2) \, p(z_2)}
                   {q_\phi(z_1 \mid x) \, q_\phi(z_2 \mid z_1)}, \qquad
        p_\theta(z_1 \mid z_2) = N(\mu(z_2), \mathrm{diag}(\sigma^2(z_2))),

    with a network each for :math:`p_\theta(z_1 \mid z_2)` and :math:`q_\phi(z_2 \mid z_1)`. All
    that a code is, in `transform`, `posterior` and `components_`, is :math:`z_1`, so that
    `inverse_transform` decodes it. At S = 1 this is the variational autoencoder of two layers,
    its bound drawn throughout; "doubly_reparameterized" is then the gradient of :math:`q_\phi(z_1
    \mid x)` alone, and that of :math:`q_\phi(z_2 \mid z_1)` stays plain. Autograd trains it
    (`engine_`): at the sizes of [1]_ a step takes 1.7 to 2.5 times that of one layer.

    Codes from `transform` are posterior means, without noise, unless `code` says otherwise.

    Parameters
    ----------
    n_importance_samples : int, default=5
        S, the codes drawn for each row in training (in [1]_ 1, 5 and 50), and in `score` and
        `score_samples`. It may be set after `fit`: [1]_ evaluates with 5000.

    gradient : {"plain", "doubly_reparameterized"}, default="plain"
        Estimator of the encoder's gradient. With one sample of one layer the two are the same.

    code : {"mean", "importance_weighted"}, default="mean"
        What `transform` gives: the mean of q(z | x), or that of the posterior p(z | x), estimated
        by :math:`\sum_s \tilde w_s z_s` from `n_importance_samples` draws that are always the
        same, so that it is a function of the row alone.

    Attributes
    ----------

    References
    ----------
    .. [1] Burda, Grosse and Salakhutdinov, "Importance weighted autoencoders", ICLR 2016,
       arXiv:1509.00519, equations 8, 13 and 14; section 5 for two layers, with
       ``n_components=100, hidden_layer_sizes=(200, 200), n_top_components=50,
       top_hidden_layer_sizes=(100, 100), activation="tanh"``.
    .. [2] Tucker, Lawson, Gu and Maddison, "Doubly reparameterized gradient estimators for Monte
       Carlo objectives", ICLR 2019, arXiv:1810.04152, equation 8.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import ImportanceWeightedAutoencoder
    >>> X = load_digits().data / 16
    >>> model = ImportanceWeightedAutoencoder(
    ...     n_components=8, likelihood="bernoulli", max_iter=5, tol=None, random_state=0
    ... ).fit(X)
    >>> bound = model.score(X)
    >>> bool(model.set_params(n_importance_samples=100).score(X) > bound)
    True
    """

    n_importance_samples: int = 5
    gradient: str = "plain"
    code: str = "mean"

    _parameter_constraints = {
        **LayeredAutoencoder._parameter_constraints,
        "gradient": [StrOptions({"plain", "doubly_reparameterized"})],
        "code": [StrOptions({"mean", "importance_weighted"})],
    }

    def _objective(self) -> GaussianCode:
        if self.n_top_components is None and self.n_importance_samples == 1:
            return Evidence(**self._code_terms())
        terms = {
            **self._code_terms(),
            "n_importance_samples": int(self.n_importance_samples),
            "gradient": self.gradient,
        }
        if self.n_top_components is None:
            return ImportanceWeighted(**terms)
        return TwoLayerBound(**terms, n_top_components=int(self.n_top_components))

    @property
    def _weighs_codes(self) -> bool:
        """Whether codes are weighted means; that of one sample would be nothing but noise."""
        self._check_now("code", "n_importance_samples")
        return self.code == "importance_weighted" and self.n_importance_samples > 1

    def _by_chunks(self, data, function, width):
        at_once = min(BLOCK, self.n_importance_samples) if self._weighs_codes else 1
        return in_chunks(data.source, function, width, lambda: at_once * self._widest)

    def _encode(self, x, out=None):
        if not self._weighs_codes:
            return super()._encode(x, out)
        return self._model.mean_code(x, self.n_importance_samples)

    def _coding(self) -> Any:
        if self._weighs_codes:
            raise ValueError(
                "code='importance_weighted' needs the decoder, too: such codes are no function of "
                "the encoder's outputs, which could be given away. Set code='mean'."
            )
        return super()._coding()
