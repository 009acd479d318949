"""The report's page as text: what is in it, how it is written, what it costs."""

import tracemalloc
from html.parser import HTMLParser

import numpy as np
from maskflownet.settings.cli import run

import main
from tests.known_engine import KnownEngine
from tests.report_sets import MemorySet, known_error, reported
from tests.trees import make_pairs

HOSTILE = '</script><script>x()</script><img src=x onerror="x()">&amp;\''


class Page(HTMLParser):
    """What the tests look at, of a page that must close what it opens."""

    VOID = {"meta", "link", "img", "input", "wbr"}

    def __init__(self, path):
        super().__init__()
        self.open, self.tags, self.rows, self.text, self.pictures = [], [], [], [], {}
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        if tag not in self.VOID:
            self.open.append((tag, attrs))
        if tag == "tr" and "data-id" in attrs:
            self.rows.append(attrs)

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        tag, attrs = self.open[-1] if self.open else ("", {})
        if attrs.get("type") == "image/webp":
            self.pictures[attrs["id"]] = data
        elif tag not in ("style", "script"):
            self.text.append(data)

    def ids(self):
        return [row["data-id"] for row in self.rows]

    def pictured(self):
        return [row["data-id"] for row in self.rows if "data-bare" not in row]


def report_on(sets, folder, **kwargs):
    engine = KnownEngine(known_error)
    totals = reported(sets, folder, engine, {"Network": "<b>"}, **kwargs)
    return totals, engine, folder / "8ca_5.html"


def test_the_page_holds_everything_worst_first(tmp_path):
    sets = {"a.clean": MemorySet([1, 3, 0.5]), "b": MemorySet([2, 9], noc=True)}
    totals, engine, path = report_on(sets, tmp_path)
    assert engine.asked == [(True, False)] * 5
    page = Page(path)
    assert page.ids() == ["1-1", "0-1", "1-0", "0-0", "0-2"] == page.pictured()
    names = ["frame", "flow", "truth", "error", "mask", "occlusion"]
    assert list(page.pictures) == [f"p{i}-{name}" for i in page.ids() for name in names]
    text = "".join(page.text)
    for name, total in totals.items():
        assert name in text
        for shown in (f"{total['epe']:.3f}", f"{total['epe.pooled']:.3f}", f"{100 * total['fl']:.2f}"):
            assert shown in text  # as `--valid` prints them
    assert "<b>" in text  # a fact, escaped
    assert sorted(p.name for p in tmp_path.iterdir()) == [*("8ca.val.log", "8ca_5.csv", "8ca_5.html", "8ca_5.json")]


def test_the_page_needs_no_network_and_runs_no_foreign_script(tmp_path):
    names = [HOSTILE, "plain"]
    *_, path = report_on({HOSTILE: MemorySet([1, 2], names)}, tmp_path)
    page = Page(path)
    for tag, attrs in page.tags:
        assert not {name for name in attrs if name.startswith("on")}
        for name in ("src", "href", "action", "srcset"):
            assert attrs.get(name, "data:").startswith("data:"), (tag, attrs)
    assert "://" not in path.read_text(encoding="utf-8")
    assert sum(tag == "script" and "type" not in attrs for tag, attrs in page.tags) == 1
    policy = next(a["content"] for t, a in page.tags if "http-equiv" in a)
    assert "default-src 'none'" in policy
    assert HOSTILE in "".join(page.text)


def test_only_the_worst_of_each_set_have_pictures(tmp_path):
    errors = [*range(20), *range(20, 0, -1)]
    sets = {"up": MemorySet(errors[:20]), "down": MemorySet(errors[20:])}
    *_, path = report_on(sets, tmp_path, images=7)
    page = Page(path)
    assert len(page.ids()) == 40
    assert sorted(page.pictured()) == sorted(f"{s}-{i}" for s, i in [(0, 19), (0, 18), (0, 17)]) + ["1-0", "1-1", "1-2"]
    assert {i.split("-frame")[0][1:] for i in page.pictures if i.endswith("frame")} == set(page.pictured())
    assert "The 6 worst of 40" in "".join(page.text)
    smallest = Page(report_on(sets, tmp_path, images=1)[2])
    assert sorted(smallest.pictured()) == ["0-19", "1-0"]


def test_what_is_no_number_is_worst(tmp_path):
    wild = KnownEngine(lambda *images: known_error(*images) * (np.nan if images[0][0, 0, 2] == 1 else 1))
    with np.errstate(invalid="ignore"):
        reported({"a": MemorySet([9, 1, 3])}, tmp_path, wild, images=1)
    page = Page(tmp_path / "8ca_5.html")
    assert page.ids() == ["0-1", "0-0", "0-2"]
    assert page.pictured() == ["0-1"]
    assert "no number" in "".join(page.text)


def test_memory_does_not_grow_with_the_number_of_images(tmp_path):
    class Noisy(MemorySet):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            image = np.random.default_rng(index).integers(0, 256, sample.img1.shape, np.uint8)
            image[0, 0] = sample.img1[0, 0]
            return sample._replace(img1=image)

    def peak(count):
        dataset = Noisy([i % 7 for i in range(count)], size=(128, 256))
        tracemalloc.start()
        try:
            *_, path = report_on({"a": dataset}, tmp_path)
            return tracemalloc.get_traced_memory()[1], path.stat().st_size
        finally:
            tracemalloc.stop()

    peak(16)  # what is imported and cached once
    # How many pictures are being drawn at the peak is chance, and more with more images, up to a
    # bound; what grows is there in every run.
    few, small = max(peak(40), peak(40))
    many, large = peak(160)
    if many - few >= 0.25 * (large - small):
        many, large = peak(160)
    assert large - small > 6e6  # chance differs by less than 1e6
    assert many - few < 0.25 * (large - small)


def test_the_program_writes_it_beside_the_log(random_checkpoints, tmp_path, capsys):
    pairs = make_pairs(tmp_path / "pairs", unlabelled=False)
    checkpoint = random_checkpoints["MaskFlownet_S"]
    arguments = ["MaskFlownet_S", "--valid", "--report", "--report_width", "64", "-c"]
    arguments += [str(checkpoint), "--data_root", f"pairs={pairs}", "--output_root", str(tmp_path)]
    assert run(main.main, arguments) == 0
    path = tmp_path / "logs" / "val" / "MaskFlownet_S_0.html"
    assert f"wrote {path}" in capsys.readouterr().out
    page = Page(path)
    assert len(page.ids()) == 5
    assert {"MaskFlownet_S.params", "torch on the CPU (no -g), float32"} <= set(page.text)
    assert '"width":64,' in path.read_text(encoding="utf-8")
