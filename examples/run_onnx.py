"""Flow of two pictures with an exported model: needs numpy, onnxruntime and opencv, nothing else.

python run_onnx.py MODEL.onnx IMAGE_1 IMAGE_2 OUTPUT [--mask MASK.png]

OUTPUT.flo holds the flow itself; any other suffix is that of a picture, whose hue is the direction
and whose saturation is the speed. The mask is white where the first picture is visible in the
second one. The model comes from ``python main.py CONFIG -c CHECKPOINT --export MODEL.onnx``.
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
import onnxruntime


def resize(x, height, width):
    """Bilinear, corners aligned, as the network's own engines do: (..., h, w) float32."""

    def along_last_axis(x, size):
        last = x.shape[-1] - 1
        place = np.arange(size, dtype=np.float32) * np.float32(last / max(size - 1, 1))
        left = np.minimum(np.floor(place), last)
        right = np.minimum(left + 1, last)
        low, high = x[..., left.astype(int)], x[..., right.astype(int)]
        return low + (high - low) * (place - left)

    return along_last_axis(along_last_axis(x, width).swapaxes(-1, -2), height).swapaxes(-1, -2)


def ends_early(data):
    """Whether the bytes are a JPEG without the marker that ends it: OpenCV shows what is left."""
    place = 2
    while data[:2] == b"\xff\xd8" and data[place + 1 : place + 2] not in (b"\xda", b""):  # a thumbnail has an end, too
        filled = data[place + 1] == 255  # a byte that only fills
        place += 1 if filled else 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return data[:2] == b"\xff\xd8" and b"\xff\xd9" not in data[place:]


def read_images(paths):
    """(3, H, W) float32 each, RGB in [0, 1], upright. 16 bit are scaled as `maskflownet.reader.formats` does."""
    for path in paths:
        if ends_early(Path(path).read_bytes()):
            raise ValueError(f"cannot read {path}: the JPEG ends early")
    images = [cv2.imread(path, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH) for path in paths]
    ends = [np.percentile(i, (0.1, 99.9), method="nearest") for i in images if i is not None and i.dtype == np.uint16]
    if ends:
        low, high = int(min(e[0] for e in ends)), int(max(e[1] for e in ends))
        bits = max(8, high.bit_length())
        full = 65535 if bits == 16 else 255 << (bits - 8)
        low, high = (low, high) if low < high < low + full / 4 else (0, full)
    for i, image in enumerate(images):
        if image is None or image.dtype not in (np.uint8, np.uint16):
            raise ValueError(f"cannot read {paths[i]} as a picture of 8 or 16 bit")
        images[i] = image[..., ::-1].transpose(2, 0, 1).astype(np.float32)
        if image.dtype == np.uint16:
            images[i] = np.rint((images[i] - low) * np.float32(255 / (high - low))).clip(0, 255)
        images[i] /= np.float32(255)
    return images


def predict(session, image_1, image_2):
    """Flow (2, H, W), px, (u, v), and mask (1, H, W), 1 = visible, of images (3, H, W)."""
    *_, height, width = session.get_inputs()[0].shape  # the model has one size
    images = [resize(image, height, width)[None] for image in (image_1, image_2)]
    outputs = session.run(["flow", "mask"], dict(zip(("img1", "img2"), images)))
    size = image_1.shape[1:]
    flow, mask = (resize(output[0], *size) for output in outputs)
    flow *= np.array([size[1] / width, size[0] / height], np.float32)[:, None, None]
    return flow, mask


def draw(flow):
    """Colours (H, W, 3) BGR of a flow (2, H, W): white is rest, the most saturated is the fastest pixel."""
    u, v = flow
    speed = np.hypot(u, v)
    hue = np.arctan2(v, u) / (2 * np.pi) % 1
    hsv = np.stack([hue, speed / max(speed.max(), 1e-6), np.ones_like(hue)], 2)
    return cv2.cvtColor(np.rint(hsv * 255).astype(np.uint8), cv2.COLOR_HSV2BGR_FULL)


def write_flo(path, flow):
    """Middlebury's format: 202021.25, width, height, then u and v of each pixel, row by row."""
    with open(path, "wb") as file:
        file.write(np.float32(202021.25).tobytes())
        file.write(np.array(flow.shape[:0:-1], "<i4").tobytes())
        file.write(flow.transpose(1, 2, 0).astype("<f4").tobytes())


def write_picture(path, picture):
    if not (cv2.haveImageWriter(path) and cv2.imwrite(path, picture)):
        raise ValueError(f"cannot write {path}: there is no such folder, no space, or no such format of pictures")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("model", "image_1", "image_2", "output"):
        parser.add_argument(name)
    parser.add_argument("--mask", help="where to write the mask, a picture")
    args = parser.parse_args()
    for name in (args.model, args.image_1, args.image_2):
        if not Path(name).is_file():
            raise ValueError(f"there is no file {name}")
    outputs = [args.output] if args.mask is None else [args.output, args.mask]
    taken = [Path(name).resolve() for name in (args.model, args.image_1, args.image_2)]
    for name in outputs:
        if Path(name).resolve() in taken:
            raise ValueError(f"{name} is an input, or named twice")
        taken.append(Path(name).resolve())
    image_1, image_2 = read_images([args.image_1, args.image_2])
    if image_1.shape != image_2.shape:
        raise ValueError("the pictures differ in size")
    providers = onnxruntime.get_available_providers()  # the fastest of this machine first
    try:
        session = onnxruntime.InferenceSession(args.model, providers=providers)
        flow, mask = predict(session, image_1, image_2)
    except Exception as error:  # onnxruntime has many kinds
        raise ValueError(f"cannot run {args.model}: {error}") from error
    if args.output.lower().endswith(".flo"):
        write_flo(args.output, flow)
    else:
        write_picture(args.output, draw(flow))
    if args.mask:
        write_picture(args.mask, np.rint(mask[0] * 255).astype(np.uint8))
    speed = np.hypot(*flow)
    print(f"wrote {' and '.join(outputs)}: the speed is {speed.mean():.1f} px on average, at most {speed.max():.1f} px")


if __name__ == "__main__":
    try:
        main()
    except Exception as error:  # the last net
        known = isinstance(error, (ValueError, OSError, MemoryError))
        text = " ".join(str(error).split())
        print(f"error: {text if known else f'unexpected {type(error).__name__}: {text}'}", file=sys.stderr)
        sys.exit(2 if known else 1)
