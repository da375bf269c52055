"""Export a trained adapter to the programs that run it on devices, and prove that they compute what was trained.

The adapter is merged into its base as published, in float32, or written beside it with all scales folded in; what the
target cannot express is refused by name. Then the real runtime reads the same token ids as PyTorch: equal greedy
tokens, the largest difference of log-probabilities, and how much of the adapter's change arrives, which is how an
adapter is found out that loads and does nothing. The exit status is 1 where the proof fails. Its figures, and the
prompt that the model has to be sent, are in the export's README.md; ``prompt.json`` has the prompt for programs.
"""

import argparse
import sys
from collections.abc import Sequence

from data.errors import InputError, os_error
from models.export.preflight import check_output, output_folder
from models.help_page import command_parser
from models.naming import adapter_folder

EXAMPLES = (
    "python -m models.export --adapter runs/mi_rl/compressor --to gguf --packing f16 q8_0",
    "python -m models.export --adapter examples/smollm2/compressor --to gguf-lora",
    "python -m models.export --adapter runs/mi_rl/compressor --to mlx --output exports/mlx",
)

TARGETS = ("peft", "merged", "gguf", "gguf-lora", "mlx", "ollama")
"""`models.export.files.Target`, known before anything heavy is imported."""

PACKINGS = ("f32", "f16", "q8_0", "q4_1", "q4_0")
"""`models.export.gguf_file.Packing`, likewise."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; the exit status is 0, 1 where the proof fails, 2 for bad input, 130 interrupted."""
    options = parse(arguments)
    try:
        adapter_folder(options.adapter)
        output = output_folder(options.output or f"{options.adapter.rstrip('/')}-{options.to}")
        check_output(output)
        # Imported once there is something to export, for this takes seconds.
        from models.export.job import Job, export

        job = Job(
            adapter=options.adapter,
            target=options.to,
            packings=tuple(options.packing),
            output=output,
            base=options.model,
            verified=options.verify,
            prompts=options.prompts,
            tokens=options.tokens,
            sample=options.sample,
            questions=options.questions,
            predictor=options.predictor,
        )
        return 0 if export(job) else 1
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {os_error(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line; argparse ends the program where it is wrong."""
    parser = command_parser("python -m models.export", __doc__ or "", EXAMPLES)
    parser.add_argument("--adapter", required=True, metavar="FOLDER", help="a run's compressor or trained_predictor")
    parser.add_argument("--to", required=True, choices=TARGETS, help="what is written")
    parser.add_argument("--output", metavar="FOLDER", help="where to (default: the adapter's folder and the target)")
    parser.add_argument("--model", help="the base model, where it is not the one the adapter names")
    parser.add_argument(
        "--packing",
        nargs="+",
        choices=PACKINGS,
        help="how a GGUF file stores weights, a file each: 32, 16, 8.5, 5 or 4.5 bits (default f16); of ollama and "
        "gguf-lora one",
    )
    parser.add_argument(
        "--verify",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="have the runtime prove that it computes the same; without, the card says so",
    )
    parser.add_argument("--prompts", type=_count, default=10, metavar="N", help="prompts of the proof (default 10)")
    parser.add_argument("--tokens", type=_count, default=40, metavar="N", help="tokens after each (default 40)")
    parser.add_argument("--sample", metavar="FILE", help="questions with answers, as of the task records")
    parser.add_argument("--questions", type=_count, default=32, metavar="N", help="how many of them (default 32)")
    parser.add_argument("--predictor", metavar="MODEL", help="answers them from the messages: a model, or an adapter")
    options = parser.parse_args(arguments)
    if problem := unused_packing(options.to, options.packing or []):
        parser.error(problem)
    options.packing = options.packing or ["f16"]
    return options


def unused_packing(target: str, packings: Sequence[str]) -> str | None:
    """What is wrong with packings that a target would not write; None where it writes them all."""
    given = f"--packing {' '.join(packings)}"
    if packings and target not in ("gguf", "gguf-lora", "ollama"):
        return f"{given}: is for GGUF files, and {target} has none; leave it out"
    if len(packings) > 1 and target != "gguf":
        return f"{given}: {target} has one model file; give one of them"
    return None


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"{count} should be at least 1")
    return count


if __name__ == "__main__":
    sys.exit(main())
