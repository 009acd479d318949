"""Motion of one layer between the two frames: affine plus a smooth deformation, exact both ways.

The forward motion is a closed formula, so that the label has no error beyond float32. Frame 2 needs
its inverse, which is solved on a grid finer than the deformation's detail and interpolated by
cubics; together they stay below `ACCURACY` px.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

ACCURACY = 0.01  # px, of the interpolated inverse; measured by the tests
MAX_STRETCH = 0.3  # bound on the deformation's Jacobian: keeps it invertible and free of folds
SAMPLES_PER_WAVE = 14  # grid points along the shortest wavelength
MAX_STEP = 16.0  # px, of the grid


class Box(NamedTuple):
    """Pixels [x0, x1) x [y0, y1)."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return max(self.y1 - self.y0, 0), max(self.x1 - self.x0, 0)

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index of the box in a picture."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    def clip(self, height: int, width: int) -> Box:
        """Part of the box inside a picture of that size."""
        x0, y0 = min(max(self.x0, 0), width), min(max(self.y0, 0), height)
        return Box(x0, y0, max(min(self.x1, width), x0), max(min(self.y1, height), y0))


class Motion(NamedTuple):
    """p -> linear p + offset + sum of amplitude_k sin(wave_k . p + phase_k), p = (x, y) in px.

    Attributes
    ----------
    linear : np.ndarray
        (2, 2) float64, near the identity.
    offset : np.ndarray
        (2,) float64, px.
    amplitude : np.ndarray
        (K, 2) float64, px; K may be 0.
    wave : np.ndarray
        (K, 2) float64, rad/px.
    phase : np.ndarray
        (K,) float64, rad.
    """

    linear: np.ndarray
    offset: np.ndarray
    amplitude: np.ndarray
    wave: np.ndarray
    phase: np.ndarray

    def deformation(self, points: np.ndarray) -> np.ndarray:
        """Non-rigid part of the displacement at (..., 2) points, px."""
        return np.sin(points @ self.wave.T + self.phase) @ self.amplitude

    def forward(self, points: np.ndarray) -> np.ndarray:
        """Where (..., 2) points of frame 1 are in frame 2, px."""
        return points @ self.linear.T + self.offset + self.deformation(points)

    def backward(self, points: np.ndarray) -> np.ndarray:
        """Where (..., 2) points of frame 2 were in frame 1, px, by fixed-point iteration."""
        inverse = np.linalg.inv(self.linear)
        start = (points - self.offset) @ inverse.T
        result = start
        for _ in range(100):
            previous = result
            result = start - self.deformation(previous) @ inverse.T
            if result.size == 0 or np.abs(result - previous).max() < ACCURACY / 10:
                return result
        raise ValueError("the deformation is too strong to be inverted")

    def flow(self, box: Box) -> np.ndarray:
        """Displacement of the pixels of a box of frame 1.

        Every plane wave is a sum of two products of a function of x and one of y, so that the field
        is a product of two small matrices.

        Returns
        -------
        np.ndarray
            (h, w, 2) float32, px, (u, v).
        """
        x = np.arange(box.x0, box.x1, dtype=np.float64)
        y = np.arange(box.y0, box.y1, dtype=np.float64)
        slope = self.linear - np.eye(2)
        along_x = [np.multiply.outer(x, slope[:, 0]) + self.offset, np.tile(slope[:, 1], (x.size, 1))]
        along_y = [np.ones_like(y), y]
        for amplitude, (kx, ky), phase in zip(self.amplitude, self.wave, self.phase):
            along_x += [np.multiply.outer(np.sin(kx * x + phase), amplitude)]
            along_x += [np.multiply.outer(np.cos(kx * x + phase), amplitude)]
            along_y += [np.cos(ky * y), np.sin(ky * y)]
        flow = _sum_of_products(np.array(along_y, np.float32), np.array(along_x, np.float32).reshape(len(along_x), -1))
        return flow.reshape(*box.size, 2)

    def step(self) -> float:
        """Grid spacing in px at which the inverse is solved, finer where frame 2 is compressed."""
        highest = np.sqrt((self.wave**2).sum(axis=1)).max(initial=0)
        stretch = (np.hypot(*self.amplitude.T) * np.hypot(*self.wave.T)).sum()
        smallest = np.linalg.svd(self.linear, compute_uv=False)[-1] - stretch
        compression = min(max(smallest, 0.1), 1.0)  # below 0 `backward` refuses the motion
        return min(MAX_STEP, 2 * np.pi * compression / max(highest, 1e-9) / SAMPLES_PER_WAVE)

    def moved_box(self, box: Box) -> Box:
        """Box of frame 2 that holds everything that a box of frame 1 holds."""
        step = max(self.step(), 1.0)
        x = np.linspace(box.x0, box.x1, int(box.size[1] / step) + 2)
        y = np.linspace(box.y0, box.y1, int(box.size[0] / step) + 2)
        moved = self.forward(np.stack(np.meshgrid(x, y), axis=-1)).reshape(-1, 2)
        low, high = np.floor(moved.min(axis=0)) - 2, np.ceil(moved.max(axis=0)) + 3
        return Box(int(low[0]), int(low[1]), int(high[0]), int(high[1]))

    def backward_map(self, box: Box, then: np.ndarray) -> np.ndarray:
        """Sampling map for the pixels of a box of frame 2.

        Parameters
        ----------
        box : Box
            In frame 2.
        then : np.ndarray
            (2, 3) affine map from frame 1 to what is sampled, for instance a texture.

        Returns
        -------
        np.ndarray
            (h, w, 2) float32, (x, y) in px of what is sampled.
        """
        height, width = box.size
        step = self.step()
        x, left, weight_x = _cubic(width, step)
        y, top, weight_y = _cubic(height, step)
        nodes = np.stack(np.meshgrid(x + box.x0, y + box.y0), axis=-1)
        nodes = self.backward(nodes) @ then[:, :2].T + then[:, 2]  # (ny, nx, 2)
        nodes = nodes.astype(np.float32)
        rows = sum(nodes.take(left + k, axis=1) * weight_x[k][:, None] for k in range(4))
        rows = rows.reshape(len(y), -1)  # (ny, 2 w)
        out = rows[top] * weight_y[0][:, None]
        part = np.empty_like(out)
        for k in range(1, 4):
            np.take(rows, top + k, axis=0, out=part, mode="clip")
            part *= weight_y[k][:, None]
            out += part
        return out.reshape(height, width, 2)


