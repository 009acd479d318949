"""The page in a browser, as a visitor uses it: pictures, camera, video, and files that are none."""

import os
import re
import socket
import subprocess
import sys

import maskflownet
import numpy as np
import pytest
from maskflownet import app
from maskflownet.reader.formats import read_flow, read_image, write_image
from maskflownet.settings.cli import run
from maskflownet.settings.folders import PACKAGE

from tests.trees import picture
from tests.videos import make

EXAMPLE = [PACKAGE / "examples" / f"example_{i}.png" for i in (1, 2)]
ENGINE = ["MaskFlownet_S", "--engine", "torch"]
WIDTHS = pytest.mark.parametrize("width", [1280, 390])


def test_arrows_are_as_long_as_the_motion_and_stay_in_place():
    flow = np.zeros((48, 72, 2), np.float32)
    flow[:, :48] = 10, 0
    drawing = app.arrows(np.zeros((48, 72, 3), np.uint8), flow)
    red = (drawing[..., 0] > 150).nonzero()
    assert drawing[0, 0].tolist() == [128] * 3
    assert {12, 36} <= set(red[0]) and (np.abs(red[0] % 24 - 12) <= 4).all()
    assert (drawing[12, 12:23, 0] > 150).all() and not (drawing[12, 24:36, 0] > 150).any()


