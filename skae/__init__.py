"""Autoencoders as scikit-learn estimators, on torch."""

from skae.estimators.autoencoder import Autoencoder
from skae.estimators.embedding import EmbeddingAutoencoder
from skae.estimators.outlier import ReconstructionOutlierDetector

__all__ = ["Autoencoder", "EmbeddingAutoencoder", "ReconstructionOutlierDetector"]
__version__ = "0.1.0"
