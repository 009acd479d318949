"""HD1K (Kondermann et al., CVPR Workshops 2016)."""

import os

from maskflownet.reader.dataset import FlowDataset, Pair, list_numbers

VAL_SEQUENCE = 5


class HD1K(FlowDataset):
    """``hd1k_input/image_2/%06d_%04d.png``, ``hd1k_flow_gt/flow_occ/%06d_%04d.png``: sequence, frame.

    A pair is a frame and the next one of the same sequence; the label of a sequence's last frame
    has no partner and is left out. Sequence 5 is the validation part.
    """

    name = "hd1k"
    measured = ("val",)
    unit = "sequences"
    counts = {("train", None): 35, ("val", None): 1}

    def count(self):
        return len({pair.name.split("_")[0] for pair in self.pairs})

    def list_pairs(self, root, split, version):
        images = os.path.join(root, "hd1k_input", "image_2")
        labels = os.path.join(root, "hd1k_flow_gt", "flow_occ")
        frames = list_numbers(images, r"(\d{6})_(\d{4})\.png")
        last = dict(frames)  # sequence -> its last frame, as the list is sorted
        labelled = set(list_numbers(labels, r"(\d{6})_(\d{4})\.png"))
        for sequence, frame in sorted(labelled | set(frames)):
            if split != "all" and (sequence == VAL_SEQUENCE) != (split == "val"):
                continue
            if last.get(sequence) == frame:
                self.left_out += (sequence, frame) in labelled
                continue
            name, partner = (f"{sequence:06d}_{number:04d}.png" for number in (frame, frame + 1))
            paths = os.path.join(images, name), os.path.join(images, partner), os.path.join(labels, name)
            yield Pair(name[: -len(".png")], *paths)
