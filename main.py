"""Train, validate, submit or export MaskFlownet; `--help` explains the arguments."""

import sys
from pathlib import Path

from maskflownet.checkpoints.checkpoint import read_checkpoint
from maskflownet.engine.contract import Sizing, refuse_torchrun
from maskflownet.engine.load import load_engine
from maskflownet.errors import UserError
from maskflownet.inference.confidence import describe_confidence
from maskflownet.inference.submission import submit
from maskflownet.inference.validation import validate
from maskflownet.report.report import add_report, check_report, report_name, report_options
from maskflownet.settings.cli import (
    Parser,
    add_batch,
    add_data,
    add_devices,
    add_output_root,
    add_sizing,
    add_training,
    count,
    run,
    whole_number,
)
from maskflownet.settings.configs import ENGINES, load_data_config, load_network_config
from maskflownet.settings.datasets import LABELLED, Roots, parse_roots, validation_sets
from maskflownet.tools.onnx_export import check_target, export_onnx, import_onnx
from maskflownet.training.launch import train_on
from maskflownet.training.plan import Options

DEFAULT_DATA = "chairs.yaml"


def parse(arguments):
    parser = Parser(prog="main.py", description=__doc__)
    add = parser.add_argument
    add("config", metavar="CONFIG", help="network config: a name in config_folder/ or a path")
    add(
        "--dataset_cfg",
        metavar="DATASET_CONFIG",
        help="dataset config: a name in config_folder/ or a path (default chairs.yaml; with "
        "--valid: all sets with a root)",
    )
    add_devices(parser)
    add(
        "-c",
        "--checkpoint",
        metavar="CHECKPOINT",
        help="run id, unique prefix of one, prefix:steps, or path of a .params file; training goes on where it stopped",
    )
    add(
        "--clear_steps",
        action="store_true",
        help="count from step 0 in a new run that starts from the checkpoint's parameters",
    )
    add("--valid", action="store_true", help="validate the checkpoint, do not train")
    add(
        "--confidence",
        action="store_true",
        help="with --valid: predict the opposite direction, too, and measure how far the agreement "
        "of both and the learned mask tell the true error and the occlusion; twice the time",
    )
    add_report(parser)
    add("--predict", action="store_true", help="write Sintel's and KITTI's test predictions")
    add(
        "--export_onnx",
        type=Path,
        metavar="FILE",
        help="write the checkpoint as an ONNX model of the size --resize (default 448,1024), for "
        "--batch pairs at a time (default: any number)",
    )
    add("--steps", type=count, metavar="N", help="end the run at its step N, with a checkpoint")
    add("--seed", type=whole_number, metavar="N", help="of all random numbers (default 0, or the resumed run's)")
    add_training(parser)
    add_data(parser)
    add_output_root(parser)
    add_sizing(parser)
    add_batch(parser)
    args = parser.parse_args(arguments)
    given = {"--valid": args.valid, "--predict": args.predict, "--export_onnx": args.export_onnx}
    tasks = [flag for flag, value in given.items() if value]
    if len(tasks) > 1:
        raise UserError(f"{' and '.join(tasks)} exclude each other")
    check_report(args)
    if args.confidence and not args.valid:
        raise UserError("--confidence is for --valid; predict_new_data.py writes it as a picture")
    if tasks and args.checkpoint is None:
        raise UserError(f"{tasks[0]} needs a checkpoint: -c")
    if not tasks and (args.resize or args.pad or args.batch):
        raise UserError(
            "--resize, --pad and --batch are for --valid, --predict and --export_onnx; "
            "for training target_shape and batch_size of the dataset config decide"
        )
    refused = {"steps": None, "seed": None, "scale": 1.0, "shard": 1, "skip_damaged": False}
    if not args.valid:
        refused.update(dataset_cfg=None, debug=False)
    if args.export_onnx:
        refused.update(gpus="", engine=ENGINES[0], precision=None)
        refused.update(data_root=[], workers=0, clear_steps=False)
    for name, default in refused.items():
        if tasks and getattr(args, name) != default:
            raise UserError(f"--{name} is not for {tasks[0]}")
    return args


def main(arguments):
    args = parse(arguments)
    config = load_network_config(args.config)
    if args.export_onnx:
        run_export(args, config)
    elif args.valid or args.predict:
        refuse_torchrun("--valid" if args.valid else "--predict")
        sizing = Sizing(args.resize, args.pad)
        roots = Roots(parse_roots(args.data_root))
        checkpoint = read_checkpoint(args.checkpoint, args.output_root / "weights")
        command = run_validation if args.valid else run_submission
        command(args, config, checkpoint, roots, sizing)
    else:
        run_training(args, config)


def run_training(args, config):
    data = load_data_config(args.dataset_cfg or DEFAULT_DATA)
    checkpoint = None
    if args.checkpoint is not None:
        checkpoint = read_checkpoint(args.checkpoint, args.output_root / "weights")
    options = Options.of_arguments(args, steps=args.steps, clear_steps=args.clear_steps)
    saved = train_on(config, data, checkpoint, options, args.gpus, args.engine, args.precision)
    if saved is not None:
        print(f"wrote {saved}")


def run_export(args, config):
    sizing = Sizing(args.resize, args.pad)
    check_target(args.export_onnx, sizing)  # before a checkpoint is read
    import_onnx()
    checkpoint = read_checkpoint(args.checkpoint, args.output_root / "weights")
    print(export_onnx(args.export_onnx, config, checkpoint, sizing, args.batch).describe())


def run_validation(args, config, checkpoint, roots, sizing):
    which = load_data_config(args.dataset_cfg) if args.dataset_cfg else LABELLED
    found = validation_sets(which, roots, config.network.class_, args.debug)
    engine = load_engine(config, checkpoint, args.gpus, args.engine, args.precision)
    facts = {
        "Network": config.network.class_,
        "Checkpoint": checkpoint.path.name,
        "Engine": f"{engine.name}, {engine.precision}",
    }
    folder = args.output_root / "logs" / "val"
    totals = validate(
        engine,
        found.sets,
        sizing,
        args.batch or 1,
        folder,
        checkpoint.record.run,
        checkpoint.record.step,
        args.workers,
        found.unions,
        found.skipped,
        args.confidence,
        report_options(args, facts),
    )
    for name, total in totals.items():
        print(f"{name}: epe {total['epe']:.3f} px per image, {total['epe.pooled']:.3f} pooled")
        if args.confidence:
            print("    " + describe_confidence(total))
    if args.report:
        print(f"wrote {folder / report_name(checkpoint.record.run, checkpoint.record.step)}")


def run_submission(args, config, checkpoint, roots, sizing):
    engine = load_engine(config, checkpoint, args.gpus, args.engine, args.precision)
    written = submit(
        engine, roots, checkpoint.path.stem, args.output_root / "flows", sizing, args.batch or 1, args.workers
    )
    for submission in written:
        print(f"{submission.name}: {submission.count} files in {submission.folder}, {submission.archive}")


def command() -> int:
    """Run the program with the arguments of the command line; its exit code."""
    return run(main)


if __name__ == "__main__":
    sys.exit(command())
