"""Optical flow for your own images and videos; `--help` explains the arguments."""

import re
import sys
from dataclasses import replace
from pathlib import Path
from threading import Thread

from maskflownet.errors import UserError
from maskflownet.inference.new_data import Folder, Live, Output, Pair, Video, check_outputs, predict_files
from maskflownet.inference.predictor import load
from maskflownet.processes import Interruption, interrupt
from maskflownet.reader.colour import colour_table
from maskflownet.reader.video import camera, pixel_format
from maskflownet.settings import cli


def parse(arguments):
    parser = cli.Parser(description=__doc__)
    add = parser.add_argument
    output = (
        "file for the flow; its suffix chooses: .png, .jpg and other pictures (colours), .flo, .pfm, .npy, .npz (raw "
        "vectors u, v in px), .mp4, .avi, .gif (video); for a folder or video either a video or a numbered name such "
        "as flow_%%04d.flo: the number in the name of the pair's first frame, or else counted from 1"
    )
    add("output", metavar="OUTPUT", help=output)
    cli.add_config(parser)
    add("--image_1", metavar="A", help="first image")
    add("--image_2", metavar="B", help="second image")
    add("--video_filepath", metavar="V", help="video or GIF; each frame is paired with the next; or a live URL://")
    add("--camera", metavar="N", help="number or path of a camera; live: frames that come too fast are dropped")
    add("--folder", metavar="D", help="folder of frames, paired in natural order of their names")
    cli.add_checkpoint(parser)
    cli.add_colour(parser)
    cli.add_devices(parser)
    cli.add_sizing(parser)
    cli.add_batch(parser)
    mask = "also write the visibility mask of the MaskFlownet_S stage: 1 (white) = visible in the second image"
    add("--mask", metavar="FILE", help=mask)
    add("--warped", metavar="FILE", help="also write the second image, warped onto the first")
    confidence = (
        "also write how far the flow agrees with that of the opposite direction, which is predicted, too: 1 (white) = "
        "it leads back exactly, 0.5 = just consistent, 0 = it does not lead back, or leaves the picture"
    )
    add("--confidence", metavar="FILE", help=confidence)
    add("--flow", metavar="FILE", help="also write the flow to a second file, such as a .flo")
    add("--kitti", action="store_true", help="OUTPUT is a .png in KITTI's 16-bit flow format")
    scale = (
        "motion in px that is drawn in full colour (default: at least 1 px or 1/1000 of the diagonal; the largest in "
        "the pair; in a folder or video one scale for all frames, found in a first pass at low resolution)"
    )
    add("--max_flow", type=cli.pixels, metavar="PX", help=scale)
    codec = "encoder of a written .mp4 or .avi, of PyAV's FFmpeg, such as h264_nvenc (default: libx264, mjpeg)"
    add("--codec", metavar="NAME", help=codec)
    rate = "frames per second of written videos (default: the video's own, 25 for a folder); a .gif has at most 50"
    add("--fps", type=cli.frame_rate, metavar="N", help=rate)
    return parser.parse_args(arguments)


def open_source(args):
    given = [args.video_filepath, args.camera, args.folder, args.image_1 or args.image_2]
    if sum(value is not None for value in given) != 1:
        raise UserError("give one input: --image_1 and --image_2, --video_filepath, --camera, or --folder")
    if args.camera is not None:
        return Live(*camera(args.camera))
    if args.video_filepath is not None:
        is_url = re.match(r"\w[\w+.-]*://", args.video_filepath)
        return Live(args.video_filepath) if is_url else Video(args.video_filepath)
    if args.folder is not None:
        return Folder(args.folder)
    if args.image_1 is None or args.image_2 is None:
        raise UserError("a pair needs both --image_1 and --image_2")
    return Pair(args.image_1, args.image_2)


def main(arguments):
    args = parse(arguments)
    source = open_source(args)
    live = isinstance(source, Live)
    outputs = [Output(Path(args.output), "flow", args.kitti)]
    roles = {"flow": args.flow, "mask": args.mask, "warped": args.warped, "confidence": args.confidence}
    outputs += [Output(Path(path), role) for role, path in roles.items() if path is not None]
    if args.codec:
        outputs = [replace(o, codec=args.codec) if o.suffix in (".mp4", ".avi") else o for o in outputs]
        if not any(output.codec for output in outputs):
            raise UserError("--codec is for an .mp4 or .avi")
        pixel_format(args.codec)  # that there is this encoder
    check_outputs(source, outputs, args.checkpoint or "")
    drawn = any(output.role == "flow" and output.is_drawn for output in outputs)
    if args.max_flow and not drawn:
        raise UserError("--max_flow is for a flow that is drawn")
    if args.fps and not any(output.is_video for output in outputs):
        raise UserError("--fps is for an .mp4, .avi or .gif")

    options = {name: getattr(args, name) for name in ("resize", "pad", "engine", "precision", "colour")}
    batch = args.batch or (1 if live else None)
    if drawn:
        Thread(target=colour_table, daemon=True).start()  # while PyTorch is imported
    predictor = load(args.config, args.checkpoint, args.gpus, batch=batch, **options)
    with Interruption(None if live else interrupt) as end:  # what is live ends by Ctrl-C, and is complete
        done = predict_files(predictor, source, outputs, args.max_flow, args.fps)
    pairs = "1 pair" if done.pairs == 1 else f"{done.pairs} pairs"
    colours = f"full colour is {done.max_flow} px (--max_flow {done.max_flow}); " if done.max_flow else ""
    dropped = f"{source.reader.dropped} frames dropped; " if live else ""
    print(
        f"{pairs} of {source.height}x{source.width} in {done.seconds:.2f} s; "
        f"largest motion {done.largest:.1f} px; {dropped}{colours}wrote {', '.join(str(o.path) for o in outputs)}"
    )
    if live and source.reader.lost:
        raise source.reader.lost
    if end.pressed:
        raise KeyboardInterrupt


def command() -> int:
    return cli.run(main)


if __name__ == "__main__":
    sys.exit(command())
