"""Train, validate, submit or export MaskFlownet; `--help` explains the arguments."""

import sys
from contextlib import closing, nullcontext
from pathlib import Path

from maskflownet.checkpoints.checkpoint import read_checkpoint
from maskflownet.engine.contract import Sizing, refuse_torchrun
from maskflownet.engine.load import load_engine
from maskflownet.errors import UserError
from maskflownet.inference.confidence import describe_confidence
from maskflownet.inference.predictor import Predictor
from maskflownet.inference.validation import ValidationOptions, validate, write_submissions
from maskflownet.report.report import IMAGES, WIDTH, Report
from maskflownet.settings import cli
from maskflownet.settings.configs import load_network_config
from maskflownet.settings.datasets import load_data_config, parse_roots, validation_sets
from maskflownet.settings.folders import SHIPPED
from maskflownet.tools.export import SUFFIXES, export
from maskflownet.training.launch import EngineChoice, train_on
from maskflownet.training.plan import Options

TRAINING_ONLY = ("--steps", "--seed", "--scale", "--shard", "-s", "--skip_damaged")
REFUSED = {  # arguments that would do nothing
    "--valid": TRAINING_ONLY,
    "--predict": (*TRAINING_ONLY, "--dataset_cfg", "--debug"),
    "--export": (
        *TRAINING_ONLY, "--dataset_cfg", "--debug", "-g", "--gpus", "--engine", "--precision", "--data_root",
        "--workers", "--clear_steps",
    ),
}  # fmt: skip


def parse(arguments):
    parser = cli.Parser(description=__doc__)
    add = parser.add_argument
    cli.add_config(parser)
    data = "dataset config: a name in config_folder/ or a path (default chairs; with --valid: all sets with a root)"
    add("--dataset_cfg", metavar="DATASET_CONFIG", help=data)
    cli.add_devices(parser)
    cli.add_checkpoint(parser, f"training from scratch; {SHIPPED.stem[:3]} are the shipped weights")
    cli.add_colour(parser)
    clear = "count from step 0 in a new run that starts from the checkpoint's parameters"
    add("--clear_steps", action="store_true", help=clear)
    add("--valid", action="store_true", help="validate the checkpoint, do not train")
    confidence = (
        "with --valid: predict the opposite direction, too, and measure how far the agreement of both and the learned "
        "mask tell the true error and the occlusion; twice the time"
    )
    add("--confidence", action="store_true", help=confidence)
    page = "with --valid: also write logs/val/RUN_STEPS.html: the totals, a table of images, the pictures of the worst"
    add("--report", action="store_true", help=page)
    images = f"with --report: images with pictures, at most, the worst of each set in equal parts (default {IMAGES})"
    add("--report_images", type=cli.count, metavar="N", help=images)
    width = f"with --report: width of its pictures in px, 64 to 4096 (default {WIDTH}, some 0.1 MB an image)"
    wide = cli.number(int, "a width from 64 to 4096 px", 64, 4096)
    add("--report_width", type=wide, metavar="PX", help=width)
    add("--predict", action="store_true", help="write Sintel's, KITTI's and Spring's test predictions")
    model = (
        "write the checkpoint as an ONNX model (.onnx) or a program of torch.export (.pt2), of the size --resize "
        "(default 448,1024), for --batch pairs at a time (default: any number)"
    )
    add("--export", "--export_onnx", type=Path, metavar="FILE", help=model)
    add("--steps", type=cli.count, metavar="N", help="end the run at its step N, with a checkpoint")
    cli.add_training(parser)
    cli.add_sizing(parser)
    cli.add_batch(parser)
    args = parser.parse_args(arguments)
    refuse(args, arguments)
    return args


