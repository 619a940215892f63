"""Autoencoders as scikit-learn estimators, on torch."""

from skae.estimators.autoencoder import Autoencoder
from skae.estimators.generalized import GeneralizedAutoencoder
from skae.estimators.outlier import ReconstructionOutlierDetector

__all__ = ["Autoencoder", "GeneralizedAutoencoder", "ReconstructionOutlierDetector"]
__version__ = "0.1.0"
