"""The work of ``models.export``: check, write, prove, and leave a folder that is whole."""

import json
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data.miniature.documents import make_document
from data.sample import Sample
from data.writing import whole_folder, write_text
from models.answering import load_predictor
from models.export.card import Proof, write_card
from models.export.files import Runnable, Target, check_runtime, check_target, runnables, write_files
from models.export.gguf_file import Packing
from models.export.preflight import check_output
from models.export.sample import ANSWER_TOKENS, Worth, load_sample, sample_name, worth
from models.export.trained import Trained
from models.export.verify import Reference, verify
from models.loading import quiet_libraries
from models.predictor import LocalPredictor

PROOF_FILE = "proof.json"
"""The figures of the card, for programs."""


@dataclass(frozen=True)
class Job:
    """What is asked for.

    Attributes:
        adapter: the adapter's folder.
        target: what it is exported to.
        packings: of GGUF files, one each.
        output: the folder that is made.
        base: the base model; None for the one that the adapter names.
        verified: whether the runtime has to prove that it computes the same.
        prompts: how many prompts it reads for that.
        tokens: how many tokens it writes after each.
        sample: a file of questions; None takes the embedded suite's for an embedded model.
        questions: the most of them.
        predictor: a model or an adapter that answers from the messages; None for none.
    """

    adapter: str
    target: Target
    packings: tuple[Packing, ...]
    output: Path
    base: str | None = None
    verified: bool = True
    prompts: int = 10
    tokens: int = 40
    sample: str | None = None
    questions: int = 32
    predictor: str | None = None


def export(job: Job) -> bool:
    """Export an adapter; what is being done goes to standard error, what was shown to standard output.

    Returns:
        Whether the proof held, or was not asked for. Where it did not, the folder is left for a look, and its card says
        what is wrong.

    Raises:
        InputError: the folder cannot be made, or the runtime of the proof is not here: both before anything is loaded;
            or the adapter, its base, the sample or the predictor cannot be used, or not for this target.
        OSError: the folder cannot be written.
    """
    quiet_libraries()
    check_output(job.output)
    if job.verified:
        check_runtime(job.target)
    trained = Trained.load(job.adapter, job.base)
    check_target(trained, job.target)
    is_compressor = trained.settings.role == "compressor"
    samples = load_sample(job.sample, trained.base, job.questions) if is_compressor and job.verified else []
    if not samples and (job.sample or job.predictor):
        _say("note: no messages are measured: that takes a compressor, a proof, and a sample (--sample)")
    predictor = None
    if job.predictor is not None and samples:
        predictor = load_predictor(job.predictor, trained.settings.answer_instruction, ANSWER_TOKENS)
    with whole_folder(job.output) as folder:
        _say(f"writing {job.target}")
        write_files(trained, job.target, job.packings, folder)
        found = [runnable.at(folder) for runnable in runnables(trained, job.target, job.packings)]
        proofs = _proofs(job, trained, found, samples, predictor)
        reference = (sample_name(job.sample), worth(trained, None, samples, predictor)) if samples else None
        write_card(folder, trained, job.target, proofs, reference)
        write_text(folder / PROOF_FILE, json.dumps(_fields(proofs, reference), indent=1) + "\n")
    for proof in proofs:
        _print(proof)
    if reference is not None:
        print(reference[1].line("PyTorch"))
    print(f"{job.output}: {job.target}")
    return all(proof.verification is None or proof.verification.problem is None for proof in proofs)


def verified_prompts(trained: Trained, count: int) -> list[list[int]]:
    """Prompts of documents of the embedded suite, which are English that any model reads, in the adapter's own form."""
    found = []
    for seed in range(count):
        document = make_document("miniature/notes", seed, "test", facts=12, questions=1)
        found.append(trained.prompt_ids(document.text, document.questions[0].text))
    return found


def _proofs(
    job: Job,
    trained: Trained,
    found: Sequence[Runnable],
    samples: Sequence[Sample],
    predictor: LocalPredictor | None,
) -> list[Proof]:
    """What each runtime shows; none where no proof is asked for."""
    if not job.verified:
        return [Proof(runnable.files, None, None) for runnable in found]
    reference = Reference.of(trained, verified_prompts(trained, job.prompts), job.tokens)
    proofs = []
    for runnable in found:
        _say(f"verifying {' with '.join(runnable.files)}")
        with closing(runnable.start()) as runtime:
            verification = verify(reference, runtime, runnable.exact)
            messages = worth(trained, runtime, samples, predictor) if samples else None
        proofs.append(Proof(runnable.files, verification, messages))
    return proofs


def _fields(proofs: Sequence[Proof], reference: tuple[str, Worth] | None) -> dict[str, Any]:
    known = None if reference is None else {"name": reference[0], "pytorch": asdict(reference[1])}
    return {"proofs": [asdict(proof) for proof in proofs], "sample": known}


def _print(proof: Proof) -> None:
    print(", ".join(proof.files))
    if proof.verification is not None:
        for line in proof.verification.lines():
            print(f"  {line}")
        if proof.verification.problem is not None:
            print(f"  NOT PROVEN: {proof.verification.problem}")
    if proof.worth is not None:
        print(f"  {proof.worth.line('the runtime')}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