def refuse(args, arguments) -> None:
    """Raise UserError for arguments that exclude each other or would do nothing."""
    tasks = [flag for flag in REFUSED if getattr(args, flag[2:])]
    training = "for training target_shape and batch_size of the dataset config decide"
    sized = args.resize or args.pad or args.batch
    for wrong, sentence in (
        (len(tasks) > 1, f"{' and '.join(tasks)} exclude each other"),
        (args.confidence and not args.valid, "--confidence is for --valid; predict_new_data.py writes it as a picture"),
        (tasks and args.checkpoint is None, f"{''.join(tasks)} needs a checkpoint: -c"),
        (args.clear_steps and args.checkpoint is None, "--clear_steps is about a checkpoint: it needs -c"),
        (args.colour and args.checkpoint is None, f"--{str(args.colour).lower()} is about a checkpoint: it needs -c"),
        (sized and not tasks, f"--resize, --pad and --batch are for --valid, --predict and --export; {training}"),
        (args.export and args.pad, "--pad is not for --export, whose model has one size: --resize H,W"),
        (
            args.export and args.export.suffix not in SUFFIXES,
            f"cannot write {args.export}: the name of an exported model ends in {' or '.join(SUFFIXES)}",
        ),
        (args.report and not args.valid, "--report is for --valid"),
        (args.report_images and not args.report, "--report_images is for --report"),
        (args.report_width and not args.report, "--report_width is for --report"),
    ):
        if wrong:
            raise UserError(sentence)
    for flag in REFUSED[tasks[0]] if tasks else ():
        # A short flag may have its value behind it without a space: -g0.
        if any(given.split("=")[0] == flag or given[:2] == flag for given in arguments):
            raise UserError(f"{flag} is not for {tasks[0]}")


def main(arguments):
    args = parse(arguments)
    config = load_network_config(args.config)
    if args.valid:
        run_validation(args, config)
    elif args.predict:
        run_submission(args, config)
    elif args.export:
        run_export(args, config)
    else:
        run_training(args, config)


def read(args):
    return read_checkpoint(args.checkpoint, args.output_root / "weights", args.colour)


def results_name(name: str, checkpoint, config) -> str:
    """With the network where it is not the checkpoint's own but its head."""
    network = config.network.class_
    return name if network == checkpoint.record.network else f"{name}_{network}"


def run_training(args, config):
    data_config = load_data_config(args.dataset_cfg or "chairs.yaml")
    checkpoint = None if args.checkpoint is None else read(args)
    options = Options.of_arguments(args, steps=args.steps, clear_steps=args.clear_steps)
    choice = EngineChoice(args.gpus, args.engine, args.precision)
    saved = train_on(choice, config, data_config, checkpoint, options)
    if saved is not None:
        print(f"wrote {saved}")


def run_export(args, config):
    size = Sizing(args.resize).resize  # checked before a checkpoint is read
    print(export(args.export, config, read(args), size, args.batch))


def run_validation(args, config):
    refuse_torchrun("--valid")
    data_config = load_data_config(args.dataset_cfg) if args.dataset_cfg else None
    options = ValidationOptions(Sizing(args.resize, args.pad), args.batch or 1, cli.readers_of(args), args.confidence)
    roots, checkpoint = parse_roots(args.data_root), read(args)
    found = validation_sets(data_config, roots, config.network.class_, args.debug)
    engine = load_engine(config, checkpoint, args.gpus, args.engine, args.precision)
    record, folder = checkpoint.record, args.output_root / "logs" / "val"
    folder.mkdir(parents=True, exist_ok=True)  # before hours of computing, should that not be possible
    run = results_name(record.run, checkpoint, config)
    page = folder / f"{run}_{record.step}.html"
    facts = {
        "Run": record.run,
        "Step": record.step,
        "Network": config.network.class_,
        "Checkpoint": checkpoint.path.name,
        "Engine": str(engine),
    }
    report = Report(page, len(found.sets), args.report_images, args.report_width) if args.report else None
    with closing(report) if report else nullcontext():
        results = validate(engine, found, options, report)
        results.about["network"] = config.network.class_
        for name, total in results.totals.items():
            outliers = f", {total['1px_outliers.pooled']:.2%} of 1 px or more" if "1px_outliers" in total else ""
            print(f"{name}: epe {total['epe']:.3f} px per image, {total['epe.pooled']:.3f} pooled{outliers}")
            if args.confidence:
                print("    " + describe_confidence(total))
        results.write(folder, run, record.step)
        if report is not None:
            report.write(results, facts)
            print(f"wrote {page}")


def run_submission(args, config):
    refuse_torchrun("--predict")
    sizing, roots, checkpoint = Sizing(args.resize, args.pad), parse_roots(args.data_root), read(args)
    engine = load_engine(config, checkpoint, args.gpus, args.engine, args.precision)
    predictor, flows = Predictor(engine, sizing, args.batch or 1), args.output_root / "flows"
    name = results_name(checkpoint.path.stem, checkpoint, config)
    for submission in write_submissions(predictor, roots, name, flows, cli.readers_of(args)):
        print(f"{submission.name}: {submission.count} files in {submission.folder}, {submission.archive}")


def command() -> int:
    return cli.run(main)


if __name__ == "__main__":
    sys.exit(command())
