"""What synthetic scenes consist of: their difficulty, and random layers. NumPy on the host, many scenes at once.

A layer has a texture, a shape, a place and a motion. A scene's layers are its background (rank 0) and its objects from
back to front. In frame 2 a point at x, about the layer's centre, lies at shift + linear x + sum of sin(wave x + phase)
amplitude, about the same centre.
"""

import math
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

Share = Annotated[float, Field(ge=0, le=1)]  # a probability
Strength = Annotated[float, Field(ge=0, le=1000)]
Objects = Annotated[int, Field(ge=0, le=60)]


@dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True, allow_inf_nan=False))
class SceneOptions:
    """Difficulty of the scenes. Lengths in px are for 320x448 and grow with the square root of the picture's area."""

    min_objects: Objects = 3  # objects in front of the background, drawn uniformly
    max_objects: Objects = 10  # included
    object_scale: Annotated[float, Field(ge=0.05, le=10)] = 1.0  # factor on the size of the objects, 1: 25 to 280 px
    vehicle_share: Share = 0.0  # objects that are long, of several parts, and fast along their length
    thin_share: Share = 0.2  # of the others, sticks, ropes and rings
    composite_share: Share = 0.0  # of what is left, several parts that move as one, such as chairs
    cutout_share: Share = 0.5  # of what is left, where the textures have cut-outs

    motion_scale: Strength = 1.0  # factor on every motion, 1: median about 10 px
    small_motion_share: Share = 0.14  # scenes whose motion is about 1 px
    camera_share: Share = 0.5  # objects that move with the background, plus a little
    travel_share: Share = 0.0  # scenes seen by a camera that travels forward or backward
    dart_share: Share = 0.0  # objects that are fast by themselves, however calm their scene
    rotation: Strength = 1.0  # strength of the rotations between the frames
    zoom: Strength = 1.0  # strength of the scale changes between the frames
    deformation: Strength = 1.0  # strength of shear and of the non-rigid part of the motion

    photometric: Strength = 1.0  # strength of contrast, brightness, gamma and colour changes
    noise: Strength = 4.0  # largest standard deviation of the sensor noise, grey levels of 255
    defocus_share: Share = 0.15  # layers out of focus
    motion_blur_share: Share = 0.15  # scenes with an exposure long enough to blur what moves
    fog_share: Share = 0.1  # scenes with haze that thickens with depth
    plain_share: Share = 0.0  # layers with little texture, such as walls, sky and road

    def __post_init__(self) -> None:
        if self.min_objects > self.max_objects:
            raise ValueError(f"min_objects is {self.min_objects}, above max_objects ({self.max_objects})")


MIN_SIDE = 16  # px, of a scene
REFERENCE_AREA = 320 * 448  # px, the size at which the lengths below hold
# px, median and log deviation of a scene's motion, of a scene of small motion, of what is fast by itself
SPEED, SMALL_SPEED, DART_SPEED = (13.2, 0.68), (1.0, 0.6), (28.0, 0.7)
CHANGE, DART_CHANGE, CAMERA_CHANGE = 0.35, 0.15, 0.4  # of a motion: what turns, scales and deforms the surface
MAX_TURN, MAX_ZOOM, MAX_SHEAR = 0.5, 0.35, 0.06  # between the frames: rad, logarithm of the scale, and of a matrix
MAX_STRETCH = 0.25  # bound on the deformation's Jacobian: keeps it invertible and free of folds
WAVES = 2  # of a deformation
MIN_WAVELENGTH = 48.0  # px; shorter ones are not resolved by the nodes of a tile (render.py)
BACKGROUND, CUTOUT, POLYGON, CURVE, STICKS, PARTS = range(6)  # kinds of layers
ORDERS, BOXES, ENDS, CUTS = 3, 6, 3, 4  # Fourier orders of a curve, boxes of PARTS, sticks, cuts of a polygon
SHAPE_NUMBERS = 9 * BOXES + 4
NUMBERS = 320  # random numbers of a layer


