"""Time of whole commands, from files to files, and of each part of them alone.

    python -m maskflownet.benchmarks.end_to_end [--repeats 2] [--size 1080,1920] [--peer CMD] OUTPUT CONFIG INPUT ...

OUTPUT and all that follows are those of `predict_new_data.py`. A command is a process of its own, so that the second
one finds warm caches. The parts then run alone in this process, one by one. A command overlaps them: the one whose
share of its time is next to 100 % is what the others wait for.
"""

import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path

import cv2
from maskflownet.benchmarks.timing import describe, the_device
from maskflownet.engine.contract import Drawing
from maskflownet.errors import UserError
from maskflownet.inference.new_data import Output, writing
from maskflownet.inference.predictor import load
from maskflownet.predict_new_data import open_source, parse
from maskflownet.processes import in_threads
from maskflownet.settings.cli import Parser, count, height_width, run

PROGRAM = "from maskflownet.predict_new_data import command; raise SystemExit(command())"
IN_PROGRAM = re.compile(r"in ([\d.]+) s;")


def resized(args, line: list[str], size: tuple[int, int], path: Path) -> list[str]:
    """The command's arguments with a video of the frames at another size in the place of its input."""
    from maskflownet.reader.video import VideoWriter  # noqa: PLC0415 - the rest does without PyAV

    source = open_source(args)
    if not source.is_sequence:
        raise UserError("--size is for a video or a folder")
    with VideoWriter(path, source.rate or Fraction(25), *size) as video:
        for frame in source.frames():
            video.write(cv2.resize(frame, size[::-1], interpolation=cv2.INTER_CUBIC))
    given = line.index("--video_filepath" if args.video_filepath else "--folder")
    return [*line[:given], "--video_filepath", str(path), *line[given + 2 :]]


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
    """Seconds for an item."""
    started = time.perf_counter()
    made = sum(1 for _ in items)
    return (time.perf_counter() - started) / made


def parts(args) -> Iterator[tuple[str, float]]:
    """What is timed alone, and its seconds for a pair: what OUTPUT takes, without other files."""
    started = time.perf_counter()
    source, output = open_source(args), Output(Path(args.output), "flow", args.kitti, args.codec)
    yield "reading", (time.perf_counter() - started) / source.count + per_item(source.pairs())
    options = {name: getattr(args, name) for name in ("resize", "pad", "batch", "engine", "precision")}
    predictor = load(args.config, args.checkpoint, args.gpus, **options)
    pairs = list(islice(source.pairs(), 32 if args.gpus else 3))  # in memory
    drawing = Drawing((args.max_flow or 20) if output.is_drawn else None, not output.is_drawn)

    def predicted(asked: Drawing) -> Iterator:
        return predictor.stream(pairs * (8 if args.gpus else 1), mask=False, warped=False, drawing=asked)

    for part, asked in (("network", Drawing(None, False)), (f"network, with what {output.suffix} needs", drawing)):
        per_item(predicted(asked))  # a GPU captures its second batch
        yield part, per_item(predicted(asked))
    results = list(predictor.stream(pairs, mask=False, warped=False, drawing=drawing))
    with writing(output, source, args.fps or source.rate or Fraction(25)) as (writer, threads):
        turns = (writer(results[i % len(results)]) for i in range(source.count))
        yield "writing", per_item(in_threads(turns, threads, 2 * threads))


def main(arguments):
    parser = Parser(prog="end_to_end.py", description=__doc__.splitlines()[0], epilog="All else: predict_new_data.py.")
    parser.add_argument("--repeats", type=count, default=2, help="commands (default 2)")
    parser.add_argument("--size", type=height_width, metavar="H,W", help="resize the frames first")
    parser.add_argument("--peer", metavar="CMD", help="another program's command, timed in turn with ours")
    ours, line = parser.parse_known_args(arguments)
    args = parse(line)
    with tempfile.TemporaryDirectory() as folder:
        if ours.size:
            line = resized(args, line, ours.size, Path(folder, "input.mp4"))
            args = parse(line)
        source = open_source(args)
        what = f"{args.config}, {source.count} pairs of {source.height}x{source.width} to {args.output}"
        print(f"{describe(the_device(args.gpus))}; {what}", flush=True)
        for _ in range(ours.repeats):
            wall, printed = timed([sys.executable, "-c", PROGRAM, *line])
            inside = float(IN_PROGRAM.search(printed)[1])
            print(f"command: {rate(wall, source.count)}; without its start {rate(inside, source.count)}", flush=True)
            if ours.peer:
                print(f"peer: {rate(timed(shlex.split(ours.peer))[0], source.count)}", flush=True)
        for part, seconds in parts(args):
            share = 100 * seconds * source.count / inside
            print(f"{part}: {1000 * seconds:.1f} ms a pair, {1 / seconds:.0f} pairs/s, {share:.0f} % of the time")


if __name__ == "__main__":
    sys.exit(run(main))
