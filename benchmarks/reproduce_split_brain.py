"""Split-brain against plain autoencoders (Zhang, Isola and Efros, CVPR 2017): colour, lightness.

SKAE_DATA=FOLDER python benchmarks/reproduce_split_brain.py [--quick] [--only cl] [--threads 1]

CIFAR-10 in Lab, 8 by 8 pixels. One half of the code sees lightness and predicts colour, the other
the reverse. A linear probe of the whole code is compared with one of a plain autoencoder's, of
the same width, and of what split codes are worth without the prediction of each other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from _reproduce import Table, data_path, parser
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from skae import Autoencoder, SplitBrainAutoencoder

SIZE = 8  # pixels of a side
LIGHTNESS, COLOUR = slice(0, SIZE**2), slice(SIZE**2, 3 * SIZE**2)
GROUPS = [range(SIZE**2), range(SIZE**2, 3 * SIZE**2)]
UNITS, BINS = 512, 8
CS = (1e-4, 1e-3, 1e-2)  # of the probe, chosen on validation rows
HEADER = ["code", "epochs", "probe, test %", "lightness half", "colour half", "validation %",
          "C", "paper: conv1", "paper: conv3"]  # fmt: skip
NOTES = """CIFAR-10, {train} training and {test} test images in CIE Lab, {size} by {size} pixels \
(means of blocks), centred, the lightness and the colour columns divided by one number each. \
{units} ReLU code units, no hidden layer but where "hidden" is said: {units} more units before and \
after the code; split models have half of all units for each half of x. Adam, batches of 200, the \
step size falling linearly to zero; 0 epochs are the starting weights. *Each alone*: a plain \
autoencoder of lightness beside one of colour. Quantised targets, (cl), have {bins} bins of \
equally many rows a column. *Probe*: multinomial logistic regression on the standardised code, \
C by the last {held} training rows, then refitted on all; mean (standard deviation) over \
{seeds} seeds; *halves* are probed alone. Chance is 10 %. Settings were chosen by shorter runs on \
validation rows, seed 0. *Paper*: ImageNet top-1, in %, of linear probes of the first and the \
third convolution, 1.3 million images of 180 by 180 pixels: only the order is a target. There, \
lightness alone has 12.3 and 29.6 (reg), 12.5 and 32.4 (cl), colour 11.5 and 23.5, 11.6 and \
22.6."""

# sRGB (D65) to XYZ, to be divided by the white point.
_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
     [0.0193339, 0.1191920, 0.9503041]]
)  # fmt: skip
_WHITE = np.array([0.95047, 1.0, 1.08883])


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE Lab of sRGB pixels in 0 to 255, over the last axis."""
    c = rgb / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    t = linear @ _TO_XYZ.T / _WHITE
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def columns(images: np.ndarray) -> np.ndarray:
    """Images of shape (n, 32, 32, 3) as rows: all L, then all a, then all b."""
    block = 32 // SIZE
    small = lab(images).reshape(len(images), SIZE, block, SIZE, block, 3).mean((2, 4))
    return small.transpose(0, 3, 1, 2).reshape(len(images), -1)


@dataclass
class Images:
    """Training and test rows, in units of the training rows, and the probe of their codes."""

    X: np.ndarray
    y: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray

    @classmethod
    def load(cls, n_rows: int | None) -> Images:
        """The first rows of both parts, as float32."""
        images = np.load(data_path("images", "cifar10_small.npz"))
        X, X_test = (columns(images[name][:n_rows]) for name in ("X_train", "X_test"))
        y, y_test = (images[name][:n_rows].astype(int) for name in ("y_train", "y_test"))
        mean, scale = X.mean(0), np.empty(X.shape[1])
        for part in (LIGHTNESS, COLOUR):
            scale[part] = (X - mean)[:, part].std()
        X, X_test = (((x - mean) / scale).astype(np.float32) for x in (X, X_test))
        return cls(X, y, X_test, y_test)

    @property
    def held(self) -> int:
        """Number of validation rows, the last of the training rows."""
        return len(self.X) // 5

    def probe(self, encode: Callable[[np.ndarray], np.ndarray]) -> list[float]:
        """Accuracy on test rows and on validation rows, in percent, and the C of the latter."""
        Z, Z_test = encode(self.X), encode(self.X_test)
        scaler, held = StandardScaler().fit(Z), self.held
        Z, Z_test = (scaler.transform(part).astype(np.float32) for part in (Z, Z_test))

        def classifier(C: float) -> LogisticRegression:
            return LogisticRegression(C=C, max_iter=100)

        validation = {
            C: classifier(C).fit(Z[:-held], self.y[:-held]).score(Z[-held:], self.y[-held:])
            for C in CS
        }
        C = max(validation, key=validation.get)
        accuracy = classifier(C).fit(Z, self.y).score(Z_test, self.y_test)
        return [100 * accuracy, 100 * validation[C], C]


class Each:
    """A plain autoencoder of lightness beside one of colour, with half of the units each."""

    def __init__(self, **parameters: Any):
        parameters["n_components"] //= 2
        self.models = [Autoencoder(**parameters) for _ in range(2)]

    def fit(self, X: np.ndarray) -> Each:
        for part, model in zip((LIGHTNESS, COLOUR), self.models, strict=True):
            model.fit(X[:, part])
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        both = zip((LIGHTNESS, COLOUR), self.models, strict=True)
        return np.hstack([model.transform(X[:, part]) for part, model in both])


