"""Spring (Mehl et al., CVPR 2023)."""

import os

from maskflownet.reader.dataset import FlowDataset, Pair, list_folder, list_numbers


class Spring(FlowDataset):
    """``{train,test}/%04d/frame_CAMERA/frame_CAMERA_%04d.png``, ``train/%04d/flow_VERSION/flow_VERSION_%04d.flo5``.

    A version is a direction of time, FW or BW, and a CAMERA, left or right. FW leads from frame n to n + 1, BW to
    n - 1. The parts are downloaded one by one: a config's ``passes`` names the versions to train on; validation skips
    those that the root lacks.

    Assumed from the paper, as no file was at hand: pictures are 1080x1920; a label is the data set ``flow`` of an HDF5
    file, 2160x3840, in px of the picture, not a number where there is none. Training takes the upper left of the four
    values of a pixel; `maskflownet.inference.metrics.best_fitting` is the rule of validation.
    """

    name = "spring"
    splits = ("all", "test")
    versions = ("FW_left", "FW_right", "BW_left", "BW_right")
    validation = "all"
    measured = ("all",)
    label_scale = 2
    counts = {(s, v): n for v in versions for s, n in (("all", 4963), ("test", 990))}

    @classmethod
    def lacks(cls, root, split, version):
        top = _top(root, split)
        needed = [f"frame_{version[3:]}", *([f"flow_{version}"] if split == "all" else [])]
        if not os.path.isdir(top):
            return f"{top} does not exist"
        sequences = list_folder(top)
        lost = [name for name in needed if not any(os.path.isdir(os.path.join(top, s, name)) for s in sequences)]
        return f"{top} holds no {lost[0]}" if lost else None

    def list_pairs(self, root, split, version):
        direction, camera = version.split("_")
        top, step = _top(root, split), 1 if direction == "FW" else -1
        for sequence in list_folder(top):
            images, labels = (os.path.join(top, sequence, kind) for kind in (f"frame_{camera}", f"flow_{version}"))
            frames = [number for (number,) in list_numbers(images, rf"frame_{camera}_(\d{{4}})\.png")]
            numbers = set(frames[:-1] if step == 1 else frames[1:])
            if split == "all":
                numbers |= {number for (number,) in list_numbers(labels, rf"flow_{version}_(\d{{4}})\.flo5")}
            for number in sorted(numbers):
                paths = (os.path.join(images, f"frame_{camera}_{n:04d}.png") for n in (number, number + step))
                name = f"flow_{version}/flow_{version}_{number:04d}"
                label = os.path.join(top, sequence, f"{name}.flo5") if split == "all" else None
                yield Pair(f"{sequence}/{name}", *paths, label)


def _top(root: str | os.PathLike, split: str) -> str:
    return os.path.join(root, "test" if split == "test" else "train")
