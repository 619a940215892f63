"""
Outliers from one class, and why
================================

Trained on benign tumours alone, a detector reconstructs malignant ones badly. The error of a row is
its score, the errors of its features are the explanation.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

from skae import AutoencoderOutlierDetector
from skae.inspection import OutlierDisplay

X, y = load_breast_cancer(return_X_y=True, as_frame=True)
benign, malignant = X[y == 1], X[y == 0]
train, held_out = train_test_split(benign, test_size=0.5, random_state=0)
new = pd.concat([held_out, malignant])
is_benign = (y[new.index] == 1).to_numpy()

# %%
# `AutoencoderOutlierDetector` takes the table as it is: it scales inside, and nothing has to be
# chosen but `contamination`, the share of normal rows that may be flagged.

detector = AutoencoderOutlierDetector(contamination=0.05, random_state=0).fit(train)
print(f"AUROC {roc_auc_score(is_benign, detector.score_samples(new)):.3f}")

# %%
# The threshold is a quantile of the training rows' scores, each by networks that have not seen the
# row (`threshold="out_of_bag"`), so that it holds on new ones. Were it of networks that have seen
# them all, far more than 5 % of new benign tumours would be beyond it, as the rows here are few.

seen = AutoencoderOutlierDetector(contamination=0.05, threshold="training", random_state=0).fit(
    train
)
for name, fitted in {"out_of_bag": detector, "training": seen}.items():
    flagged = fitted.predict(new) == -1
    print(
        f"{name:12s} flagged {flagged[is_benign].mean():.1%} of new benign tumours, "
        f"{flagged[~is_benign].mean():.1%} of malignant ones"
    )

# %%
# Which features make the worst rows outliers? `feature_scores` has what each contributes, and the
# display shows their shares, of the twenty that contribute most.

kinds = np.where(is_benign, "benign, new", "malignant")
OutlierDisplay.from_estimator(detector, new, kinds)

# %%
# `explain` says it in a table, for the two worst rows: a value, what the model expects of a benign
# tumour that has the rest of these values, both in the units of the table, and the feature's share.

worst = new.iloc[np.argsort(detector.score_samples(new))[:2]]
why = detector.explain(worst, n_features=4)
print(why.round(2).to_string(index=False))

# %%
# How sure is a find? A p-value is the share of training benign tumours that look as odd. `predict`
# bounds the share of normal rows that are flagged, `predict_fdr` the share of false finds among all
# finds, here to a tenth. For that the calibration rows have to be judged as new ones are, exactly:
# by models of the other folds.

careful = AutoencoderOutlierDetector(threshold="cross_fitted", random_state=0).fit(train)
p = careful.p_values(new)
found = careful.predict_fdr(new, level=0.1) == -1
print(f"p-values below 0.05: {(p[is_benign] <= 0.05).mean():.1%} of new benign tumours")
print(f"{found.sum()} finds, {is_benign[found].mean():.1%} of them benign")

# %%
# To detect with a model of your own, such as `PCA` or an autoencoder with layers that you choose,
# put it into `ReconstructionOutlierDetector`, behind a scaler: the methods are the same.

plt.show()
