"""MPI Sintel (Butler et al., ECCV 2012)."""

import os
from pathlib import Path

from maskflownet.reader.dataset import FlowDataset, Pair, list_folder, list_numbers, read_split

# One line per pair of the sorted training sequences.
SPLIT_FILE = Path(__file__).resolve().parent.parent / "Sintel_train_val_maskflownet.txt"
LINES = {"train": "1", "val": "2"}
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
    counts = {
        (split, version): count
        for version in ("clean", "final")
        for split, count in (("train", 816), ("val", 225), ("test", 552))
    }

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
        if split in LINES:
            lines = read_split(SPLIT_FILE, len(pairs))
            return [pair for pair, line in zip(pairs, lines) if line == LINES[split]]
        return pairs


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
