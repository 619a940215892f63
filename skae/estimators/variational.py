"""The variational autoencoder."""

from __future__ import annotations

from numbers import Real

from sklearn.utils._param_validation import Interval

from skae.bounds import Evidence
from skae.estimators._estimator import estimator
from skae.estimators._latent_variable import LatentVariableAutoencoder


@estimator
class VariationalAutoencoder(LatentVariableAutoencoder):
    r"""Autoencoder with a random code: a density model, which can be sampled and scores rows.

    Codes are :math:`z \sim N(0, I)` and data :math:`x \sim p_\theta(x \mid z)`, the decoder's.
    The encoder gives mean and variance of an approximate posterior :math:`q_\phi(z \mid x) =
    N(\mu, \mathrm{diag}(\sigma^2))`. Both are trained on the evidence lower bound [1]_,

    .. math::
        \log p_\theta(x) \ge E_{q_\phi} \log p_\theta(x \mid z)
        - \beta \, \mathrm{KL}(q_\phi(z \mid x) \,\Vert\, N(0, I)), \qquad
        \mathrm{KL} = \tfrac 1 2 \sum_{j=1}^{k} (\mu_j^2 + \sigma_j^2 - 1 - \log \sigma_j^2)

    over k code units, averaged over rows, with :math:`\beta = 1` [3]_. The expectation is that of
    one draw :math:`z = \mu + \sigma \varepsilon` in every step, the divergence has its closed
    form. All terms are in nats, the likelihood *summed* over features: unlike the other
    autoencoders' losses, which are means. (An implementation that averages the loss over d
    features and has a weight w of the divergence has our beta = d w.) `alpha` adds
    ``alpha / 2 |W|^2`` to that.

    Codes from `transform` are posterior means, without noise, and `reconstruct` decodes them.

    Parameters
    ----------
    n_importance_samples : int, default=1
        Draws of the code for each row in `score` and `score_samples`: 1 is the evidence lower
        bound, more are an importance-sampled log-likelihood, which is closer to the truth and
        takes as many times as long. It may be set after `fit`. Training takes one draw.

    beta : float, default=1.0
        Weight of the divergence. Above 1 fewer units are used, each to more effect [3]_; 0 drops
        it, and with it the model's claim to be a density.

    warm_up : float, default=0.0
        Fraction of the schedule (`learning_rate_horizon`, or `max_iter` of this call), in [0, 1],
        over which the divergence's weight rises linearly from 0 to beta [4]_; stopping by `tol`
        starts then.

    free_bits : float, default=0.0
        Nats of divergence that cost a unit nothing: each counts max(free_bits, KL), KL being the
        mean over a batch [5]_. Against posterior collapse; without effect under ``beta=0``.

    Attributes
    ----------

    References
    ----------
    .. [1] Kingma and Welling, "Auto-encoding variational Bayes", ICLR 2014, arXiv:1312.6114,
       equation 3 and appendix B.
    .. [2] Burda, Grosse and Salakhutdinov, "Importance weighted autoencoders", ICLR 2016,
       arXiv:1509.00519, section 5.2 (active units).
    .. [3] Higgins et al., "beta-VAE: learning basic visual concepts with a constrained variational
       framework", ICLR 2017.
    .. [4] Soenderby et al., "Ladder variational autoencoders", NeurIPS 2016, arXiv:1602.02282.
    .. [5] Kingma et al., "Improved variational inference with inverse autoregressive flow",
       NeurIPS 2016, arXiv:1606.04934, equation 15.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from skae import VariationalAutoencoder
    >>> X = load_digits().data / 16
    >>> model = VariationalAutoencoder(
    ...     n_components=8, likelihood="bernoulli", max_iter=20, tol=None, random_state=0
    ... ).fit(X)
    >>> model.transform(X).shape
    (1797, 8)
    >>> model.sample(5, random_state=0).shape
    (5, 64)
    >>> model.score(X) > -27  # nats
    True
    """

    beta: float = 1.0
    warm_up: float = 0.0
    free_bits: float = 0.0

    _parameter_constraints = {
        **LatentVariableAutoencoder._parameter_constraints,
        "beta": [Interval(Real, 0, None, closed="left")],
        "warm_up": [Interval(Real, 0, 1, closed="both")],
        "free_bits": [Interval(Real, 0, None, closed="left")],
    }

    def _objective(self) -> Evidence:
        return Evidence(
            **self._code_terms(),
            beta=float(self.beta),
            warm_up=float(self.warm_up),
            free_bits=float(self.free_bits),
        )