@pytest.mark.parametrize(("size", "even", "wanted"), [((97, 161), 0, (97, 161)), ((97, 161), 1, (96, 160))])
def test_pictures_are_reduced_where_they_are_large(size, even, wanted):
    assert app.reduced(np.zeros((*size, 3), np.uint8), even).shape == (*wanted, 3)
    height, width = app.reduced(np.zeros((3000, 4000, 3), np.uint8), even).shape[:2]
    assert app.LARGEST * 0.99 < height * width <= app.LARGEST and width / height == pytest.approx(4 / 3, rel=0.01)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--port", "0"], "'0' is not a port from 1 to 65535"),
        (["--host", "no.such.host.invalid"], "cannot listen on no.such.host.invalid: "),
        (["--port", "{taken}"], "cannot listen on 127.0.0.1, port {taken}: Address already in use"),
        (["NoConfig"], "no config NoConfig"),
    ],
)
def test_what_cannot_be_is_one_sentence(arguments, message, capsys):
    pytest.importorskip("gradio", reason="Gradio is not installed")
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        assert run(app.main, [argument.format(taken=taken) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert message.format(taken=taken) in error and error.count("\n") == 1


def test_without_gradio_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(app, "gr", None)
    assert run(app.main, []) == 2
    assert "pip install gradio" in capsys.readouterr().err


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """Of a running page; afterwards it has left nothing, not among temporary files either."""
    pytest.importorskip("gradio", reason="Gradio is not installed")
    pytest.importorskip("torch", reason="PyTorch is not installed")
    folder = tmp_path_factory.mktemp("app")
    command = [sys.executable, "-m", "maskflownet.app", *ENGINE]
    environment = {**os.environ, "TMPDIR": str(folder)}
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as program:
        yield re.search(r"http://127\.0\.0\.1:\d+/", program.stdout.readline()).group()
        program.terminate()
        assert program.wait(30) == 130
    assert not [path for path in folder.rglob("*") if path.is_file()]


def start(page):
    page.get_by_role("button", name="Show the flow").locator("visible=true").click()


def give(page, files, tab):
    page.reload()
    page.get_by_role("tab", name=tab).click()
    inputs = page.locator(".tabitem").locator("visible=true").locator("input[type=file]")
    for index, file in enumerate(files):
        inputs.nth(index).set_input_files(file)
        page.locator(f"[src*='{file.name}'], [href*='{file.name}']").wait_for(state="attached")
    start(page)


def downloaded(page, suffix):
    with page.expect_download() as download:
        page.get_by_role("button", name=f"Download {suffix}").click()
    path = download.value.path().with_suffix(suffix)
    download.value.save_as(path)
    return path


@WIDTHS
def test_a_pair_with_its_views_values_and_downloads(visit, width):
    page = visit(width)
    start(page)
    page.get_by_text("consistent.").wait_for()
    expected = maskflownet.load(ENGINE[0], engine="torch")(*EXAMPLE, confidence=True)
    flow, _ = read_flow(downloaded(page, ".flo"))
    np.testing.assert_allclose(flow, expected.flow, atol=0.01)

    image = page.locator("#view img")
    box = image.bounding_box()
    x, y = (np.array([300, 100]) * box["width"] / 512).tolist()
    image.tap(position={"x": x, "y": y}) if width < 500 else image.hover(position={"x": x, "y": y})
    value = page.locator("#value", has_text="length")
    x, y, u, v, length, visible = (float(n) for n in re.findall(r"[-+]?\d+\.?\d*", value.inner_text()))
    assert abs(x - 300) <= 2 and abs(y - 100) <= 2
    np.testing.assert_allclose([u, v], flow[int(y), int(x)], atol=0.006)
    assert length == pytest.approx(np.hypot(u, v), abs=0.02)
    assert visible == pytest.approx(100 * expected.mask[int(y), int(x), 0], abs=1)
    consistent = expected.confidence[int(y), int(x), 0] > 0.5
    assert value.inner_text().endswith("; consistent" if consistent else "; not consistent")

    pictures = {
        "Colours": maskflownet.flow_to_colour(expected.flow),
        "Arrows": app.arrows(read_image(EXAMPLE[0]), flow),
    }
    pictures |= {name: np.rint(255 * getattr(expected, name.lower())) for name in ("Mask", "Confidence", "Warped")}
    for name, wanted in pictures.items():
        before = image.get_attribute("src")
        page.get_by_label(name, exact=True).locator("visible=true").check()
        if name != "Colours":
            page.wait_for_function("before => document.querySelector('#view img').src != before", arg=before)
        assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") == 512
        assert np.abs(read_image(downloaded(page, ".png")) - wanted).mean() < 1, name
    assert page.evaluate("document.documentElement.scrollWidth") == width


@WIDTHS
def test_the_camera_is_shown_live_and_ends_when_it_is_left(visit, width):
    page = visit(width)
    page.get_by_role("tab", name="Camera").click()
    page.get_by_text("Click to Access Webcam").click()
    page.get_by_role("button", name="capture photo").click()
    said = page.get_by_text("full colour is")
    said.wait_for()
    first = said.inner_text()
    page.wait_for_function("first => !document.body.innerText.includes(first)", arg=first)
    page.wait_for_function("document.querySelector('#view img').naturalWidth > 0")
    assert read_flow(downloaded(page, ".flo"))[0].shape[2] == 2
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.get_by_role("tab", name="Two pictures").click()  # which stops the camera: the pair does not wait for it
    start(page)
    page.get_by_text("consistent.").wait_for(timeout=25_000)


@WIDTHS
def test_a_video_becomes_one_that_plays(visit, width, tmp_path):
    page = visit(width)
    give(page, [make(tmp_path / "in.mp4", 4, height=65, width=129)], "Video")
    page.get_by_text("3 pairs of 64x128 px (reduced from 65x129)").wait_for()
    page.wait_for_function("document.querySelector('video')?.readyState >= 2")
    assert page.locator("video").evaluate("it => [it.videoWidth, it.videoHeight, it.error]") == [128, 64, None]
    assert not page.locator("#view").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_a_bad_file_gets_its_sentence(visit, tmp_path):
    page = visit(390)
    (tmp_path / "cut.png").write_bytes(EXAMPLE[0].read_bytes()[:20000])
    (tmp_path / "text.mp4").write_text("no video")
    write_image(tmp_path / "small.png", picture(0))
    make(tmp_path / "long.mp4", app.MOST + 2, height=16, width=16)

    def said(text):
        message = page.locator(".toast-body", has_text=text)
        message.wait_for()
        message.get_by_label("Close").click()
        message.wait_for(state="detached")

    page.get_by_role("button", name="Download .flo").click()
    said("there is nothing to download yet")
    page.get_by_label("Remove Image").last.click()
    start(page)
    said("choose two pictures first")
    give(page, [tmp_path / "cut.png", EXAMPLE[1]], "Two pictures")
    said("cannot read cut.png: the PNG ends early")
    give(page, [EXAMPLE[0], tmp_path / "small.png"], "Two pictures")
    said("example_1.png and small.png differ in size: 384x512 and 64x128")
    give(page, [tmp_path / "text.mp4"], "Video")
    said("cannot read text.mp4 as a video")
    give(page, [tmp_path / "long.mp4"], "Video")
    said(f"long.mp4 has {app.MOST + 2} frames and this page takes {app.MOST + 1}")
