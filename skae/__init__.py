"""Autoencoders as scikit-learn estimators, on torch.

The public names are imported when they are first used, so that one estimator does not wait for
all the others; `__init__.pyi` has them as type checkers read them.
"""

from importlib import import_module as _import_module

_NAMES = {
    "adversarial": ("AdversarialAutoencoder",),
    "autoencoder": ("Autoencoder",),
    "autoencoder_outlier": ("AutoencoderOutlierDetector",),
    "contractive": ("ContractiveAutoencoder",),
    "denoising": ("DenoisingAutoencoder",),
    "embedding": ("EmbeddingAutoencoder",),
    "fine_tuning": ("FineTunedClassifier", "FineTunedRegressor", "fine_tune"),
    "generalized": ("GeneralizedAutoencoder",),
    "importance_weighted": ("ImportanceWeightedAutoencoder",),
    "k_sparse": ("KSparseAutoencoder",),
    "outlier": ("ReconstructionOutlierDetector",),
    "sparse": ("SparseAutoencoder",),
    "split_brain": ("SplitBrainAutoencoder",),
    "stacked": ("StackedAutoencoder",),
    "stacked_predictors": ("StackedAutoencoderClassifier", "StackedAutoencoderRegressor"),
    "variational": ("VariationalAutoencoder",),
}
_HOMES = {name: f"skae.estimators.{file}" for file, names in _NAMES.items() for name in names}

__all__ = sorted(_HOMES)
__version__ = "0.1.0"


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module 'skae' has no attribute {name!r}")
    globals()[name] = getattr(_import_module(_HOMES[name]), name)
    return globals()[name]


def __dir__():
    return sorted({*globals(), *__all__})