def split_brain(n_components: int, hidden_layer_sizes: tuple[int, ...], **parameters: Any) -> Any:
    """A split-brain autoencoder that has these units in both halves together."""
    halved = tuple(width // 2 for width in hidden_layer_sizes)
    return SplitBrainAutoencoder(
        n_components=n_components // 2, hidden_layer_sizes=halved, groups=GROUPS, **parameters
    )


class Model(NamedTuple):
    """A row of the table."""

    make: Callable[..., Any]
    share: float = 1.0  # of the epochs
    hidden: tuple[int, ...] = ()
    parameters: dict[str, Any] = {}
    paper: tuple[str, str] = ("", "")


CL = {"targets": "classification", "n_bins": BINS}
COLOUR_CL = {"targets": ["regression", "classification"], "n_bins": BINS}
MODELS = {
    "plain, untrained": Model(Autoencoder, 0.0, paper=("11.6", "16.9")),
    "plain": Model(Autoencoder, paper=("12.9", "18.5")),
    "plain, a third of the epochs": Model(Autoencoder, 1 / 3),
    "each alone, untrained": Model(Each, 0.0),
    "each alone": Model(Each),
    "each alone, a third of the epochs": Model(Each, 1 / 3),
    "split-brain (reg, reg)": Model(split_brain, paper=("17.4", "33.6")),
    "split-brain (reg, reg), a third of the epochs": Model(split_brain, 1 / 3),
    "split-brain, colour (cl), lightness (reg)": Model(split_brain, parameters=COLOUR_CL),
    "split-brain (cl, cl)": Model(split_brain, parameters=CL, paper=("17.7", "35.4")),
    "plain, hidden": Model(Autoencoder, 1 / 3, (UNITS,)),
    "split-brain (reg, reg), hidden": Model(split_brain, 1 / 3, (UNITS,)),
    "split-brain (cl, cl), hidden": Model(split_brain, 1 / 3, (UNITS,), CL),
}


def run(images: Images, model: Model, epochs: int, seeds: int, every: list[Any]) -> list[Any]:
    """Train and probe with every seed; `every` takes each seed's numbers."""
    epochs = round(epochs * model.share)
    for seed in range(seeds):
        fitted = model.make(
            n_components=UNITS, hidden_layer_sizes=model.hidden, code_activation="relu",
            max_iter=max(1, epochs), learning_rate_init=1e-3 if epochs else 1e-300, tol=None,
            learning_rate="linear", batch_size=200, random_state=seed, **model.parameters,
        ).fit(images.X)  # fmt: skip
        halves = [float("nan")] * 2
        if model.make is not Autoencoder:
            first, second = slice(0, UNITS // 2), slice(UNITS // 2, UNITS)
            halves = [images.probe(lambda X, h=h, m=fitted: m.transform(X)[:, h])[0]
                      for h in (first, second)]  # fmt: skip
        accuracy, validation, C = images.probe(fitted.transform)
        every.append([accuracy, *halves, validation, C])
        print(f"  seed {seed}: {every[-1]}", flush=True)
    accuracy, first, second, validation, _ = np.mean(every, 0)
    spread = np.std([line[0] for line in every])
    halves = ["", ""] if np.isnan(first) else [f"{first:.1f}", f"{second:.1f}"]
    Cs = ", ".join(f"{C:g}" for C in sorted({line[-1] for line in every}))
    return [epochs, f"{accuracy:.1f} ({spread:.1f})", *halves, f"{validation:.1f}", Cs,
            *model.paper]  # fmt: skip


def untrained(images: Images, encode: Callable[[np.ndarray], np.ndarray]) -> list[Any]:
    """Cells of a code that needs no training."""
    accuracy, validation, C = images.probe(encode)
    return ["", f"{accuracy:.1f}", "", "", f"{validation:.1f}", f"{C:g}", "", ""]


def main() -> None:
    """Raw columns and PCA, plain autoencoders, and split-brain ones."""
    options = parser(__doc__ or "")
    options.add_argument("--seeds", type=int, default=3, help="default: %(default)s")
    options.add_argument("--epochs", type=int, default=60, help="default: %(default)s")
    options = options.parse_args()
    epochs, seeds = (3, 1) if options.quick else (options.epochs, options.seeds)
    images = Images.load(1000 if options.quick else None)
    notes = NOTES.format(
        train=len(images.X), test=len(images.X_test), size=SIZE, units=UNITS, bins=BINS,
        held=images.held, seeds=seeds,
    )  # fmt: skip
    every: dict[str, list[Any]] = {}
    rows = Table("split_brain", HEADER, options, notes, facts={"every seed": every})
    rows.add(f"raw Lab, {images.X.shape[1]}", lambda: untrained(images, lambda X: X))
    for k in (64, 128):
        pca = PCA(k, random_state=0).fit(images.X)
        rows.add(f"PCA, {k}", lambda pca=pca: untrained(images, pca.transform))
    for name, model in MODELS.items():
        every[name] = []
        rows.add(name, lambda n=name, m=model: run(images, m, epochs, seeds, every[n]))


if __name__ == "__main__":
    main()
