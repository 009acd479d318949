"""KITTI flow 2012 (Geiger et al., CVPR 2012) and 2015 (Menze and Geiger, CVPR 2015), and HD1K in the same format.

HD1K: Kondermann et al., CVPR Workshops 2016.
"""

import os

from maskflownet.errors import UserError
from maskflownet.reader.dataset import FlowDataset, Pair, list_numbers

IMAGES = {2012: "colored_0", 2015: "image_2"}
VAL = {
    2012: (
        *(0, 12, 15, 16, 17, 18, 24, 30, 38, 39, 42, 50, 54, 59, 60, 61, 77, 78, 81, 89),
        *(97, 101, 107, 121, 124, 142, 145, 146, 152, 154, 155, 158, 159, 160, 164, 182),
        *(183, 184, 190),
    ),
    2015: (
        *(10, 11, 12, 25, 26, 30, 31, 40, 41, 42, 46, 52, 53, 72, 73, 74, 75, 76, 80, 81),
        *(85, 86, 95, 96, 97, 98, 104, 116, 117, 120, 121, 126, 127, 153, 172, 175, 183),
        *(184, 190, 199),
    ),
}
HD1K_VAL = 5  # sequence


class Kitti(FlowDataset):
    """Both years: ``{training,testing}/IMAGES/%06d_{10,11}.png``, ``training/flow_{occ,noc}/%06d_10.png``.

    IMAGES is ``colored_0`` in 2012 and ``image_2`` in 2015. ``flow_noc`` is read where it exists.
    The root holds a folder of each year, or is one year's own folder.
    """

    name = "kitti"
    splits = ("train", "val", "all", "test")
    versions = (2012, 2015)
    counts = {("all", 2012): 194, ("test", 2012): 195, ("all", 2015): 200, ("test", 2015): 200}

    @classmethod
    def lacks(cls, root, split, version):
        if version not in held_years(root):
            return f"{root} does not hold KITTI {version}"
        testing = os.path.join(_year_folder(root, version), "testing")
        return f"{testing} does not exist" if split == "test" and not os.path.isdir(testing) else None

    def list_pairs(self, root, split, version):
        years = held_years(root)
        if version not in years:
            raise UserError(f"{root} holds KITTI {years[0]} only, not {version}")
        top = os.path.join(_year_folder(root, version), "testing" if split == "test" else "training")
        images, occ, noc = (os.path.join(top, name) for name in (IMAGES[version], "flow_occ", "flow_noc"))
        numbers = set(list_numbers(images, r"(\d{6})_1[01]\.png"))
        if split != "test":
            numbers |= set(list_numbers(occ, r"(\d{6})_10\.png"))
        for (number,) in sorted(numbers):
            if split in ("train", "val") and (number in VAL[version]) != (split == "val"):
                continue
            first, second = f"{number:06d}_10.png", f"{number:06d}_11.png"
            pair = Pair(f"{version}/{number:06d}", os.path.join(images, first), os.path.join(images, second))
            if split != "test":
                visible = os.path.join(noc, first) if os.path.isdir(noc) else None
                pair = pair._replace(flow=os.path.join(occ, first), noc=visible)
            yield pair


class Kitti2012(Kitti):
    name = "kitti2012"
    versions = (2012,)
    measured = ("train", "val")


class Kitti2015(Kitti):
    name = "kitti2015"
    versions = (2015,)
    measured = ("train", "val")


def _year_folder(root: str | os.PathLike, year: int) -> str:
    folder = os.path.join(root, str(year))
    return folder if os.path.isdir(folder) else os.fspath(root)


def held_years(root: str | os.PathLike) -> list[int]:
    """Return which of 2012 and 2015 a root holds: as folders, or one year's pictures directly.

    A UserError where it holds neither, or both years' pictures directly: their labels share names.
    """
    years = [year for year in IMAGES if os.path.isdir(os.path.join(root, str(year)))]
    if years:
        return years
    parts = [os.path.join(root, part) for part in ("training", "testing")]
    years = [year for year in IMAGES if any(os.path.isdir(os.path.join(part, IMAGES[year])) for part in parts)]
    if len(years) > 1:
        raise UserError(f"{root} mixes the files of KITTI 2012 and 2015: each year needs its folder")
    if not years:
        raise UserError(
            f"{root} holds no KITTI: neither a folder 2012 or 2015 "
            "nor training/colored_0 (2012) or training/image_2 (2015)"
        )
    return years


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
            if split != "all" and (sequence == HD1K_VAL) != (split == "val"):
                continue
            if last.get(sequence) == frame:
                self.left_out += (sequence, frame) in labelled
                continue
            name, partner = (f"{sequence:06d}_{number:04d}.png" for number in (frame, frame + 1))
            paths = os.path.join(images, name), os.path.join(images, partner), os.path.join(labels, name)
            yield Pair(name[: -len(".png")], *paths)
