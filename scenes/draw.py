"""Random layers: which texture, where, and how it moves."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import cv2
import numpy as np
from maskflownet.scenes.composites import draw_composite
from maskflownet.scenes.gloss import draw_gloss
from maskflownet.scenes.layers import Layer
from maskflownet.scenes.motion import MAX_STRETCH, Motion, draw_direction
from maskflownet.scenes.options import SceneOptions
from maskflownet.scenes.photometry import draw_blur, draw_layer_curve
from maskflownet.scenes.shadows import draw_light
from maskflownet.scenes.shapes import SMALLEST, random_mask
from maskflownet.scenes.textures import Textures

REFERENCE_AREA = 320 * 448  # px, the size at which the lengths below hold
SPEED = (13.2, 0.68)  # px, median and log deviation of a scene's motion
SMALL_SPEED = (1.0, 0.6)  # px, the same for scenes of small motion
DART_SPEED = (28.0, 0.7)  # px, the same for what is fast by itself, such as a crossing car
LENGTH = (1.8, 3.6)  # of a vehicle, in its heights
SWERVE = 0.12  # rad, standard deviation of the angle between a vehicle and its way
CHANGE, DART_CHANGE = 0.35, 0.15  # of an object's motion: what turns, scales and deforms it
OBJECT_SIZE = (110.0, 0.55, 25.0, 280.0)  # px: median, log deviation, least, largest
STROKE = (2.0, 9.0)  # px, width of thin structures
MAX_TURN = 0.5  # rad between the frames
MAX_ZOOM = 0.35  # of the logarithm of the scale between the frames
TRAVEL = (0.03, 0.15)  # logarithm of the background's scale between a travelling camera's frames
NEARNESS = (1.0, 2.5)  # inverse depth of the objects that it sees, the background has 1
FORWARD_SHARE = 0.8  # of the travelling cameras, the others go backward
FOCUS = 0.15  # of the picture's size, standard deviation of the focus about the centre


class _Travel(NamedTuple):
    """What a camera does that travels along its line of sight and sways a little.

    A surface whose depth shrinks by the factor exp(-z) grows by exp(z) about the focus of expansion
    and keeps its shape, as far as its own depth is small beside its distance.
    """

    focus: np.ndarray  # (2,) px
    zoom: np.ndarray  # (1 + objects,) logarithm of each layer's scale, back to front
    turn: float  # rad, of the whole picture about the focus
    sway: np.ndarray  # (2,) px, shift of the whole picture

    def shift(self, index: int, point: np.ndarray) -> np.ndarray:
        """(2,) px, displacement of a (2,) point at rest that belongs to a layer."""
        arm = point - self.focus
        return math.exp(self.zoom[index]) * _rotation(self.turn) @ arm - arm + self.sway


def draw_layers(
    textures: Textures, rng: np.random.Generator, height: int, width: int, options: SceneOptions
) -> list[Layer]:
    """Draw a background and the objects before it, back to front."""
    unit = math.sqrt(height * width / REFERENCE_AREA)
    median, spread = SMALL_SPEED if rng.random() < options.small_motion_share else SPEED
    pace = unit * options.motion_scale
    speed = pace * median * math.exp(rng.normal(0, spread))
    shutter = rng.uniform(0.1, 0.5) if rng.random() < options.motion_blur_share else 0.0
    density = rng.uniform(0.3, 1.2) if rng.random() < options.fog_share else 0.0
    fog = rng.uniform(0.5, 0.9) + rng.normal(0, 0.03, 3)
    count = int(rng.integers(options.min_objects, options.max_objects + 1))

    def finish(texture: np.ndarray, placement: np.ndarray, motion: Motion, depth: float) -> Layer:
        haze = 1 - math.exp(-density * depth)
        centre = placement @ [texture.shape[1] / 2, texture.shape[0] / 2, 1]
        shift = shutter * (motion.forward(centre) - centre)
        curve = draw_layer_curve(rng, options, texture, fog.clip(0, 1), haze)
        return Layer(texture, placement, motion, curve, draw_blur(rng, options, shift))

    texture, placement = _draw_background(textures, rng, height, width)
    extent = math.sqrt(height * width)
    centre = np.array([width - 1, height - 1]) / 2
    shift = draw_direction(rng) * speed * math.exp(rng.normal(-0.3, 0.4))
    travel, lead, still = None, (0.0, 0.0), options
    if options.travel_share and rng.random() < options.travel_share:
        scale = options.motion_scale * median / SPEED[0]  # small motions stay small
        travel = _draw_travel(rng, options, height, width, count, speed, scale)
        still = replace(options, rotation=0, zoom=0)  # what is at rest turns and grows as a whole
        shift, lead = travel.shift(0, centre), (travel.turn, travel.zoom[0])
    camera = _draw_motion(rng, still, centre, shift, 0.4 * speed, extent, 3, lead)
    layers, surfaces = [finish(texture, placement, camera, 1.0)], []
    for index in range(count):
        vehicle = bool(options.vehicle_share) and rng.random() < options.vehicle_share
        texture, placement, size = _draw_object(textures, rng, height, width, unit, options, vehicle)
        centre = placement @ [texture.shape[1] / 2, texture.shape[0] / 2, 1]
        rests = rng.random() < options.camera_share
        own = speed * math.exp(rng.normal(-1.0 if rests else 0, 0.6))
        change = CHANGE
        if vehicle or (options.dart_share and rng.random() < options.dart_share):
            rests, change = False, DART_CHANGE
            own = pace * DART_SPEED[0] * math.exp(rng.normal(0, DART_SPEED[1]))
        shift = own * (_draw_way(rng, placement) if vehicle else draw_direction(rng))
        if travel:
            lead = (travel.turn, travel.zoom[index + 1])
            shift = travel.shift(index + 1, centre) + (0 if rests else shift)
        elif rests:
            shift = camera.forward(centre) - centre + shift
        kind = still if rests else options
        motion = _draw_motion(rng, kind, centre, shift, change * own, size, 2, lead)
        layers.append(finish(texture, placement, motion, 1 - (index + 1) / (count + 1)))
        surfaces.append((centre, size))
    if options.gloss_share:
        layers[1:] = _with_gloss(rng, layers[1:], surfaces, options.gloss_share)
    if options.shadow_share and rng.random() < options.shadow_share:
        layers = _with_light(rng, layers, height, width, speed)
    return layers


def _with_gloss(
    rng: np.random.Generator, layers: list[Layer], surfaces: list[tuple[np.ndarray, float]], share: float
) -> list[Layer]:
    """Make a share of the layers, each with its centre and size in px, glossy."""
    made = list(layers)
    for index, (layer, (centre, size)) in enumerate(zip(layers, surfaces)):
        if rng.random() < share:
            shift = layer.motion.forward(centre) - centre
            made[index] = layer._replace(gloss=draw_gloss(rng, centre, size, shift))
    return made


def _with_light(rng: np.random.Generator, layers: list[Layer], height: int, width: int, speed: float) -> list[Layer]:
    """Lay sun and shadow on layers; on what is before the background it lies a little elsewhere."""
    light = draw_light(rng, height, width, layers[0].motion, speed)
    shifts = rng.integers(-light.margin, light.margin + 1, (len(layers), 2))
    shifts[0] = 0
    return [layer._replace(light=light.on(tuple(s))) for layer, s in zip(layers, shifts)]


def _draw_travel(
    rng: np.random.Generator, options: SceneOptions, height: int, width: int, count: int, speed: float, scale: float
) -> _Travel:
    """Draw how the background and `count` objects, back to front, pass a travelling camera.

    `scale` is the factor on the expansion, `speed` in px what sway and turn follow.
    """
    size = np.array([width, height])
    focus = (size - 1) / 2 + rng.normal(0, FOCUS, 2) * size
    zoom = scale * rng.uniform(*TRAVEL) * (1 if rng.random() < FORWARD_SHARE else -1)
    nearness = np.concatenate([[1.0], np.sort(rng.uniform(*NEARNESS, count))])
    turn = options.rotation * rng.normal(0, 0.2 * speed / math.sqrt(height * width))
    return _Travel(
        focus,
        np.clip(np.clip(zoom, -MAX_ZOOM, MAX_ZOOM) * nearness, -MAX_ZOOM, MAX_ZOOM),
        float(np.clip(turn, -MAX_TURN, MAX_TURN)),
        rng.normal(0, 0.2 * speed, 2),
    )


def _draw_background(
    textures: Textures, rng: np.random.Generator, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    pyramid = textures.photograph(int(rng.integers(len(textures.photographs))))
    h, w = pyramid[0].shape[:2]
    ratio = min(w / width, h / height) * rng.uniform(0.65, 1.0)  # photograph px per frame px
    texture, ratio = _level(pyramid, ratio)
    h, w = texture.shape[:2]
    slack = np.maximum([w / ratio - width, h / ratio - height], 0)
    centre = np.array([width, height]) / 2 + slack * rng.uniform(-0.5, 0.5, 2)
    flip = rng.choice([-1, 1])
    return texture, _place(texture, centre, flip / ratio, 1 / ratio, rng.normal(0, 0.08))


def _draw_object(
    textures: Textures,
    rng: np.random.Generator,
    height: int,
    width: int,
    unit: float,
    options: SceneOptions,
    vehicle: bool,
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return an (h, w, 4) RGBA texture, its placement and its size in px of the frame.

    A vehicle has several parts and is long in the x direction of its texture.
    """
    median, spread, least, largest = OBJECT_SIZE
    size = min(max(median * math.exp(rng.normal(0, spread)), least), largest)
    size *= unit * options.object_scale
    thin = not vehicle and rng.random() < options.thin_share
    if thin:
        size *= 1.5
    composite = not thin and options.composite_share
    if vehicle or (composite and rng.random() < options.composite_share):
        ratio = 1.0
        h, w = _sides(rng, size, vehicle)
        texture = draw_composite(textures, rng, round(h), round(w), rng.uniform(*STROKE) * unit)
        angle = rng.normal(0, 0.35)
    elif not thin and textures.cutouts and rng.random() < options.cutout_share:
        pyramid = textures.cutout(int(rng.integers(len(textures.cutouts))))
        texture, ratio = _level(pyramid, max(pyramid[0].shape[:2]) / size)
        angle = rng.normal(0, 0.35)
        texture = cv2.copyMakeBorder(texture, 2, 2, 2, 2, cv2.BORDER_CONSTANT, value=(0, 0, 0, 0))
    else:
        pyramid = textures.photograph(int(rng.integers(len(textures.photographs))))
        texture, ratio = _level(pyramid, math.exp(rng.uniform(-0.3, 0.9)))
        colour = _crop(rng, texture, size * ratio)
        stroke = rng.uniform(*STROKE) * unit * ratio
        mask = random_mask(rng, *colour.shape[:2], thin, stroke)
        texture = cv2.merge([*cv2.split(colour), mask])
        angle = rng.uniform(-math.pi, math.pi) if thin else rng.normal(0, 0.5)
    centre = rng.uniform(-0.04, 1.04, 2) * [width, height]
    stretch = math.exp(rng.normal(0, 0.12))
    flip = rng.choice([-1, 1])
    placement = _place(texture, centre, flip * stretch / ratio, 1 / (stretch * ratio), angle)
    return texture, placement, size


