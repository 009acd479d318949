"""Time of whole commands, from files to files, and of each part of them alone.

    python -m maskflownet.benchmarks.end_to_end CONFIG INPUT [INPUT_2] --to .mp4 [--max_flow 20] [-g 0] [--peer CMD]

INPUT is a video, a folder of frames or, with INPUT_2, a picture. A command is `predict_new_data.py` in a process of its
own, so that the second one finds warm caches. The parts then run alone in this process, one by one. A command overlaps
them: the one whose share of its time is next to 100 % is what the others wait for.
"""

import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from itertools import cycle, islice
from pathlib import Path

from maskflownet.benchmarks.timing import describe, the_device
from maskflownet.engine.contract import Drawing
from maskflownet.errors import UserError
from maskflownet.inference.new_data import Folder, Output, Pair, Video, writing
from maskflownet.inference.predictor import load
from maskflownet.settings.cli import Parser, add_batch, add_checkpoint, add_config, add_devices, count, pixels, run

PROGRAM = "from maskflownet.predict_new_data import command; raise SystemExit(command())"
IN_PROGRAM = re.compile(r"in ([\d.]+) s;")


def opened(paths: list[Path]):
    if len(paths) == 2:
        return Pair(*paths)
    return Folder(paths[0]) if paths[0].is_dir() else Video(paths[0])


def timed(line: list[str]) -> tuple[float, str]:
    """Seconds of a command, and what it prints."""
    started = time.perf_counter()
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"{shlex.join(line)} failed: {done.stderr.strip()[-500:]}")
    return time.perf_counter() - started, done.stdout


def rate(seconds: float, pairs: int) -> str:
    return f"{seconds:.2f} s, {pairs / seconds:.1f} pairs/s"


def per_item(items: Iterable) -> float:
    started = time.perf_counter()
    made = sum(1 for _ in items)
    return (time.perf_counter() - started) / made


def parts(args, paths: list[Path], output: Output) -> Iterator[tuple[str, float]]:
    """What is timed alone, and its seconds for a pair."""
    started = time.perf_counter()
    source = opened(paths)
    yield "reading", (time.perf_counter() - started) / source.count + per_item(source.pairs())
    options = {name: getattr(args, name) for name in ("batch", "engine", "precision")}
    predictor = load(args.config, args.checkpoint, args.gpus, **options)
    pairs = list(islice(source.pairs(), 32 if args.gpus else 3))  # in memory
    drawing = Drawing((args.max_flow or 20) if output.is_drawn else None, not output.is_drawn)

    def predicted(asked: Drawing) -> Iterator:
        return predictor.stream(pairs * (8 if args.gpus else 1), mask=False, warped=False, drawing=asked)

    for part, asked in (("network", Drawing(None, False)), (f"network, with what {output.suffix} needs", drawing)):
        per_item(predicted(asked))  # in which a GPU captures its graph
        yield part, per_item(predicted(asked))
    results = list(predictor.stream(pairs, mask=False, warped=False, drawing=drawing))
    with writing(output, source, None) as write:
        yield "writing", per_item(write(islice(cycle(results), source.count)))


def main(arguments):
    parser = Parser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add_config(parser)
    add("input", nargs="+", type=Path, metavar="INPUT", help="a video, a folder of frames, or two pictures")
    add("--to", default=".mp4", metavar="SUFFIX", help="of the output, such as .mp4, .png, .flo (default .mp4)")
    add_checkpoint(parser)
    add_devices(parser)
    add_batch(parser)
    add("--max_flow", type=pixels, metavar="PX", help="one pass over a folder or video")
    add("--repeats", type=count, default=2, help="commands (default 2)")
    add("--peer", metavar="CMD", help="another program's command, timed beside ours; {input} and {output} are paths")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder, paths = Path(name), args.input
        if len(paths) > 2:
            raise UserError("give one video or folder, or two pictures")
        source = opened(paths)
        numbered = source.is_sequence and args.to not in (".mp4", ".avi", ".gif")
        output = Output(folder / f"out{'_%05d' if numbered else ''}{args.to}", "flow")
        output.check(source.is_sequence)
        given = ["--image_1", "--image_2"] if len(paths) == 2 else ["--folder" if source.folder else "--video_filepath"]
        options = dict(zip(given, paths)) | {"-c": args.checkpoint, "--engine": args.engine, "-g": args.gpus}
        options |= {"--precision": args.precision, "--batch": args.batch, "--max_flow": args.max_flow}
        line = [sys.executable, "-c", PROGRAM, str(output.path), args.config]
        line += [str(word) for option in options.items() if option[1] for word in option]
        what = f"{args.config}, {source.count} pairs of {source.height}x{source.width} to {args.to}"
        print(f"{describe(the_device(args.gpus))}; {what}", flush=True)
        for _ in range(args.repeats):
            wall, printed = timed(line)
            inside = float(IN_PROGRAM.search(printed)[1])
            print(f"command: {rate(wall, source.count)}; without its start {rate(inside, source.count)}", flush=True)
            if args.peer:
                wall, _ = timed(shlex.split(args.peer.format(input=paths[0], output=folder)))
                print(f"peer: {rate(wall, source.count)}", flush=True)
        for part, seconds in parts(args, paths, output):
            share = f"{100 * seconds * source.count / inside:.0f} % of the time"
            print(f"{part}: {1000 * seconds:.1f} ms a pair, {1 / seconds:.0f} pairs/s, {share}", flush=True)


if __name__ == "__main__":
    sys.exit(run(main))
