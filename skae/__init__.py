"""Autoencoders as scikit-learn estimators, on torch."""

from skae.estimators.autoencoder import Autoencoder
from skae.estimators.denoising import DenoisingAutoencoder
from skae.estimators.outlier import ReconstructionOutlierDetector

__all__ = ["Autoencoder", "DenoisingAutoencoder", "ReconstructionOutlierDetector"]
__version__ = "0.1.0"