class Draws(NamedTuple):
    """Layers of all scenes, sorted by rank and then by scene; lengths in px, colours 0 .. 255."""

    size: tuple[int, int]  # height, width
    scene: np.ndarray  # (M,) int64, row of the scene; the first layers are the backgrounds
    rank: np.ndarray  # (M,) int64, 0 = background
    kind: np.ndarray  # (M,) int64, BACKGROUND .. PARTS
    texture: np.ndarray  # (M, 3) int64: first texel, width and height of the level to sample
    columns: dict[str, np.ndarray]  # float64, (M, k)
    frames: dict[str, np.ndarray]  # float64, (N, 2, k), photometrics of the two frames
    noise_key: np.ndarray  # (N,) int64 below 2^31


class _Random:
    """Numbers for layers. They depend on seed, scene, rank and how many were drawn before, and on nothing else."""

    def __init__(self, seed: int, scene: np.ndarray, rank: np.ndarray) -> None:
        key = _mix(_mix(np.uint64(64) * scene.astype(np.uint64) + rank.astype(np.uint64)) ^ _mix(np.uint64([seed])))
        bits = _mix(key[:, None] + np.arange(NUMBERS, dtype=np.uint64))
        self.numbers, self.used = (bits >> np.uint64(11)) * 2.0**-53, 0

    def of(self, rows: np.ndarray) -> "_Random":
        """The next numbers of some layers."""
        part = object.__new__(_Random)
        part.numbers, part.used = self.numbers[rows], self.used
        return part

    def uniform(self, low: float = 0.0, high: float = 1.0, *shape: int) -> np.ndarray:
        """(M, *shape) float64 in [low, high)."""
        start, self.used = self.used, self.used + math.prod(shape)
        return low + (high - low) * self.numbers[:, start : self.used].reshape(-1, *shape)

    def normal(self, *shape: int) -> np.ndarray:
        """(M, *shape) float64, standard normal."""
        radius = np.sqrt(-2 * np.log1p(-self.uniform(0, 1, *shape)))
        return radius * np.cos(self.uniform(0, 2 * np.pi, *shape))

    def chance(self, share: float, *shape: int) -> np.ndarray:
        """(M, *shape) bool, True with this probability."""
        return self.uniform(0, 1, *shape) < share


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64, with its increment."""
    x = (x + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def draw(bank, seed: int, scenes, size: tuple[int, int], options: SceneOptions | None = None) -> Draws:
    """Draw the scenes of a seed whose numbers are `scenes`, (N,) int; `size` is height and width in px.

    `bank` holds the textures, see `synthetic.Bank`. A layer depends on seed, scene, rank and options alone: where more
    objects are allowed, further ones come in front.
    """
    scenes, o = np.asarray(scenes, np.int64), options or SceneOptions()
    count = _Random(seed, scenes, np.full(len(scenes), 63)).uniform(o.min_objects, o.max_objects + 1).astype(np.int64)
    rank, scene = np.nonzero(np.arange(o.max_objects + 1)[:, None] <= count)
    layers = _Layers(o, _Random(seed, scenes[scene], rank), bank, size, scene, rank, count[scene])
    frames, noise_key = layers.frames()
    columns = {name: values.reshape(len(rank), -1) for name, values in layers.columns.items()}
    return Draws(size, scene, rank, layers.kind, layers.texture, columns, frames, noise_key)


class _Layers:
    """All layers of all scenes while they are drawn: (M, ...) arrays.

    What all layers of a scene share is drawn for every layer, and that of the background taken: `values[scene]`.
    """

    def __init__(self, o: SceneOptions, rng: _Random, bank, size, scene, rank, count) -> None:
        self.o, self.rng, self.bank, self.scene, self.rank, self.count = o, rng, bank, scene, rank, count
        self.back = rank == 0
        self.side = np.array([size[1], size[0]], np.float64)
        self.extent = math.sqrt(size[0] * size[1])
        self.unit = self.extent / math.sqrt(REFERENCE_AREA)
        self.columns: dict[str, np.ndarray] = {}
        self._place()
        self._choose_textures()
        shift = self._move()
        self._look(shift)
        self._shape()

    def _place(self) -> None:
        """What the layers are, and where in frame 1."""
        o, rng, back = self.o, self.rng, self.back
        self.vehicle = rng.chance(o.vehicle_share) & ~back
        self.thin = rng.chance(o.thin_share) & ~back & ~self.vehicle
        parts = self.vehicle | (rng.chance(o.composite_share) & ~back & ~self.thin)
        have_cutouts = len(self.bank.first) > self.bank.photographs
        self.cutout = rng.chance(o.cutout_share) & ~back & ~self.thin & ~parts & have_cutouts
        choices = [back, parts, self.cutout, rng.chance(0.6), self.thin]
        self.kind = np.select(choices, [BACKGROUND, PARTS, CUTOUT, CURVE, STICKS], POLYGON)

        length = np.clip(110 * np.exp(0.55 * rng.normal()), 25, 280) * self.unit * o.object_scale
        self.length = np.where(back, self.extent, length * np.where(self.thin, 1.5, 1.0))
        aspect = np.where(self.vehicle, np.sqrt(rng.uniform(1.8, 3.6)), np.exp(0.25 * rng.normal()))
        self.half = self.length[:, None] / 2 * np.stack([aspect, 1 / aspect], -1)
        self.centre = np.where(back[:, None], (self.side - 1) / 2, rng.uniform(-0.04, 1.04, 2) * self.side)
        deviation = np.where(back, 0.08, np.where(parts | self.cutout, 0.35, 0.5))
        self.angle = np.where(self.thin, rng.uniform(-np.pi, np.pi), deviation * rng.normal())
        self.axes = np.swapaxes(_rotation(self.angle), 1, 2)  # frame 1 to own axes
        self.columns |= {"centre": self.centre, "axes": self.axes}

    def _choose_textures(self) -> None:
        """What the layers show: place in the texture = middle + scale * own px."""
        bank, rng, back, cutout = self.bank, self.rng, self.back, self.cutout[:, None]
        photographs, cutouts = bank.photographs, len(bank.first) - bank.photographs
        picture = rng.uniform()
        picture = np.where(self.cutout, photographs + picture * cutouts, picture * photographs).astype(np.int64)
        full = bank.sides[picture, 0].astype(np.float64)  # (M, 2)
        ratio = np.minimum(np.exp(rng.uniform(-0.3, 0.9)), (full / 2 / self.half).min(-1))
        ratio = np.where(self.cutout, (full.max(-1) - 2) / self.length, ratio)
        ratio = np.where(back, (full / self.side).min(-1) * rng.uniform(0.65, 1.0), ratio)[:, None]
        self.half = np.where(cutout, (full - 2) / 2 / ratio, self.half)
        self.half[back] = self.side
        focus = np.where(rng.chance(self.o.defocus_share), rng.uniform(0.6, 2.0), 0.0)  # px, sigma
        level = np.ceil(np.log2(ratio[:, 0]) - 0.4) + np.where(focus > 0, np.rint(np.log2(2 * focus.clip(0.5))), 0)
        level = level.clip(0, bank.first.shape[1] - 1).astype(np.int64)
        sides = bank.sides[picture, level]
        reach = np.minimum(np.where(back[:, None], self.side / 2, self.half) * ratio, full / 2)
        middle = full / 2 + (full / 2 - reach) * rng.uniform(-1, 1, 2)
        scale = np.where(cutout, (sides - 2) / 2 / self.half, ratio * sides / full)
        scale[:, 0] *= np.where(rng.chance(0.5), 1, -1)  # half of the textures are mirrored
        middle = np.where(cutout, (sides - 1) / 2, middle * sides / full - 0.5)
        self.texture = np.column_stack([bank.first[picture, level], sides])
        self.mean = bank.mean[picture]
        soft = np.sqrt(1 + (2.5 * focus) ** 2)
        self.columns |= {"half": self.half, "middle": middle, "scale": scale, "soft": soft, "mean": self.mean}

    def _move(self) -> np.ndarray:
        """Draw the motions; returns the (M, 2) shifts of the centres, px."""
        o, rng, scene, back, centre = self.o, self.rng, self.scene, self.back, self.centre
        small, pace = rng.chance(o.small_motion_share), self.unit * o.motion_scale
        median, spread = (np.where(small, *both) for both in zip(SMALL_SPEED, SPEED))
        speed = (pace * median * np.exp(spread * rng.normal()))[scene]
        fast = self.vehicle | (rng.chance(o.dart_share) & ~back)
        rests = (rng.chance(o.camera_share) & ~fast) | back
        own = np.where(back, -0.3, np.where(rests, -1.0, 0)) + np.where(back, 0.4, 0.6) * rng.normal()
        own = np.where(fast, pace * DART_SPEED[0] * np.exp(DART_SPEED[1] * rng.normal()), speed * np.exp(own))
        ahead = self.angle + 0.12 * rng.normal() + np.pi * rng.chance(0.5)
        way = np.where(self.vehicle, ahead, rng.uniform(0, 2 * np.pi))
        shift = own[:, None] * np.stack([np.cos(way), np.sin(way)], -1)

        # A travelling camera sees all things at rest turn and grow about one point, the nearer ones more.
        travels = rng.chance(o.travel_share)[scene]
        lead = (rng.uniform(0.03, 0.15) * np.where(rng.chance(0.8), 1, -1) * o.motion_scale * median / SPEED[0])[scene]
        depth = (self.rank - rng.uniform()).clip(0) / self.count.clip(1)
        nearness = np.where(back, 1, 1 + 1.5 * depth)  # inverse depth
        lead = np.where(travels, (lead.clip(-MAX_ZOOM, MAX_ZOOM) * nearness).clip(-MAX_ZOOM, MAX_ZOOM), 0)
        swing = np.where(travels, (o.rotation * rng.normal())[scene] * 0.2 * speed / self.extent, 0)
        arm = centre - centre[scene] - 0.15 * rng.normal(2)[scene] * self.side
        passing = _apply(np.exp(lead)[:, None, None] * _rotation(swing.clip(-MAX_TURN, MAX_TURN)), arm) - arm
        passing += 0.2 * speed[:, None] * rng.normal(2)[scene]

        change = np.where(fast, DART_CHANGE, CHANGE) * own
        change = np.where(back, CAMERA_CHANGE * speed, change)
        strength = 2 * change / self.length * ~(travels & rests)
        turn = (swing + o.rotation * rng.normal() * strength).clip(-MAX_TURN, MAX_TURN)
        zoom = (lead + o.zoom * rng.normal() * strength).clip(-MAX_ZOOM, MAX_ZOOM)
        shear = (o.deformation * rng.normal(2, 2) * (0.2 * strength)[:, None, None]).clip(-MAX_SHEAR, MAX_SHEAR)
        linear = np.exp(zoom)[:, None, None] * _rotation(turn) @ (np.eye(2) + shear)
        wavelength = np.maximum(self.length[:, None] * rng.uniform(0.5, 1.6, WAVES), MIN_WAVELENGTH)
        direction = rng.uniform(0, 2 * np.pi, WAVES)
        wave = 2 * np.pi / wavelength[..., None] * np.stack([np.cos(direction), np.sin(direction)], -1)
        amplitude = 0.6 * o.deformation * change[:, None, None] * rng.normal(WAVES, 2)
        bend = (np.linalg.norm(amplitude, axis=-1) * 2 * np.pi / wavelength).sum(-1)
        amplitude *= np.minimum(1, MAX_STRETCH / np.maximum(bend, 1e-9))[:, None, None]
        phase = rng.uniform(0, 2 * np.pi, WAVES)
        offset = -np.einsum("mk,mkc->mc", np.sin(phase), amplitude)  # the centre moves by `shift`

        at = centre - centre[scene]
        waves = np.sin(np.einsum("mkc,mc->mk", wave[scene], at) + phase[scene])
        camera = _apply(linear[scene], at) - at + (shift + offset)[scene]
        camera += np.einsum("mk,mkc->mc", waves, amplitude[scene])
        still = np.where(travels[:, None], passing, np.where(back[:, None], 0, camera))
        alone = travels & rests  # what is at rest before a travelling camera has no shift of its own
        shift = np.where(rests[:, None] | travels[:, None], still, 0) + np.where(alone[:, None], 0, shift)
        names = ("shift", "linear", "inverse", "wave", "amplitude", "phase")
        self.columns |= zip(names, (shift + offset, linear, np.linalg.inv(linear), wave, amplitude, phase))
        return shift

    def _look(self, shift: np.ndarray) -> None:
        """Light, haze and motion blur: colour = gain * texel + bias."""
        o, rng, scene = self.o, self.rng, self.scene
        contrast = np.exp(0.12 * o.photometric * rng.normal(1))
        tint = np.exp(0.048 * o.photometric * rng.normal(3))
        gain = contrast * tint
        bias = 255 * tint * (0.5 - 0.5 * contrast + 0.042 * o.photometric * rng.normal(1))
        keep = np.where(rng.chance(o.plain_share), rng.uniform(0.1, 0.4), 1.0)[:, None]
        gain, bias = keep * gain, bias + (1 - keep) * gain * self.mean
        density = np.where(rng.chance(o.fog_share), rng.uniform(0.3, 1.2), 0.0)[scene]
        fog = 255 * (rng.uniform(0.5, 0.9, 1) + 0.03 * rng.normal(3)).clip(0, 1)[scene]
        haze = 1 - np.exp(-density * (1 - self.rank / (self.count + 1)))[:, None]
        shutter = np.where(rng.chance(o.motion_blur_share), rng.uniform(0.1, 0.5), 0.0)[scene]
        smear = _apply(self.axes, shutter[:, None] * shift)
        length = np.linalg.norm(smear, axis=1, keepdims=True)
        smear = np.where(length < 1, 0, smear * np.minimum(1, 6 / np.maximum(length, 1e-9)))
        self.columns |= {"gain": gain * (1 - haze), "bias": bias * (1 - haze) + fog * haze, "smear": smear}

    def _shape(self) -> None:
        """The silhouettes: (M, SHAPE_NUMBERS), px in own axes, what they are depends on the kind."""
        stroke = np.where(self.thin, self.rng.uniform(2, 9) * self.unit, 0.0)
        numbers = np.zeros((len(stroke), SHAPE_NUMBERS))
        for kind, silhouette in ((POLYGON, _polygon), (CURVE, _curve), (STICKS, _sticks), (PARTS, _parts)):
            chosen = np.flatnonzero(self.kind == kind)
            if len(chosen):
                found = silhouette(self.rng.of(chosen), self.half[chosen], stroke[chosen], self.vehicle[chosen])
                numbers[chosen, : found.shape[1]] = found
        self.columns |= {"stroke": stroke, "shape": numbers}

    def frames(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Tone of both frames, a change of the pair and a smaller one of each frame; and the keys of their noise."""
        o, rng = self.o, self.rng.of(np.flatnonzero(self.back))
        tone = o.photometric * (0.7 * rng.normal(1, 6) + 0.2 * rng.normal(2, 6))
        both = np.ones((1, 2, 1))
        return {
            "gamma": np.exp(0.25 * tone[..., :1]), "contrast": np.exp(0.2 * tone[..., 1:2]),
            "brightness": 0.07 * tone[..., 2:3], "tint": np.exp(0.08 * tone[..., 3:]),
            "saturation": both * np.exp(0.3 * o.photometric * rng.normal(1, 1)),
            "noise": both * o.noise * rng.uniform(0, 1, 1, 1) ** 2,
        }, rng.uniform(0, 2**31).astype(np.int64)  # fmt: skip


