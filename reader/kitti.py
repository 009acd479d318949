"""KITTI flow 2012 (Geiger et al., CVPR 2012) and 2015 (Menze and Geiger, CVPR 2015)."""

from __future__ import annotations

import os

from maskflownet.errors import DataError
from maskflownet.reader.dataset import FlowDataset, Pair, list_numbers

SPLITS = ("train", "val", "all", "test")
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


class Kitti(FlowDataset):
    """One year of KITTI: ``{training,testing}/IMAGES/%06d_{10,11}.png`` and the training labels.

    IMAGES is ``colored_0`` in 2012 and ``image_2`` in 2015. The label is
    ``training/flow_occ/%06d_10.png``; ``noc`` gives the mask of ``training/flow_noc`` where that
    folder exists.

    Parameters
    ----------
    root : path
        Folder with both years, see `year_folder`, or one year's own folder.
    year : {2012, 2015}
        Which of the two sets.
    split : {"train", "val", "all", "test"}
        155, 39, 194 and 195 pairs in 2012; 160, 40, 200 and 200 in 2015. ``test`` has no labels
        and is read from ``testing``, everything else from ``training``.

    Raises
    ------
    DataError
        A folder or a file is missing.
    """

    def __init__(self, root: str | os.PathLike, year: int = 2015, split: str = "all"):
        if split not in SPLITS:
            raise DataError(f"{root}: KITTI has no split {split!r}, only {', '.join(SPLITS)}")
        self.year = year
        top = os.path.join(year_folder(root, year), "testing" if split == "test" else "training")
        images = os.path.join(top, IMAGES[year])
        labels = [os.path.join(top, name) for name in ("flow_occ", "flow_noc")]
        numbers = set(list_numbers(images, r"(\d{6})_1[01]\.png"))
        if split != "test":
            numbers |= set(list_numbers(labels[0], r"(\d{6})_10\.png"))
        pairs = []
        for (number,) in sorted(numbers):
            if split in ("train", "val") and (number in VAL[year]) != (split == "val"):
                continue
            first, second = (os.path.join(images, f"{number:06d}_{n}.png") for n in (10, 11))
            pair = Pair(f"{year}/{number:06d}", first, second)
            if split != "test":
                occ, noc = (os.path.join(folder, f"{number:06d}_10.png") for folder in labels)
                pair = pair._replace(flow=occ, noc=noc if os.path.isdir(labels[1]) else None)
            pairs.append(pair)
        super().__init__(root, pairs)


def year_folder(root: str | os.PathLike, year: int) -> str:
    """Return the folder of one year that holds ``training`` and ``testing``.

    That is ``ROOT/2012`` and ``ROOT/2015`` where they exist. Otherwise the root itself is taken for
    the year whose pictures it holds: ``colored_0`` for 2012, ``image_2`` for 2015. One root cannot
    hold both years' pictures directly, as their labels share folder and file names.

    Raises
    ------
    DataError
        There is no such year, or the root does not hold it.
    """
    if year not in IMAGES:
        raise DataError(f"{root}: KITTI has no flow set of the year {year}, only 2012 and 2015")
    years = held_years(root)
    if year not in years:
        raise DataError(f"{root} holds KITTI {years[0]} only, not {year}")
    folder = os.path.join(root, str(year))
    return folder if os.path.isdir(folder) else os.fspath(root)


def held_years(root: str | os.PathLike) -> list[int]:
    """Return which of 2012 and 2015 a root holds.

    Raises
    ------
    DataError
        It holds neither, or the pictures of both years without a folder for each.
    """
    years = [year for year in IMAGES if os.path.isdir(os.path.join(root, str(year)))]
    if years:
        return years
    for part in ("training", "testing"):
        for year, images in IMAGES.items():
            if year not in years and os.path.isdir(os.path.join(root, part, images)):
                years.append(year)
    if len(years) > 1:
        raise DataError(f"{root} mixes the files of KITTI 2012 and 2015: each year needs its folder")
    if not years:
        raise DataError(
            f"{root} holds no KITTI: neither a folder 2012 or 2015 "
            "nor training/colored_0 (2012) or training/image_2 (2015)"
        )
    return years
