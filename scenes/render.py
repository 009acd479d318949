"""From drawn layers to frames, flow and occlusion, by batched tensor operations on a CPU or a GPU.

Both frames of all scenes are cut into tiles of 16 x 16 px. Every layer has a list of the tiles that it may touch, so
that small objects cost little. All tiles of all layers are shaded at once, as tensors (T, 256); then they are laid over
each other by rank. The non-rigid part of a motion, and its inverse, are interpolated between 49 nodes of a tile.
"""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from maskflownet.reader.loader import Batch, Order
from maskflownet.scenes.draw import BOXES, CURVE, CUTS, ENDS, ORDERS, PARTS, POLYGON, STICKS, Draws, draw

TILE = 16  # px
NODES = 7  # along a side of a tile, Chebyshev; with the bounds in draw.py the interpolation errs by at most 1e-2 px
STEPS = 8  # of the fixed-point iteration, each of which leaves at most 0.4 of the error
SMEARS = (-0.375, -0.125, 0.125, 0.375)  # of the exposure, where motion blur is sampled
BLOCK = 4  # batches that are made at once, to launch fewer kernels on a GPU
CHUNK = {"cpu": 256, "cuda": 1 << 17}  # tiles shaded at a time: what fits the cache, what fits the memory


class Scenes(NamedTuple):
    """A batch of scenes on one device."""

    img1: torch.Tensor  # (N, H, W, 3) uint8 RGB
    img2: torch.Tensor
    flow: torch.Tensor  # (N, H, W, 2) float32, px, (u, v): the motion of the top layer in frame 1
    occlusion: torch.Tensor  # (N, H, W) bool, True = what frame 1 shows is hidden or outside in frame 2