def _polygon(rng: _Random, half: np.ndarray, stroke: np.ndarray, vehicle: np.ndarray) -> np.ndarray:
    """A box less what is beyond four lines: their normals and distances."""
    normal = rng.uniform(0, 2 * np.pi, CUTS)
    x, y = np.cos(normal), np.sin(normal)
    distance = rng.uniform(0.5, 1.05, CUTS) * np.hypot(x * half[:, :1], y * half[:, 1:])
    return np.stack([x, y, distance], -1).reshape(len(half), -1)


def _curve(rng: _Random, half: np.ndarray, stroke: np.ndarray, vehicle: np.ndarray) -> np.ndarray:
    """A curve in polar coordinates, filled or a stroke along it, whole or beyond a line only."""
    thin = (stroke > 0)[:, None]
    coefficients = rng.normal(2, ORDERS) * 0.16 / np.arange(1, ORDERS + 1) * np.where(thin, 0.6, 1)[..., None]
    normal = rng.uniform(0, 2 * np.pi, 1)
    line = np.where(thin & rng.chance(0.5, 1), rng.uniform(-0.3, 0.5, 1) * half.min(1, keepdims=True), -1e4)
    return np.concatenate(
        [stroke[:, None], np.cos(normal), np.sin(normal), line, coefficients.reshape(len(half), -1)], 1
    )


