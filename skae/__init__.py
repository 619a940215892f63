"""Autoencoders as scikit-learn estimators, on torch."""

from skae.estimators.autoencoder import Autoencoder
from skae.estimators.outlier import ReconstructionOutlierDetector
from skae.estimators.split_brain import SplitBrainAutoencoder

__all__ = ["Autoencoder", "ReconstructionOutlierDetector", "SplitBrainAutoencoder"]
__version__ = "0.1.0"
