"""Contact sheets of weights as PNG files, without a plotting package."""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path

import numpy as np


def contact_sheet(images: np.ndarray, columns: int | None = None, zoom: int = 1) -> np.ndarray:
    """Images of shape (n, h, w), each about its own zero and scaled to its own largest value.

    Grey is zero; the result is uint8 of shape (height, width), with a line between the images.
    """
    n, h, w = images.shape
    columns = columns or math.ceil(math.sqrt(n))
    sheet = np.full((math.ceil(n / columns) * (h + 1) + 1, columns * (w + 1) + 1), -1.0)
    for i, image in enumerate(images):
        top, left = i // columns * (h + 1) + 1, i % columns * (w + 1) + 1
        sheet[top : top + h, left : left + w] = image / max(np.abs(image).max(), 1e-12)
    grey = np.rint((sheet + 1) * 127.5).astype(np.uint8)
    return grey.repeat(zoom, 0).repeat(zoom, 1)


def write_png(path: Path, picture: np.ndarray) -> None:
    """A PNG file of a uint8 array of shape (height, width), grey, or (height, width, 3), RGB."""
    height, width = picture.shape[:2]
    colour_type = 0 if picture.ndim == 2 else 2
    rows = picture.reshape(height, -1)
    rows = np.hstack([np.zeros((height, 1), np.uint8), rows])  # a filter byte before each row
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0))
        + _chunk(b"IDAT", zlib.compress(rows.tobytes(), 9))
        + _chunk(b"IEND", b"")
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
