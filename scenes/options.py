"""How difficult the synthetic scenes are."""

from __future__ import annotations

from dataclasses import dataclass, fields

SHARES = (
    "thin_share",
    "composite_share",
    "cutout_share",
    "camera_share",
    "small_motion_share",
    "travel_share",
    "dart_share",
    "vehicle_share",
    "defocus_share",
    "motion_blur_share",
    "fog_share",
    "shadow_share",
    "gloss_share",
    "plain_share",
)


MOST_OBJECTS = 254  # layers and the background are numbered in bytes
LEAST_SCALE = 0.05  # objects of 1 px; below, textures would be enlarged beyond all memory


@dataclass(frozen=True)
class SceneOptions:
    """Difficulty of the scenes; every share is a probability, every strength has 1 as its default.

    Lengths in px are for 320x448 and grow with the square root of the picture's area.

    Raises
    ------
    ValueError
        If a value is out of its range, naming it.
    """

    min_objects: int = 3  # objects in front of the background, drawn uniformly
    max_objects: int = 10  # the last value included
    object_scale: float = 1.0  # factor on the objects' size, 1: 25 to 280 px
    thin_share: float = 0.2  # objects that are sticks, ropes, rings or nets
    composite_share: float = 0.0  # of the others, several parts that move as one, such as chairs
    cutout_share: float = 0.5  # of what is left, where the textures have cut-outs

    motion_scale: float = 1.0  # factor on every motion, 1: median about 10 px
    small_motion_share: float = 0.14  # scenes whose motion is about 1 px
    camera_share: float = 0.5  # objects that move with the background, plus a little
    travel_share: float = 0.0  # scenes seen by a camera that travels forward or backward
    dart_share: float = 0.0  # objects that are fast by themselves, however calm their scene
    vehicle_share: float = 0.0  # objects, before all other shares, long and fast along their length
    rotation: float = 1.0  # strength of the rotations between the frames
    zoom: float = 1.0  # strength of the scale changes between the frames
    deformation: float = 1.0  # strength of the non-rigid part of the motion

    photometric: float = 1.0  # strength of contrast, brightness, gamma and colour changes
    noise: float = 4.0  # largest standard deviation of the sensor noise, grey levels of 255
    defocus_share: float = 0.15  # layers out of focus
    motion_blur_share: float = 0.15  # scenes with an exposure long enough to blur what moves
    fog_share: float = 0.1  # scenes with haze that thickens with depth
    shadow_share: float = 0.0  # scenes of sun and shadow, through which things move
    gloss_share: float = 0.0  # objects that mirror what does not move with them, such as cars
    plain_share: float = 0.0  # layers with little texture, such as walls, sky and road

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            kinds = (int,) if field.name.endswith("_objects") else (int, float)
            if isinstance(value, bool) or not isinstance(value, kinds):
                raise ValueError(f"scene option {field.name} is {value!r}, not a number")
            if not 0 <= value < float("inf") or (field.name in SHARES and value > 1):
                limit = "between 0 and 1" if field.name in SHARES else "at least 0 and finite"
                raise ValueError(f"scene option {field.name} is {value}, it must be {limit}")
        if self.min_objects > self.max_objects:
            raise ValueError(f"scene option min_objects is above max_objects ({self.max_objects})")
        if self.max_objects > MOST_OBJECTS:
            raise ValueError(f"scene option max_objects is above {MOST_OBJECTS}")
        if self.object_scale < LEAST_SCALE:
            limit = f"it must be at least {LEAST_SCALE}"
            raise ValueError(f"scene option object_scale is {self.object_scale}, {limit}")