def _sticks(rng: _Random, half: np.ndarray, stroke: np.ndarray, vehicle: np.ndarray) -> np.ndarray:
    """Up to three line segments: their end points."""
    ends = rng.uniform(-0.95, 0.95, ENDS, 2, 2) * half[:, None, None]
    ends[:, 0, 1] = -ends[:, 0, 0]  # the first one is long
    missing = np.arange(ENDS) >= np.floor(rng.uniform(1, ENDS + 1, 1))
    return np.where(missing[..., None, None], ends[:, :1], ends).reshape(len(half), -1)


def _parts(rng: _Random, half: np.ndarray, stroke: np.ndarray, vehicle: np.ndarray) -> np.ndarray:
    """Boxes with round corners, each with its colour: a body, three panels on it, two limbs or wheels; and a hole."""
    body, side = rng.uniform(0.45, 0.85, 1, 2), np.array([-1.0, 1.0])
    panel, panel_at = rng.uniform(0.15, 0.5, 3, 2), rng.uniform(-1, 1, 3, 2) * body * 0.8
    limb = np.stack([rng.uniform(0.04, 0.16, 2), rng.uniform(0.2, 0.35, 2)], -1)
    limb_at = np.stack([side * rng.uniform(0.3, 0.9, 2) * body[..., 0], 0.95 - limb[..., 1]], -1)
    wheel = (0.28 * half[:, 1:] / half)[:, None] * np.ones((2, 1))
    wheel_at = np.stack([0.6 * side * body[..., 0], np.full((len(half), 2), 0.7)], -1)
    wheeled = (vehicle & rng.chance(0.6))[:, None, None]
    limb, limb_at = np.where(wheeled, wheel, limb), np.where(wheeled, wheel_at, limb_at)
    box = np.concatenate([body, panel, limb], 1) * half[:, None]
    at = np.concatenate([0 * body, panel_at, limb_at], 1) * half[:, None]
    at = at.clip(box - half[:, None], half[:, None] - box)
    rounding = rng.uniform(0, 0.8, BOXES)
    rounding[:, 4:] = np.where(wheeled[..., 0], 1, rounding[:, 4:])
    rounding *= box.min(-1)
    plain = rng.chance(0.6, BOXES, 1)
    grey = np.where(rng.chance(0.35, BOXES, 1), rng.uniform(0, 30, BOXES, 1), rng.uniform(0, 255, BOXES, 1))
    colour = (grey + 25 * rng.normal(BOXES, 3) * (grey > 30)).clip(0, 255)
    colour = np.where(plain, colour, -1.0)  # -1: the colour of the texture
    keep = np.where(plain, rng.uniform(0, 0.25, BOXES, 1), 1.0)
    boxes = np.concatenate([at, box, rounding[..., None], keep, colour], -1).reshape(len(half), -1)
    hole = np.where(rng.chance(0.3, 1), 0.8, -1.0) * box[:, 1]  # a negative side is nowhere
    return np.concatenate([boxes, at[:, 1], hole], 1)


def _rotation(angle: np.ndarray) -> np.ndarray:
    """(M, 2, 2) from angles in rad."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([cos, -sin, sin, cos], -1).reshape(-1, 2, 2)


def _apply(matrix: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(M, 2, 2) times (M, 2)."""
    return np.einsum("mij,mj->mi", matrix, x)
