"""
Word vectors from documentation
===============================

Words that keep the same company are near in meaning. The text is what every installation of
scikit-learn has: the docstrings of its modules. An autoencoder turns the company that a word keeps
into a short vector.
"""

import ast
import re
from collections import Counter
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import scipy.sparse as sp
import sklearn
from matplotlib.transforms import Bbox
from sklearn.decomposition import PCA
from sklearn.preprocessing import normalize

from skae import Autoencoder

# %%
# The text
# --------


def docstrings():
    """The docstrings of scikit-learn's modules, without tests, examples and code."""
    for file in sorted(Path(sklearn.__file__).parent.rglob("*.py")):
        if {"tests", "externals"} & set(file.parts):
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = (ast.get_docstring(node) or "").split("Examples\n---")[0]
                yield re.findall(r"[a-z]{2,}", text.lower())


texts = list(docstrings())
counts = Counter(word for text in texts for word in text)
words = [word for word, count in counts.most_common() if count >= 40]
print(f"{sum(counts.values()):,} words, {len(words)} of them 40 times or more")

# %%
# Who occurs with whom
# --------------------
#
# Positive pointwise mutual information within six words: how much more often two words occur
# together than their frequencies would have it.

place = {word: i for i, word in enumerate(words)}
together = Counter()
for text in texts:
    ids = [place.get(word) for word in text]
    for i, first in enumerate(ids):
        for second in ids[i + 1 : i + 7]:
            if first is not None and second is not None:
                together[first, second] += 1
pairs = np.array(list(together))
C = sp.coo_array((list(together.values()), pairs.T), shape=(len(words), len(words))).tocsr()
C = (C + C.T).tocoo()
total, of_word = C.sum(), C.sum(axis=1)
pmi = np.log(C.data * total / (of_word[C.row] * of_word[C.col]))
ppmi = sp.csr_matrix((np.maximum(pmi, 0), (C.row, C.col)), shape=C.shape)
ppmi.eliminate_zeros()
print(f"{ppmi.nnz / np.prod(ppmi.shape):.1%} of the entries are not zero")

# %%
# The vectors
# -----------
#
# The matrix goes in as it is, sparse. The code of a row is the word's vector.

model = Autoencoder(
    n_components=50, hidden_layer_sizes=(), activation="tanh", max_iter=40, tol=None, random_state=0
)
vectors = normalize(model.fit_transform(ppmi.astype(np.float32)))


def nearest(word, n=6):
    """The words with the largest cosines."""
    cosines = vectors @ vectors[place[word]]
    return [words[i] for i in np.argsort(-cosines)[1 : n + 1]]


for word in ("classifier", "sparse", "eigenvalues", "bandwidth", "tree", "gaussian", "random"):
    if word in place:
        print(f"{word:12s} {', '.join(nearest(word))}")

# %%
# A map of some of them, by two principal components of their vectors:

groups = {
    "C0": ["classifier", "regressor", "estimator", "transformer", "estimators"],
    "C1": ["rows", "columns", "matrix", "array", "sparse", "csr", "dense"],
    "C2": ["precision", "recall", "accuracy", "roc", "auc", "score"],
    "C3": ["tree", "trees", "leaf", "nodes", "node", "split", "depth"],
    "C4": ["gaussian", "covariance", "variance", "mean", "distribution"],
}
shown = [(word, colour) for colour, group in groups.items() for word in group if word in place]
points = PCA(2).fit_transform(vectors[[place[word] for word, _ in shown]])
fig, ax = plt.subplots(figsize=(9, 6.5), layout="constrained")
ax.scatter(*points.T, s=16, color=[colour for _, colour in shown])
ax.set(xticks=[], yticks=[])
ax.margins(0.12)
fig.draw_without_rendering()  # so that the size of words is known

CORNERS = [(5, 3, "left"), (5, -9, "left"), (-5, 3, "right"), (-5, -9, "right"),
           (5, 12, "left"), (5, -18, "left"), (-5, 12, "right"), (-5, -18, "right")]  # fmt: skip
taken = [Bbox([at - 3, at + 3]) for at in ax.transData.transform(points)]
for (word, colour), point in zip(shown, points, strict=True):
    for x, y, side in CORNERS:  # the first where it covers no other word
        label = ax.annotate(
            word, point, (x, y), textcoords="offset points", color=colour, ha=side, size=9
        )
        box = label.get_window_extent()
        if not any(box.overlaps(other) for other in taken):
            break
        if (x, y, side) != CORNERS[-1]:
            label.remove()
    taken.append(box)

plt.show()
