"""A page to try optical flow in a browser: two pictures, the camera or a video; `--help` explains the arguments."""

import os
import re
import socket
import sys
import threading
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp

import cv2
import numpy as np
from maskflownet.engine.contract import ConfidentPrediction
from maskflownet.errors import UserError
from maskflownet.inference.confidence import CONSISTENT_ABOVE, consistency
from maskflownet.inference.new_data import Output, Pair, Video, predict_files, to_picture
from maskflownet.inference.predictor import load
from maskflownet.reader.colour import colour_scale, colour_wheel, largest_motion
from maskflownet.reader.formats import write_flow, write_image
from maskflownet.settings.cli import Parser, add_checkpoint, add_colour, add_devices, number, run, sentence
from maskflownet.settings.folders import PACKAGE

try:
    import gradio as gr
except ImportError:  # main says so
    gr = None

LARGEST = 2**19  # px of a picture; larger ones are reduced, so that time and memory (16 MB a visitor) are bounded
MOST = 300  # pairs of a video, some minutes on two CPU cores
KEPT = 3600  # s, after which files and results are removed
ARROWS = 24  # px between two arrows
VIEWS = {"Colours": "flow", "Arrows": None, "Mask": "mask", "Confidence": "confidence", "Warped": "warped"}
TEXT = """**Colours**: hue is the direction, saturation the speed. **Mask**: white is visible in the second picture.
**Confidence**: white where the flow of the opposite direction leads back. **Warped**: the second picture, moved onto
the first."""
CSS = """#file { display: none } #value { min-height: 3em } #view img { cursor: crosshair }
.gradio-container { max-width: 1100px; margin: auto }"""
# A mouse that moves over the result clicks, ten times a second: `select` then tells the pixel. A finger taps by itself.
HOVER = """<script>
let moved;
addEventListener("pointermove", (event) => { moved = event; });
setInterval(() => {
  if (moved?.pointerType === "mouse" && moved.target.matches("#view img"))
    moved.target.dispatchEvent(new MouseEvent("click", moved));
  moved = null;
}, 100);
</script>"""

# A camera that runs on would keep the device, and show its flow in the place of another.
STOP = "() => [...document.querySelectorAll('#camera button')].find((it) => it.innerText.includes('Stop'))?.click()"


