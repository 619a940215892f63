"""The public names, for type checkers; `__init__.py` has the same."""

from skae.estimators.adversarial import AdversarialAutoencoder
from skae.estimators.autoencoder import Autoencoder
from skae.estimators.autoencoder_outlier import AutoencoderOutlierDetector
from skae.estimators.contractive import ContractiveAutoencoder
from skae.estimators.denoising import DenoisingAutoencoder
from skae.estimators.embedding import EmbeddingAutoencoder
from skae.estimators.fine_tuning import FineTunedClassifier, FineTunedRegressor, fine_tune
from skae.estimators.generalized import GeneralizedAutoencoder
from skae.estimators.importance_weighted import ImportanceWeightedAutoencoder
from skae.estimators.k_sparse import KSparseAutoencoder
from skae.estimators.outlier import ReconstructionOutlierDetector
from skae.estimators.sparse import SparseAutoencoder
from skae.estimators.split_brain import SplitBrainAutoencoder
from skae.estimators.stacked import StackedAutoencoder
from skae.estimators.stacked_predictors import (
    StackedAutoencoderClassifier,
    StackedAutoencoderRegressor,
)
from skae.estimators.variational import VariationalAutoencoder

__all__ = [
    "AdversarialAutoencoder",
    "Autoencoder",
    "AutoencoderOutlierDetector",
    "ContractiveAutoencoder",
    "DenoisingAutoencoder",
    "EmbeddingAutoencoder",
    "FineTunedClassifier",
    "FineTunedRegressor",
    "GeneralizedAutoencoder",
    "ImportanceWeightedAutoencoder",
    "KSparseAutoencoder",
    "ReconstructionOutlierDetector",
    "SparseAutoencoder",
    "SplitBrainAutoencoder",
    "StackedAutoencoder",
    "StackedAutoencoderClassifier",
    "StackedAutoencoderRegressor",
    "VariationalAutoencoder",
    "fine_tune",
]
__version__: str
