"""Pictures of fitted autoencoders: losses, reconstructions, features, codes and outliers.

The displays follow scikit-learn's: `from_estimator` or `from_predictions` compute and draw,
`plot` draws again. matplotlib is imported when the first of them draws, and is not required by
anything else.
"""

from skae.inspection._features import FeatureDisplay
from skae.inspection._latent_space import LatentSpaceDisplay
from skae.inspection._loss_curve import LossCurveDisplay
from skae.inspection._maximal import maximally_activating_inputs
from skae.inspection._outliers import OutlierDisplay
from skae.inspection._reconstruction import ReconstructionDisplay

__all__ = [
    "FeatureDisplay",
    "LatentSpaceDisplay",
    "LossCurveDisplay",
    "OutlierDisplay",
    "ReconstructionDisplay",
    "maximally_activating_inputs",
]
