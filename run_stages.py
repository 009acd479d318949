"""Run several training stages in one go; repeat the command to go on after an interruption."""

import sys

from maskflownet.settings.cli import Parser, add_checkpoint, add_devices, add_training, count, run
from maskflownet.training.launch import EngineChoice, run_stages
from maskflownet.training.plan import Options


def main(arguments):
    parser = Parser(description=__doc__)
    add = parser.add_argument
    stages = "YAML file of the stages: a name in config_folder/ such as six_stages.yaml, or a path"
    add("schedule", metavar="SCHEDULE", help=stages)
    add_devices(parser)
    add_checkpoint(parser, "the first stage begins from scratch")
    begin = "the first stage to run; the checkpoint stands for all before it (default 1)"
    add("--begin", type=count, default=1, metavar="N", help=begin)
    add("--fresh", action="store_true", help="forget what an earlier call reached, begin again")
    add_training(parser)
    args = parser.parse_args(arguments)
    options = Options.of_arguments(args)
    choice = EngineChoice(args.gpus, args.engine, args.precision)
    run_stages(args.schedule, choice, options, args.checkpoint, args.begin, args.fresh)


if __name__ == "__main__":
    sys.exit(run(main))
