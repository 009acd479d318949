"""FlyingChairs (Dosovitskiy et al., FlowNet, ICCV 2015) and whatever is stored in its layout."""

import os

from maskflownet.reader.dataset import FlowDataset, Pair, list_numbers, read_split

SPLIT_FILE = "FlyingChairs_train_val.txt"
LINES = {"train": ("1",), "val": ("2",), "all": ("1", "2")}


class Chairs(FlowDataset):
    """``data/%05d_img1.ppm``, ``_img2.ppm``, ``_flow.flo``, and the split file with a line per pair.

    A synthetic set in this layout has ``_occ.png`` besides, 255 = occluded.
    """

    name = "chairs"
    measured = ("val",)
    counts = {("train", None): 22232, ("val", None): 640}

    @classmethod
    def expected(cls, root):
        # What maskflownet.tools.synthetic has written has any length.
        synthetic = os.path.isfile(os.path.join(root, "synthetic.json"))
        return {("all", None): None} if synthetic else cls.counts

    def list_pairs(self, root, split, version):
        data = os.path.join(root, "data")
        numbers = list_numbers(data, r"(\d{5,})_(?:img1\.ppm|img2\.ppm|flow\.flo)")
        lines = read_split(os.path.join(root, SPLIT_FILE), len(numbers))
        occlusions = set(list_numbers(data, r"(\d{5,})_occ\.png"))
        for (number,), line in zip(numbers, lines):
            if line in LINES[split]:
                stem = os.path.join(data, f"{number:05d}")
                occlusion = f"{stem}_occ.png" if (number,) in occlusions else None
                files = (f"{stem}_img1.ppm", f"{stem}_img2.ppm", f"{stem}_flow.flo")
                yield Pair(f"{number:05d}", *files, occlusion=occlusion)
