"""Rendered films: MPI Sintel (Butler et al., ECCV 2012) and Spring (Mehl et al., CVPR 2023)."""

import os
from pathlib import Path

from maskflownet.reader.dataset import FlowDataset, Pair, list_folder, list_numbers, part_of

# One line per pair of the sorted training sequences.
SPLIT_FILE = Path(__file__).resolve().parent.parent / "Sintel_train_val_maskflownet.txt"
TITLES = {"all": "training", "train": "training1", "val": "training2"}  # as in the released logs


class Sintel(FlowDataset):
    """``{training,test}/{clean,final}/SEQ/frame_%04d.png`` and the training labels.

    Labels are ``training/flow/SEQ/frame_%04d.flo``; ``training/invalid/SEQ/frame_%04d.png`` is 255
    where they must not be used. ``training/occlusions`` is read where it exists.
    """

    name = "sintel"
    splits = ("train", "val", "all", "test")
    versions = ("clean", "final")
    measured = ("train", "val")
    counts = {(s, v): n for v in versions for s, n in (("train", 816), ("val", 225), ("test", 552))}

    @classmethod
    def validation_of(cls, network_class):
        # The first stages of MaskFlownet_S do not train on Sintel; the third says `val`.
        return "all" if network_class == "MaskFlownet_S" else "val"

    @classmethod
    def title(cls, split, version):
        return f"sintel.{TITLES[split]}.{version}"

    @classmethod
    def lacks(cls, root, split, version):
        test = os.path.join(root, "test")
        return f"{test} does not exist" if split == "test" and not os.path.isdir(test) else None

    def list_pairs(self, root, split, version):
        pairs = list(_list(root, version, labelled=split != "test"))
        return part_of(pairs, split, SPLIT_FILE) if split in ("train", "val") else pairs


def _list(root: str, version: str, labelled: bool):
    top = os.path.join(root, "training" if labelled else "test")
    occlusions = os.path.isdir(os.path.join(top, "occlusions"))
    sequences = set(list_folder(os.path.join(top, version)))
    if labelled:
        sequences |= set(list_folder(os.path.join(top, "flow")))
    for sequence in sorted(sequences):
        images = os.path.join(top, version, sequence)
        frames = list_numbers(images, r"frame_(\d{4})\.png")
        numbers = {number for (number,) in frames[:-1]}
        if labelled:
            labels = list_numbers(os.path.join(top, "flow", sequence), r"frame_(\d{4})\.flo")
            numbers |= {number for (number,) in labels}
        for number in sorted(numbers):
            name, following = (f"frame_{n:04d}" for n in (number, number + 1))
            paths = os.path.join(images, f"{name}.png"), os.path.join(images, f"{following}.png")
            pair = Pair(f"{version}/{sequence}/{name}", *paths)
            if labelled:
                pair = pair._replace(
                    flow=os.path.join(top, "flow", sequence, f"{name}.flo"),
                    invalid=os.path.join(top, "invalid", sequence, f"{name}.png"),
                    occlusion=os.path.join(top, "occlusions", sequence, f"{name}.png") if occlusions else None,
                )
            yield pair


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
