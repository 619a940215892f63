"""
Outliers from one class, and why
================================

Trained on benign tumours alone, an autoencoder reconstructs malignant ones badly. The error of
a row is its score, the errors of its features are the explanation.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skae import Autoencoder, ReconstructionOutlierDetector
from skae.inspection import OutlierDisplay

X, y = load_breast_cancer(return_X_y=True, as_frame=True)
benign, malignant = X[y == 1], X[y == 0]
train, held_out = train_test_split(benign, test_size=0.5, random_state=0)

# %%
# The network has more code units than features. What keeps it from copying is `input_dropout`:
# half of the features are hidden at every step, and it has to predict them from the others.

network = Autoencoder(
    n_components=64, hidden_layer_sizes=(), activation="tanh", input_dropout=0.5, batch_size=32,
    max_iter=100, tol=None, random_state=0,
)  # fmt: skip
detector = make_pipeline(
    StandardScaler(), ReconstructionOutlierDetector(estimator=network, contamination=0.05)
)
detector.set_output(transform="pandas").fit(train)  # so that explanations have the names

new = pd.concat([held_out, malignant])
is_benign = (y[new.index] == 1).to_numpy()
print(f"AUROC {roc_auc_score(is_benign, detector.score_samples(new)):.3f}")

# %%
# The threshold is a quantile of the training rows' scores, which the network has seen, so that more
# than 5 % of new benign tumours are beyond it. Taken from rows that a network has not seen, it is
# nearer to what was asked for.

unseen = make_pipeline(
    StandardScaler(),
    ReconstructionOutlierDetector(
        estimator=network, contamination=0.05, threshold="cross_fitted", random_state=0
    ),
).fit(train)
for name, fitted in {"training": detector, "cross_fitted": unseen}.items():
    flagged = fitted.predict(new) == -1
    print(
        f"{name:12s} flagged {flagged[is_benign].mean():.1%} of new benign tumours, "
        f"{flagged[~is_benign].mean():.1%} of malignant ones"
    )

# %%
# Which features make the worst rows outliers? A row's error is the mean of its features' errors:
# `feature_scores` has them, and the display shows their shares.

OutlierDisplay.from_estimator(detector, new, np.where(is_benign, "benign, new", "malignant"))

# %%
# `explain` says it in a table, with what the network expects of a benign tumour that has the rest
# of these values. In standard deviations, for the worst row:

scaled = detector[:-1].transform(new)
worst = detector.score_samples(new).argmin()
why = detector[-1].explain(scaled.iloc[[worst]], n_features=5)
print(why.drop(columns="row").round(2).to_string(index=False))

plt.show()