def _draw_way(rng: np.random.Generator, placement: np.ndarray) -> np.ndarray:
    """Draw a (2,) vector of length 1, forward or backward along a placed texture's x direction."""
    ahead = placement[:, 0] / np.hypot(*placement[:, 0])
    return rng.choice([-1, 1]) * _rotation(rng.normal(0, SWERVE)) @ ahead


def _level(pyramid: tuple[np.ndarray, ...], ratio: float) -> tuple[np.ndarray, float]:
    """Choose the level to sample from, where `ratio` of its px per frame px is about 1 or less."""
    index = min(max(0, math.ceil(math.log2(ratio) - 0.4)), len(pyramid) - 1)
    return pyramid[index], ratio / 2**index


def _crop(rng: np.random.Generator, texture: np.ndarray, side: float) -> np.ndarray:
    h, w = _sides(rng, side)
    h = int(min(max(h, SMALLEST), texture.shape[0]))
    w = int(min(max(w, SMALLEST), texture.shape[1]))
    y = int(rng.integers(texture.shape[0] - h + 1))
    x = int(rng.integers(texture.shape[1] - w + 1))
    return texture[y : y + h, x : x + w]


def _sides(rng: np.random.Generator, side: float, long: bool = False) -> tuple[float, float]:
    """Height and width of a picture about as large as a square of this side."""
    aspect = math.sqrt(rng.uniform(*LENGTH)) if long else math.exp(rng.normal(0, 0.25))
    return side / aspect, side * aspect