class SceneBatches:
    """Endless training batches of a `Synthetic` set on a device, in place of a loader: nothing is copied from the host.

    The scenes from number `start` on follow each other, at the positions that `order` gives this process. Each batch
    is used in `order.echo` steps, one after the other. `BLOCK` batches are made at once, and the next block ahead, by
    a thread and on a CUDA stream of its own.
    """

    def __init__(self, dataset, batch: int, device="cpu", order: Order | None = None, start: int = 0) -> None:
        self.dataset, self.batch, self.order, self.start = dataset, batch, order or Order(), start
        self.bank = dataset.textures.bank()
        self.texels = torch.as_tensor(self.bank.texels).to(device)
        self.stream = torch.cuda.Stream(self.texels.device) if self.texels.is_cuda else None
        self.skipped: list[str] = []  # no scene is ever damaged

    def batches(self, step: int = 0) -> Iterator[Batch]:
        """Yield the batches of the steps that follow `step` steps, ready for use on the current stream."""
        echo = self.order.echo
        with ThreadPoolExecutor(1, "scenes") as worker:
            block, first = divmod(step, BLOCK * echo)
            ahead = worker.submit(self._make, block)
            while True:
                made, done = ahead.result()
                block += 1
                ahead = worker.submit(self._make, block)
                if done is not None:
                    current = torch.cuda.current_stream(self.texels.device)
                    current.wait_event(done)
                    for values in made[0][:4]:  # views of what the whole block shares
                        values.record_stream(current)
                for place in range(first, BLOCK * echo):
                    yield made[place // echo]
                first = 0

    def _make(self, block: int) -> tuple[list[Batch], torch.cuda.Event | None]:
        dataset, batches = self.dataset, range(block * BLOCK, (block + 1) * BLOCK)
        numbers = [self.start + place for batch in batches for _, place in self.order.positions(batch, [self.batch])]
        names = [f"synthetic_{dataset.seed}/{number:05d}" for number in numbers]
        with torch.cuda.stream(self.stream):
            draws = draw(self.bank, dataset.seed, numbers, dataset.size, dataset.options)
            img1, img2, flow, _ = render(draws, self.texels)
            valid = torch.full((*flow.shape[:3], 1), 255, dtype=torch.uint8, device=flow.device)
            parts = [values.chunk(BLOCK) for values in (img1, img2, flow, valid)]
            size = len(names) // BLOCK
            made = [Batch(*part, tuple(names[k * size : (k + 1) * size])) for k, part in enumerate(zip(*parts))]
            return made, self.stream and self.stream.record_event()


class _Rows:
    """A row of named numbers for every tile."""

    def __init__(self, values: torch.Tensor, columns: dict[str, slice]) -> None:
        self.values, self.columns = values, columns

    def __getitem__(self, name: str) -> torch.Tensor:
        """(T, k), a view."""
        return self.values[:, self.columns[name]]

    def of(self, index: torch.Tensor) -> "_Rows":
        return _Rows(self.values.index_select(0, index), self.columns)


class _Tiles(NamedTuple):
    """The tiles that layers may touch, sorted by rank, then frame, then scene; (T,) int64 tensors but `origin`."""

    layer: torch.Tensor
    frame: torch.Tensor  # 0 or 1
    place: torch.Tensor  # number of the tile among those of both frames of all scenes
    origin: torch.Tensor  # (T, 2) float32, px, (x, y) of its first pixel


@torch.no_grad()
def render(draws: Draws, texels: torch.Tensor | np.ndarray) -> Scenes:
    """Render drawn scenes on the device of the texels, those of the bank that they were drawn with.

    A pixel belongs to the nearest layer with an alpha of at least one half. It is occluded if in frame 2, at the place
    to which its flow points, a nearer layer is there, or if that place is outside the pixel centres of the picture.
    """
    texels = torch.as_tensor(texels)
    tiles = _tiles(draws, texels.device)
    colour, label = (
        _picture(values, draws.size) for values in _compose(draws, tiles, *_shade_all(draws, tiles, texels))
    )
    first, second = label.chunk(2)
    flow = first[:, :2]
    images = _expose(colour, draws).chunk(2)
    return Scenes(*images, flow.permute(0, 2, 3, 1).contiguous(), _occlusion(flow, first[:, 2], second[:, 2]))


def _send(values: np.ndarray, device: torch.device) -> torch.Tensor:
    """Copy to the device, without waiting for a GPU."""
    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def _grid(size: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of tiles."""
    return -(-size[0] // TILE), -(-size[1] // TILE)


def _tiles(draws: Draws, device: torch.device) -> _Tiles:
    down, across = _grid(draws.size)
    c, count = draws.columns, len(draws.rank)
    axes, linear, inverse = (c[name].reshape(-1, 2, 2) for name in ("axes", "linear", "inverse"))
    margin = 2 + 2 * c["soft"] + np.linalg.norm(c["smear"], axis=1, keepdims=True) / 2
    half = c["half"] + margin + c["stroke"] / 2
    # Of both frames, (2 M, ...): centres, from own axes to the frame, back, and half the sides of a box in own axes.
    centre = np.concatenate([c["centre"], c["centre"] + c["shift"]])
    out = np.concatenate([np.swapaxes(axes, 1, 2), linear @ np.swapaxes(axes, 1, 2)])
    back = np.concatenate([axes, axes @ inverse])
    spare = np.abs(c["amplitude"].reshape(count, -1, 2)).sum(1)
    half = np.concatenate([half, half + np.einsum("mij,mj->mi", np.abs(back[count:]), spare)])
    half[np.tile(draws.rank == 0, 2)] = 1e6
    box = np.einsum("mij,mj->mi", np.abs(out), half)
    low = np.floor((centre - box) / TILE).clip(0, [across, down])
    size = (np.floor((centre + box) / TILE) + 1).clip(0, [across, down]) - low
    order = np.lexsort((np.tile(draws.scene, 2), np.repeat([0, 1], count), np.tile(draws.rank, 2)))
    amount = size.clip(0).prod(1)[order].astype(np.int64)
    picture = (np.repeat([0, len(draws.noise_key)], count) + np.tile(draws.scene, 2)) * down * across
    whole = np.column_stack([order % count, order // count, picture[order], np.cumsum(amount) - amount])
    limit = half + (TILE - 1) / 2 * np.abs(back).sum(2)
    real = np.column_stack([low, size[:, :1], centre, limit, back.reshape(-1, 4)])[order].astype(np.float32)
    # One row for every tile of every box, less the corners of the box that a turned layer does not touch.
    box = torch.repeat_interleave(_send(amount, device), output_size=int(amount.sum()))
    layer, frame, picture, first = _send(whole, device).index_select(0, box).unbind(1)
    left, top, wide, x, y, limit_x, limit_y, *back = _send(real, device).index_select(0, box).unbind(1)
    place = torch.arange(len(box), device=device) - first
    row = (place + 0.5).div_(wide).floor_()
    left, top = left + place - row * wide, top + row
    x, y = left * TILE + (TILE - 1) / 2 - x, top * TILE + (TILE - 1) / 2 - y
    near = ((back[0] * x + back[1] * y).abs() <= limit_x) & ((back[2] * x + back[3] * y).abs() <= limit_y)
    place, origin = picture + (top * across + left).long(), torch.stack([left, top], 1) * TILE
    return _Tiles(*(values[near] for values in (layer, frame, place, origin)))


def _shade_all(draws: Draws, tiles: _Tiles, texels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(T, 3, 256) colour, (T, 256) alpha, and (T, 3, 256) flow, 0 in frame 2, and rank of the layer."""
    device, total, step = texels.device, len(tiles.layer), CHUNK[texels.device.type]
    # One table, one copy: the texture's whole numbers are in it by their bits.
    parts = {**draws.columns, "texture": draws.texture.astype(np.int32).view(np.float32), "at": draws.columns["centre"]}
    ends = np.cumsum([values.shape[1] for values in parts.values()])
    columns = {name: slice(end - values.shape[1], end) for end, (name, values) in zip(ends.tolist(), parts.items())}
    table = _Rows(_send(np.concatenate([v.astype(np.float32) for v in parts.values()], 1), device), columns)
    kinds, smeared = _send(draws.kind, device), _send(draws.columns["smear"].any(1), device)
    colour, alpha = torch.empty(total, 3, TILE**2, device=device), torch.empty(total, TILE**2, device=device)
    label = torch.zeros(total, 3, TILE**2, device=device)
    label[:, 2] = _send(draws.rank, device)[tiles.layer, None]
    behind = 2 * len(draws.noise_key) * math.prod(_grid(draws.size))
    for start in range(0, total, step):
        part = slice(start, start + step)
        layer, rows = tiles.layer[part], table.of(tiles.layer[part])
        rows["at"].neg_().add_(tiles.origin[part])
        local = torch.empty(len(layer), 2, TILE**2, device=device)
        first, second = ((tiles.frame[part] == number).nonzero()[:, 0] for number in (0, 1))
        local[first], label[start + first, :2] = _locate_1(rows.of(first))
        local[second] = _locate_2(rows.of(second))
        kind, blurred = kinds[layer], smeared[layer].nonzero()[:, 0]
        colour[part], alpha[part] = _shade(texels, rows, local, kind, blurred, max(behind - start, 0))
    return colour, alpha, label


def _compose(draws: Draws, tiles: _Tiles, colour, alpha, label) -> tuple[torch.Tensor, torch.Tensor]:
    """Lay tiles over each other: colour and label of the tiles of both frames."""
    ends = torch.bincount(_send(draws.rank, colour.device)[tiles.layer]).cumsum(0).tolist()
    for start, end in zip(ends, ends[1:]):
        at, over = tiles.place[start:end], alpha[start:end, None]  # the background's tiles come first, in this order
        colour.index_copy_(0, at, torch.lerp(colour[at], colour[start:end], over))
        label.index_copy_(0, at, torch.where(over >= 0.5, label[start:end], label[at]))
    return colour[: ends[0]], label[: ends[0]]


@cache
def _interpolation(device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(2, 49) nodes and (2, 256) pixels of a tile as (x, y) in px, and (49, 256) weights from one to the other.

    The weights are float64: a program may let float32 products have 10 bits (TF32).
    """
    node = np.polynomial.chebyshev.chebpts1(NODES) / np.cos(np.pi / 2 / NODES)  # -1 and 1 included
    terms = [np.polynomial.chebyshev.chebvander(x, NODES - 1) for x in (node, np.linspace(-1, 1, TILE))]
    weight = terms[1] @ np.linalg.inv(terms[0])  # (16, 7)
    sides = ((TILE - 1) / 2 * (node + 1), np.arange(TILE))
    nodes, pixels = (torch.tensor(np.stack(np.meshgrid(side, side)).reshape(2, -1)) for side in sides)
    weights = torch.tensor(np.kron(weight, weight).T)
    return nodes.to(device, torch.float32), pixels.to(device, torch.float32), weights.to(device)


# Places in layers' own axes. A tile's row has the numbers of its layer, and `at`, its origin about the layer's centre.


def _locate_1(row: _Rows) -> tuple[torch.Tensor, torch.Tensor]:
    """(T, 2, 256) places of frame 1's pixels, px about the centre, and their flow, px."""
    nodes, pixels, weights = _interpolation(row["at"].device)
    at, identity = row["at"][..., None], torch.eye(2, device=nodes.device).view(4)
    flow = (_deformation(row, at + nodes).double() @ weights).float()
    flow.add_(_affine(row["linear"] - identity, at, pixels)).add_(row["shift"][..., None])
    return _affine(row["axes"], at, pixels), flow


def _locate_2(row: _Rows) -> torch.Tensor:
    """(T, 2, 256) places of what frame 2's pixels show, by fixed-point iteration from the affine part's inverse."""
    nodes, pixels, weights = _interpolation(row["at"].device)
    at = (row["at"] - row["shift"])[..., None]
    start, bend = _apply(row["inverse"], at + nodes), 0
    for _ in range(STEPS):
        bend = -_apply(row["inverse"], _deformation(row, start + bend))
    both = _apply(row["axes"], row["inverse"].view(-1, 2, 2)).view(-1, 4)
    return (_apply(row["axes"], bend).double() @ weights).float().add_(_affine(both, at, pixels))


def _apply(matrix: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """(T, 4) matrices times (T, 2, n) vectors."""
    m = matrix[..., None]
    return torch.stack([m[:, 0] * x[:, 0] + m[:, 1] * x[:, 1], m[:, 2] * x[:, 0] + m[:, 3] * x[:, 1]], 1)


def _affine(matrix: torch.Tensor, at: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    """(T, 4) matrices times the (T, 2, 256) pixels of tiles whose first one is (T, 2, 1)."""
    base = _apply(matrix, at)
    m = matrix.reshape(-1, 2, 2, 1)
    return torch.addcmul(torch.addcmul(base, m[:, :, 0], pixels[0]), m[:, :, 1], pixels[1])


def _deformation(row: _Rows, x: torch.Tensor) -> torch.Tensor:
    """(T, 2, n) non-rigid displacement of (T, 2, n) places about the centre, px."""
    wave, amplitude, out = row["wave"][..., None], row["amplitude"][..., None], 0
    for k in range(row["phase"].shape[1]):
        angle = wave[:, 2 * k] * x[:, 0] + wave[:, 2 * k + 1] * x[:, 1] + row["phase"][:, k, None]
        out = out + torch.sin(angle)[:, None] * amplitude[:, 2 * k : 2 * k + 2]
    return out


def _shade(
    texels: torch.Tensor, row: _Rows, local: torch.Tensor, kind: torch.Tensor, blurred: torch.Tensor, behind: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Colour (T, 3, 256) and alpha (T, 256) at places in own axes; `blurred` tiles are the mean along their way."""
    colour, alpha = _surface(texels, row, local, kind, behind)
    if len(blurred):
        index = blurred.repeat_interleave(len(SMEARS))
        some, share = row.of(index), torch.tensor(SMEARS, device=local.device).repeat(len(blurred))[:, None]
        places = local[index].add_((share * some["smear"])[..., None])
        seen, opaque = _surface(texels, some, places, kind[index], int((index < behind).sum()))
        seen, opaque = (v.unflatten(0, (-1, len(SMEARS))).mean(1) for v in (seen * opaque[:, None], opaque))
        colour.index_copy_(0, blurred, seen / opaque[:, None].clamp(min=1e-3))
        alpha.index_copy_(0, blurred, opaque)
    return colour, alpha


def _surface(texels: torch.Tensor, row: _Rows, local: torch.Tensor, kind: torch.Tensor, behind: int):
    colour, alpha = _sample(texels, row, local, behind)
    for number, paint in ((POLYGON, _polygon), (CURVE, _curve), (STICKS, _sticks), (PARTS, _parts)):
        index = (kind == number).nonzero()[:, 0]
        if len(index):
            some, (x, y) = row.of(index), local[index].unbind(1)
            if number == PARTS:
                painted, cover = paint(some, x, y, colour[index])
                colour.index_copy_(0, index, painted)
            else:
                cover = _cover(some, paint(some, x, y))
            alpha.index_copy_(0, index, cover)
    return colour, alpha


def _sample(texels: torch.Tensor, row: _Rows, local: torch.Tensor, behind: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Bilinear colour (T, 3, 256) and alpha (T, 256), 0 .. 1, of textures at places in own axes.

    The first `behind` tiles mirror their textures at the border. Places are whole numbers of 1/256 texel, weights sum
    to 256, and two channels share a 32-bit number.
    """
    texture = row["texture"].view(torch.int32)
    start, width, _ = texture.split(1, 1)
    last = (256 * texture[:, 1:, None] - 257).float()
    place = torch.addcmul((256 * row["middle"] + 0.5)[..., None], (256 * row["scale"])[..., None], local)
    if behind:
        place[:behind] = last[:behind] - (last[:behind] - place[:behind].abs()).abs()
    place = torch.clamp(place, torch.zeros_like(last), last).int()
    x, y = (place >> 8).unbind(1)
    fx, fy = (place & 255).unbind(1)
    index = (y * width).add_(x).add_(start)
    both = (fx * fy) >> 8
    right, lower = fx - both, fy - both
    red_blue, green_alpha = 0, 0
    for step, weight in ((0, (256 - fx).sub_(lower)), (1, right), (width, lower), (width + 1, both)):
        seen = texels.index_select(0, (index + step).view(-1)).view(index.shape)
        red_blue = (seen & 0xFF00FF).mul_(weight).add_(red_blue)
        green_alpha = (seen >> 8).bitwise_and_(0xFF00FF).mul_(weight).add_(green_alpha)
    colour = torch.empty(len(index), 3, index.shape[1], device=index.device)
    for channel, value in enumerate((red_blue & 0xFFFF, green_alpha & 0xFFFF, (red_blue >> 16).bitwise_and_(0xFFFF))):
        colour[:, channel] = value
    colour.mul_(row["gain"][..., None] / 256).add_(row["bias"][..., None])
    return colour, (green_alpha >> 16).bitwise_and_(0xFFFF) * (1 / 65280)


def _cover(row: _Rows, distance: torch.Tensor) -> torch.Tensor:
    """Alpha of a signed distance to an edge in px, negative inside: a ramp of 1 px, wider out of focus."""
    return (0.5 - distance / row["soft"]).clamp_(0, 1)


# Signed distances to silhouettes, or close to them near the edge. Functions of the same names in draw.py say of what.


def _polygon(row: _Rows, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    n = row["shape"][..., None]
    out = torch.maximum(x.abs() - row["half"][:, :1], y.abs() - row["half"][:, 1:])
    for k in range(CUTS):
        out = torch.maximum(out, n[:, 3 * k] * x + n[:, 3 * k + 1] * y - n[:, 3 * k + 2])
    return out


def _curve(row: _Rows, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    n = row["shape"][..., None]
    u, v = x / row["half"][:, :1], y / row["half"][:, 1:]
    radius = torch.hypot(u, v).clamp(min=1e-3)
    cos, sin = u / radius, v / radius
    c, s, edge, slope = cos, sin, 0.72, 0
    for k in range(ORDERS):
        a, b = n[:, 4 + k], n[:, 4 + ORDERS + k]
        edge, slope = edge + a * c + b * s, slope + (k + 1) * (b * c - a * s)
        c, s = c * cos - s * sin, s * cos + c * sin
    scale = row["half"].prod(1, keepdim=True).sqrt() * torch.rsqrt(1 + (slope / radius) ** 2)
    out = (radius - edge.clamp(0.25, 1.0)) * scale
    out = torch.where(n[:, 0] > 0, out.abs() - n[:, 0] / 2, out)
    return torch.maximum(out, n[:, 3] - n[:, 1] * x - n[:, 2] * y)


def _sticks(row: _Rows, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    n, distances = row["shape"][..., None], []
    for k in range(ENDS):
        ax, ay, bx, by = n[:, 4 * k : 4 * k + 4].unbind(1)
        dx, dy = bx - ax, by - ay
        along = (((x - ax) * dx + (y - ay) * dy) / (dx * dx + dy * dy).clamp(min=1e-3)).clamp_(0, 1)
        distances.append(torch.hypot(x - ax - along * dx, y - ay - along * dy))
    return torch.stack(distances).amin(0) - row["stroke"] / 2


def _parts(row: _Rows, x: torch.Tensor, y: torch.Tensor, texture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    n = row["shape"][..., None]
    colour, alpha = texture, 0
    mean = torch.addcmul(row["bias"], row["gain"], row["mean"])[..., None]
    for k in range(BOXES):
        left, top, wide, high, rounding, keep, *rest = n[:, 9 * k : 9 * k + 9].unbind(1)
        own = torch.stack(rest, 1)
        dx, dy = (x - left).abs() - wide + rounding, (y - top).abs() - high + rounding
        outside = torch.hypot(dx.clamp(min=0), dy.clamp(min=0)) + torch.maximum(dx, dy).clamp(max=0)
        cover = _cover(row, outside - rounding)
        fill = torch.where(own < 0, texture, own + keep[:, None] * (texture - mean))
        colour = fill if k == 0 else torch.where(alpha[:, None] > 0, torch.lerp(colour, fill, cover[:, None]), fill)
        alpha = torch.maximum(cover, alpha) if k else cover
    left, top, wide, high = n[:, 9 * BOXES :].unbind(1)
    hole = torch.maximum((x - left).abs() - wide, (y - top).abs() - high)
    return colour, torch.minimum(alpha, 1 - _cover(row, hole))


def _picture(tiles: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """(N * G, C, 256) tiles to (N, C, H, W)."""
    down, across = _grid(size)
    split = tiles.reshape(-1, down, across, tiles.shape[1], TILE, TILE).permute(0, 3, 1, 4, 2, 5)
    return split.reshape(len(split), -1, down * TILE, across * TILE)[..., : size[0], : size[1]]


def _occlusion(flow: torch.Tensor, top1: torch.Tensor, top2: torch.Tensor) -> torch.Tensor:
    """(N, H, W) bool from (N, 2, H, W) flow and the (N, H, W) rank of the top layer in both frames."""
    height, width = top1.shape[1:]
    x = flow[:, 0] + torch.arange(width, device=flow.device)
    y = flow[:, 1] + torch.arange(height, device=flow.device)[:, None]
    outside = (x < 0) | (x > width - 1) | (y < 0) | (y > height - 1)
    index = y.round().clamp(0, height - 1).mul_(width).add_(x.round().clamp(0, width - 1)).long().flatten(1)
    return (top2.flatten(1).gather(1, index).view_as(top1) > top1) | outside


def _expose(image: torch.Tensor, draws: Draws) -> torch.Tensor:
    """(2 N, H, W, 3) uint8 from (2 N, 3, H, W), 0 .. 255: colour, tone and noise of both frames."""
    frames = {name: np.concatenate([*np.swapaxes(v, 0, 1)]) for name, v in draws.frames.items()}  # (2 N, k)
    numbers = _send(np.concatenate([*frames.values()], 1).astype(np.float32), image.device)[..., None, None]
    gamma, contrast, brightness, tint, saturation, noise = numbers.split([v.shape[1] for v in frames.values()], 1)
    image = torch.lerp(image.mean(1, keepdim=True), image, saturation).mul_(1 / 255).clamp_(0, 1).pow_(gamma)
    image = image.sub_(0.5).mul_(contrast).add_(brightness + 0.5).mul_(tint).mul_(255)
    if frames["noise"].any():
        image.addcmul_(noise, _noise(draws, image.device))
    return image.add_(0.5).clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _noise(draws: Draws, device: torch.device) -> torch.Tensor:
    """(2 N, 3, H, W) normal numbers that depend on scene, frame and pixel alone."""
    height, width = draws.size
    keys = np.concatenate([draws.noise_key, draws.noise_key ^ 0x3C6EF372]).astype(np.int32)
    x = torch.arange(height * width, dtype=torch.int32, device=device) * 0x9E3779B - 0x12345
    x = x ^ _send(keys, device)[:, None]
    for shift, factor in ((15, 0x2C1B3C6D), (12, 0x297A2D39), (15, 0x2C1B3C6D)):
        x = (x ^ (x >> shift)) * factor
    x = x ^ (x >> 13)
    quantile = torch.special.ndtri((torch.arange(1024, device=device, dtype=torch.float64) + 0.5) / 1024).float()
    bits = torch.stack([(x >> shift) & 1023 for shift in (0, 10, 20)], 1)
    return quantile.index_select(0, bits.view(-1)).view(-1, 3, height, width)