def reduced(image: np.ndarray, even: bool = False) -> np.ndarray:
    """The picture (H, W, 3), with at most LARGEST px; with even sides if asked for."""
    height, width = image.shape[:2]
    factor, step = min(1, (LARGEST / (height * width)) ** 0.5), 1 + even
    size = [max(step, int(side * factor) // step * step) for side in (width, height)]
    return image if size == [width, height] else cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def described(size: tuple[int, int], whole: tuple[int, int]) -> str:
    """Height and width in px, and those before a reduction."""
    text = "{}x{} px".format(*size)
    return text if size == whole else text + " (reduced from {}x{})".format(*whole)


class ShortVideo(Video):
    """A video of limited length whose frames are `reduced`, with even sides, since few browsers play odd H.264."""

    def __init__(self, path):
        super().__init__(path)
        if self.count > MOST:
            most = f"this page takes {MOST + 1}: cut it, or use predict_new_data.py, which has no limit"
            raise UserError(f"{path} has {self.count + 1} frames and {most}")
        self.height, self.width = next(self.frames()).shape[:2]

    def frames(self):
        return map(partial(reduced, even=True), super().frames())


def arrows(image: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Draw the flow (H, W, 2) as arrows, as long as the motion, on the pale picture (H, W, 3)."""
    drawing = 128 + image // 2
    starts = np.mgrid[tuple(slice(ARROWS // 2, side, ARROWS) for side in image.shape[:2])].reshape(2, -1)  # y, x
    for y, x in starts.T:
        ends = np.rint(16 * np.array([(x, y), (x, y) + flow[y, x]])).astype(int).tolist()
        cv2.arrowedLine(drawing, *ends, (200, 0, 60), 1, cv2.LINE_AA, shift=4, tipLength=0.3)
    return drawing


class Result:
    """A pair and what is predicted for it.

    image : (H, W, 3) uint8 RGB, the first picture
    prediction : ConfidentPrediction; its confidence is None until `both_ways`
    """

    def __init__(self, predictor, image_1: np.ndarray, image_2: np.ndarray):
        self.pair = self.image, _ = reduced(image_1), reduced(image_2)
        started = time.perf_counter()
        self.prediction = ConfidentPrediction(*predictor(*self.pair), None)
        seconds, largest = time.perf_counter() - started, float(largest_motion(self.prediction.flow, np))
        size = self.image.shape[:2]
        motion = f"Largest motion {largest:.1f} px; full colour is {colour_scale(largest, *size)} px."
        self.said = f"{described(size, image_1.shape[:2])} in {seconds:.2f} s. {motion}"

    def both_ways(self, predictor) -> None:
        confidence = consistency(self.prediction.flow, predictor(*self.pair[::-1]).flow)
        self.prediction = self.prediction._replace(confidence=confidence[..., None])
        self.said += f" {100 * (confidence > CONSISTENT_ABOVE).mean():.0f} % of the pixels are consistent."

    def drawn(self, view: str) -> np.ndarray | None:
        """The picture (H, W, 3) of a view; None of a confidence that is not known yet."""
        if view == "Arrows":
            return arrows(self.image, self.prediction.flow)
        values = getattr(self.prediction, VIEWS[view])
        return None if values is None else to_picture(VIEWS[view], values, None)

    def at(self, x: int, y: int) -> str:
        """What is known of a pixel."""
        y, x = np.clip((y, x), 0, np.subtract(self.image.shape[:2], 1))
        (u, v), (visible,) = self.prediction.flow[y, x], self.prediction.mask[y, x]
        text = f"x {x}, y {y}: u {u:+.2f}, v {v:+.2f}, length {np.hypot(u, v):.2f} px; visible {100 * visible:.0f} %"
        if self.prediction.confidence is None:
            return text
        return f"{text}; {'' if self.prediction.confidence[y, x] > CONSISTENT_ABOVE else 'not '}consistent"


@contextmanager
def on_page():
    """What a visitor can put right is a sentence on the page, without the folders in which the page keeps files."""
    try:
        yield
    except (UserError, OSError, MemoryError) as error:
        text = re.sub(rf"{re.escape(os.environ['GRADIO_TEMP_DIR'])}/\w+/", "", sentence(error))
        raise gr.Error(text, duration=None, print_exception=False) from error


def new_file(name: str) -> Path:
    return Path(mkdtemp(dir=os.environ["GRADIO_TEMP_DIR"]), name)


def download(suffix: str, result: Result | None, view: str) -> Path:
    """Write the flow (.flo) or the picture that is shown (.png)."""
    picture = result and result.drawn(view)
    with on_page():
        if (result if suffix == ".flo" else picture) is None:
            raise UserError("there is nothing to download yet: show a flow first")
    path = new_file(f"{'flow' if suffix == '.flo' else view.lower()}{suffix}")
    write_flow(path, result.prediction.flow) if suffix == ".flo" else write_image(path, picture)
    return path


def actions(predictor):
    """What the page does with a pair of files, a frame of the camera and a video: three functions."""

    def pair(first, second, view):
        with on_page():
            if not (first and second):
                raise UserError("choose two pictures first")
            result = Result(predictor, *Pair(first, second).images)
            yield result, result.drawn(view), result.said
            result.both_ways(predictor)
            yield result, result.drawn(view), result.said

    def camera(frame, last, view):
        if frame is None or last is None or last.shape != frame.shape:
            return frame, None, None, ""
        with on_page():
            result = Result(predictor, last, frame)
            if view == "Confidence":
                result.both_ways(predictor)
            return frame, result, result.drawn(view), result.said

    def video(path, view, progress=gr.Progress(track_tqdm=True)):  # noqa: B008 - Gradio looks for it there
        with on_page():
            if not path:
                raise UserError("choose a video first")
            output = Output(new_file(f"{view.lower()}.mp4"), VIEWS[view])
            source = ShortVideo(path)
            done = predict_files(predictor, source, [output])
        size = described((source.height, source.width), (source.reader.height, source.reader.width))
        colours = f"; full colour is {done.max_flow} px" if done.max_flow else ""
        motion = f"Largest motion {done.largest:.1f} px{colours}."
        return output.path, f"{done.pairs} pairs of {size} in {done.seconds:.1f} s. {motion}"

    return pair, camera, video


def page(predictor):
    of_pair, of_camera, of_video = actions(predictor)
    with gr.Blocks(title="MaskFlownet", analytics_enabled=False, delete_cache=(KEPT // 6, KEPT)) as blocks:
        gr.Markdown("# MaskFlownet\nThe motion of every pixel from one picture to the next.")
        result, last = gr.State(time_to_live=KEPT), gr.State(time_to_live=KEPT)
        with gr.Tab("Two pictures") as tab_pair:
            with gr.Row():
                pair = [
                    gr.Image(PACKAGE / "examples" / file, label=label, type="filepath", height=260, buttons=[])
                    for file, label in (("example_1.png", "First picture"), ("example_2.png", "Second picture"))
                ]
            for image in pair:  # of a file that Gradio cannot read our own reader says why
                image.preprocess = lambda data: data and data.path
            start_pair = gr.Button("Show the flow", variant="primary")
        with gr.Tab("Camera") as tab_camera:
            size = gr.WebcamOptions(mirror=False, constraints={"video": {"width": 640, "height": 480}})
            look = {"label": "Camera", "height": 260, "elem_id": "camera", "webcam_options": size}
            camera = gr.Image(sources="webcam", streaming=True, **look)
        with gr.Tab("Video") as tab_video:
            video = gr.File(file_types=["video", ".gif"], label="Video or GIF")
            drawing = gr.Radio([view for view in VIEWS if VIEWS[view]], value="Colours", label="Draw")
            start_video = gr.Button("Show the flow", variant="primary")
            film = gr.Video(label="Flow", height=400, autoplay=True, loop=True)
            about = gr.Markdown()
        with gr.Column() as panel:
            view = gr.Radio(list(VIEWS), value="Colours", label="View")
            with gr.Row():
                picture = gr.Image(label="Flow", format="webp", buttons=["fullscreen"], elem_id="view", scale=4)
                with gr.Column(min_width=160):
                    value = gr.Markdown("Point at the picture, or tap it, for the values of a pixel.", elem_id="value")
                    said = gr.Markdown()
                    gr.Image(colour_wheel(160), show_label=False, interactive=False, buttons=[], height=180)
            with gr.Row():
                buttons = {suffix: gr.Button(f"Download {suffix}", size="sm") for suffix in (".flo", ".png")}
            file = gr.DownloadButton(elem_id="file")
        gr.Markdown(TEXT)

        def at_pointer(result, event: gr.SelectData):
            return result.at(*event.index) if result else ""

        device = {"concurrency_id": "device", "concurrency_limit": 1}  # one prediction at a time
        quiet, shown = {"show_progress": "hidden"}, [result, picture, said]
        start_pair.click(of_pair, [*pair, view], shown, **device)
        start_pair.click(None, js="() => document.querySelector('#view').scrollIntoView({block: 'center'})")
        live = {"stream_every": 0.1, "time_limit": 30, **device, **quiet}  # s; then it is the next visitor's turn
        camera.stream(of_camera, [camera, last, view], [last, *shown], **live)
        start_video.click(of_video, [video, drawing], [film, about], **device)
        view.change(lambda result, view: result and result.drawn(view), [result, view], picture, **quiet)
        picture.select(at_pointer, result, value, queue=False, trigger_mode="multiple", **quiet)
        for suffix, button in buttons.items():
            written = button.click(partial(download, suffix), [result, view], file, **quiet)
            written.success(None, js="() => document.querySelector('#file').click()")
        for tab in (tab_pair, tab_camera, tab_video):
            tab.select(partial(gr.Column, visible=tab is not tab_video), None, panel, **quiet)
            if tab is not tab_camera:
                tab.select(None, js=STOP)
    return blocks


def main(arguments):
    parser = Parser(description=__doc__)
    parser.add_argument("config", nargs="?", default="MaskFlownet", help="network config (default MaskFlownet)")
    add_checkpoint(parser)
    add_colour(parser)
    add_devices(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: for this machine alone)")
    port = number(int, "a port from 1 to 65535", 1, 65535)
    parser.add_argument("--port", type=port, help="port to listen on (default: the first free one from 7860)")
    args = parser.parse_args(arguments)
    if gr is None:
        raise UserError("the page needs Gradio: pip install gradio")
    try:
        socket.create_server((args.host, args.port or 0)).close()
    except OSError as error:  # Gradio would wait for ever for a host that there is not
        where = f"{args.host}, port {args.port}" if args.port else args.host
        raise UserError(f"cannot listen on {where}: {error.strerror}") from error
    options = {"engine": args.engine, "precision": args.precision, "colour": args.colour}
    predictor = load(args.config, args.checkpoint, args.gpus, **options)
    predictor(*np.zeros((2, 448, 1024, 3), np.uint8))  # the first visitor does not wait for what is made once
    # Gradio asks its own server whether it is up: not through a proxy.
    os.environ["no_proxy"] = ",".join(
        [os.environ.get("no_proxy", os.environ.get("NO_PROXY", "")), "localhost", args.host]
    )
    with TemporaryDirectory(prefix="maskflownet_") as os.environ["GRADIO_TEMP_DIR"]:
        blocks = page(predictor)
        local = {"share": False, "ssr_mode": False, "enable_monitoring": False, "footer_links": []}
        bounds = {"max_file_size": "128mb", "state_session_capacity": 16}
        where = {"server_name": args.host, "server_port": args.port, "quiet": True, "prevent_thread_lock": True}
        _, address, _ = blocks.launch(**where, **local, **bounds, css=CSS, head=HOVER)
        print(f"open {address} in a browser; Ctrl-C ends", flush=True)
        try:
            threading.Event().wait()
        finally:
            blocks.close(verbose=False)


if __name__ == "__main__":
    sys.exit(run(main))
