"""Flow of two pictures with an exported model: needs numpy, onnxruntime and pillow, nothing else.

python run_onnx.py MODEL.onnx IMAGE_1 IMAGE_2 OUTPUT [--mask MASK.png]

OUTPUT.flo holds the flow itself; any other suffix is that of a picture, whose hue is the direction
and whose saturation is the speed. The mask is white where the first picture is visible in the
second one. The model comes from ``python main.py CONFIG -c CHECKPOINT --export_onnx MODEL.onnx``.
"""

import argparse
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image


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


def read_image(path):
    """(3, H, W) float32, RGB in [0, 1]."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), np.float32).transpose(2, 0, 1) / np.float32(255)


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
    """Colours of a flow (2, H, W): white is rest, the most saturated is the fastest pixel."""
    u, v = flow
    speed = np.hypot(u, v)
    hue = np.arctan2(v, u) / (2 * np.pi) % 1
    hsv = np.stack([hue, speed / max(speed.max(), 1e-6), np.ones_like(hue)], 2)
    return Image.fromarray(np.rint(hsv * 255).astype(np.uint8), "HSV").convert("RGB")


def write_flo(path, flow):
    """Middlebury's format: 202021.25, width, height, then u and v of each pixel, row by row."""
    with open(path, "wb") as file:
        file.write(np.float32(202021.25).tobytes())
        file.write(np.array(flow.shape[:0:-1], "<i4").tobytes())
        file.write(flow.transpose(1, 2, 0).astype("<f4").tobytes())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("model", "image_1", "image_2", "output"):
        parser.add_argument(name)
    parser.add_argument("--mask", help="where to write the mask, a picture")
    args = parser.parse_args()
    for name in (args.model, args.image_1, args.image_2):
        if not Path(name).is_file():
            parser.error(f"there is no file {name}")
    image_1, image_2 = read_image(args.image_1), read_image(args.image_2)
    if image_1.shape != image_2.shape:
        parser.error("the pictures differ in size")
    providers = onnxruntime.get_available_providers()  # the fastest of this machine first
    session = onnxruntime.InferenceSession(args.model, providers=providers)
    flow, mask = predict(session, image_1, image_2)
    if args.output.lower().endswith(".flo"):
        write_flo(args.output, flow)
    else:
        draw(flow).save(args.output)
    if args.mask:
        Image.fromarray(np.rint(mask[0] * 255).astype(np.uint8)).save(args.mask)
    speed = np.hypot(*flow)
    print(f"wrote {args.output}: the speed is {speed.mean():.1f} px on average, at most "
          f"{speed.max():.1f} px")  # fmt: skip


if __name__ == "__main__":
    main()
