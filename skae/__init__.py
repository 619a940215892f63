"""Autoencoders as scikit-learn estimators, on torch."""

from skae.estimators.autoencoder import Autoencoder
from skae.estimators.k_sparse import KSparseAutoencoder
from skae.estimators.outlier import ReconstructionOutlierDetector

__all__ = ["Autoencoder", "KSparseAutoencoder", "ReconstructionOutlierDetector"]
__version__ = "0.1.0"
