"""
Stack, classify, fine-tune
==========================

Deep learning in three stages: train layers one by one without labels, put a classifier on the top
code, then train the whole as one network. The labels are few here: 20 of each digit. All images
serve the first stage.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from skae import DenoisingAutoencoder, StackedAutoencoder, StackedAutoencoderClassifier, fine_tune
from skae.inspection import LossCurveDisplay

X, y = load_digits(return_X_y=True)
X = MinMaxScaler().fit_transform(X)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.4, random_state=0)
labelled = np.concatenate([np.flatnonzero(y_train == digit)[:20] for digit in range(10)])
X_labelled, y_labelled = X_train[labelled], y_train[labelled]

# %%
# Stage one. Every layer is a denoising autoencoder of the codes below, whose weights stay as they
# are.

layer = DenoisingAutoencoder(
    hidden_layer_sizes=(), activation="relu", noise_level=0.3, batch_size=32, max_iter=40, tol=None
)
stack = StackedAutoencoder(layers=(128, 64), estimator=layer, random_state=0).fit(X_train)
print(f"{stack.n_layers_} layers, {stack.n_components_} units at the top")

ax = plt.subplots(figsize=(6, 3.6), layout="constrained")[1]
for depth, fitted in enumerate(stack.layers_, start=1):
    LossCurveDisplay.from_estimator(fitted, name=f"layer {depth}", ax=ax)

# %%
# Stages two and three: a softmax regression on the codes of the labelled images, then
# back-propagation through all layers, from there on.

stages = make_pipeline(stack, LogisticRegression(max_iter=2000))
stages[-1].fit(stack.transform(X_labelled), y_labelled)
tuned = fine_tune(
    stages, X_labelled, y_labelled, batch_size=32, max_iter=60, tol=None, random_state=0
)

# %%
# Beside them the same classifier on pixels, and the same network without the first stage.

pixels = LogisticRegression(max_iter=2000).fit(X_labelled, y_labelled)
no_pretraining = StackedAutoencoderClassifier(
    layers=(128, 64), estimator=layer, pretrain=False, batch_size=32, max_iter=60, tol=None,
    random_state=0,
).fit(X_labelled, y_labelled)  # fmt: skip

models = {
    "pixels": pixels,
    "network without\npretraining": no_pretraining,
    "codes of the stack": stages,
    "stack, fine-tuned": tuned,
}
errors = {name: 100 * (1 - model.score(X_test, y_test)) for name, model in models.items()}
fig, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")
bars = ax.barh(list(errors), list(errors.values()), color=["0.75", "0.75", "C0", "C0"])
ax.bar_label(bars, fmt="%.1f %%", padding=4)
ax.invert_yaxis()
ax.set(xlabel="errors on new images, %", xlim=(0, 1.2 * max(errors.values())))
ax.spines[["top", "right"]].set_visible(False)

plt.show()