def _place(texture: np.ndarray, centre: np.ndarray, scale_x: float, scale_y: float, angle: float) -> np.ndarray:
    """(2, 3) affine map that puts the texture's centre at `centre`, scaled and turned."""
    linear = _rotation(angle) * [scale_x, scale_y]
    middle = np.array([texture.shape[1] - 1, texture.shape[0] - 1]) / 2
    return np.column_stack([linear, centre - linear @ middle])


def _draw_motion(
    rng: np.random.Generator,
    options: SceneOptions,
    centre: np.ndarray,
    shift: np.ndarray,
    change: float,
    size: float,
    waves: int,
    lead: tuple[float, float] = (0.0, 0.0),
) -> Motion:
    """Draw the motion of a surface of `size` px about `centre`.

    `shift` is what its centre does; rotation, zoom and shear move its edge by about `change` px
    each, the deformation by about as much. `lead` is the rotation in rad and the logarithm of the
    scale that it has before its own are added.
    """
    strength = 2 * change / size
    turn = np.clip(lead[0] + options.rotation * rng.normal(0, strength), -MAX_TURN, MAX_TURN)
    zoom = np.clip(lead[1] + options.zoom * rng.normal(0, strength), -MAX_ZOOM, MAX_ZOOM)
    uneven = np.clip(options.zoom * rng.normal(0, 0.3 * strength), -0.1, 0.1)
    shear = np.clip(options.deformation * rng.normal(0, 0.3 * strength), -0.1, 0.1)
    linear = _rotation(turn) * np.exp([zoom + uneven, zoom - uneven]) @ [[1, shear], [0, 1]]

    wavelength = size * rng.uniform(0.5, 1.6, waves)
    angle = rng.uniform(0, 2 * np.pi, waves)
    wave = 2 * np.pi / wavelength[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    amplitude = rng.normal(0, 0.5 * change * options.deformation, (waves, 2))
    stretch = (np.hypot(*amplitude.T) * np.hypot(*wave.T)).sum()
    amplitude *= min(1.0, MAX_STRETCH / max(stretch, 1e-9))
    phase = rng.uniform(0, 2 * np.pi, waves)
    bare = Motion(linear, np.zeros(2), amplitude, wave, phase)
    return bare._replace(offset=centre + shift - bare.forward(centre))


def _rotation(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