def draw_direction(rng: np.random.Generator) -> np.ndarray:
    """Draw a (2,) vector (x, y) of length 1."""
    angle = rng.uniform(0, 2 * np.pi)
    return np.array([np.cos(angle), np.sin(angle)])


def _sum_of_products(columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """(K, h) and (K, w) to (h, w). Not a BLAS product, whose last bit may depend on its threads."""
    out = columns[0][:, None] * rows[0]
    part = np.empty_like(out)
    for column, row in zip(columns[1:], rows[1:]):
        np.multiply(column[:, None], row, out=part)
        out += part
    return out


def _cubic(length: int, step: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cubic Lagrange interpolation from nodes `step` px apart to the pixels 0 .. length - 1.

    Returns
    -------
    nodes : np.ndarray
        (n,) positions in px, one before the first pixel and two after the last.
    first : np.ndarray
        (length,) index of the first of each pixel's four nodes.
    weights : np.ndarray
        (4, length) float32.
    """
    cell, t = np.divmod(np.arange(length) / step, 1)
    first = cell.astype(np.intp)
    nodes = (np.arange(first[-1] + 4 if length else 4) - 1) * step
    weights = (
        -t * (t - 1) * (t - 2) / 6,
        (t + 1) * (t - 1) * (t - 2) / 2,
        -(t + 1) * t * (t - 2) / 2,
        (t + 1) * t * (t - 1) / 6,
    )
    return nodes, first, np.array(weights, np.float32)
