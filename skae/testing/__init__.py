"""`check_objective`: the contract of `Objective`, held against an objective of your own."""

from __future__ import annotations

import pickle
from collections.abc import Callable

from skae._engine.plan import computing
from skae.objective import Objective
from skae.testing import _engines, _hooks
from skae.testing._trial import Trial

__all__ = ["check_objective"]


_CHECKS: tuple[Callable[[Trial], None], ...] = (
    _hooks.check_draws,
    _hooks.check_support,
    _hooks.check_value,
    _hooks.check_rows,
    _hooks.check_loss,
    _hooks.check_closed_forms,
    _hooks.check_update,
    _engines.check_engines,
    _engines.check_stack,
)


def check_objective(
    objective: Objective,
    *,
    n_samples: int = 7,
    n_features: int = 5,
    n_components: int = 3,
    models: int = 2,
    code_activation: str = "logistic",
    random_state: int = 0,
) -> None:
    """Check that an objective keeps the contract that both engines rely on.

    Everything is computed in float64 on small random dense networks with logistic codes, and
    compared to a relative difference of 1e-12. The rules:

    - it is data: a frozen dataclass of floats and static values, which pickles and equals its
      copy; no hook changes it, its arguments, or a global random generator;
    - ``corrupt`` and ``latent`` give the same for the same seed, in the dtype they are given; if
      another seed gives something else, ``noise`` names the parameter; ``encode`` draws nothing;
    - the value has shape (..., n), and ``penalty`` the same, or (..., 1) if ``penalises_batch``;
      with a leading model axis it is each model's own; where ``mixes_rows`` is False a row's
      value does not depend on the other rows or their order;
    - every closed form equals autograd: ``loss.gradient``, ``loss.accumulate``, and
      ``latent_gradient`` and ``penalty_gradient`` (or ``penalty_and_gradient``, with the same
      value as ``penalty``) where they are overridden (``value_and_gradient`` by the engines);
    - ``support``, where it is overridden, says where ``latent`` keeps h, in order of rows;
    - ``update`` returns a new state with the same names, with its own storage;
    - the fused engine's values, gradients and states equal the autograd engine's, with and
      without hidden layers, tied weights, sample weights, missing cells and dropout (not where
      ``needs_graph``);
    - ``stack`` of two objectives that differ in every float field equals the two.

    Parameters
    ----------
    objective : Objective
        A single objective, not a stack.

    n_samples, n_features, n_components : int, default=7, 5, 3
        Sizes of the data and the code; at least 2 samples.

    models : int, default=2
        Length of the leading axis.

    code_activation : str, default="logistic"
        Activation of the networks' code layer, for objectives that are made for another.

    random_state : int, default=0
        Seeds data, parameters and noise.

    Raises
    ------
    AssertionError
        If a rule is broken; the message says which and how.

    Examples
    --------
    >>> from skae.losses import SquaredError
    >>> from skae.objective import Objective
    >>> from skae.testing import check_objective
    >>> check_objective(Objective(loss=SquaredError(), alpha=0.01))
    """
    _hooks.check_is_data(objective)
    before = pickle.dumps(objective)
    trial = Trial(
        objective, n_samples, n_features, n_components, models, random_state, code_activation
    )
    with computing(0.0, None):  # everything here is too small for a second thread
        for check in _CHECKS:
            check(trial)
    if pickle.loads(before) != objective:
        trial.fail("hooks change the objective: keep what they learn in `update`'s state")
