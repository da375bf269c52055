"""The pages of a study: ``results.json``, a table a set as Markdown, and where the figures come from."""

import statistics
from collections.abc import Mapping, Sequence

from configs.command import say
from data.writing import write_json, write_text
from eval.record import cluster
from eval.report.formats import Format, figure_text, number, percent, points, signed
from eval.report.markdown import blocks, escaped
from eval.report.results import Figure
from eval.report.tables import Table
from train.study.config import StudyConfig, overrides
from train.study.curve import write_curve
from train.study.members import planned
from train.study.results import Line, SetFigures, lines_of, results_of, sets_of, spread
from train.study.stand import stand_of

PAGE = "results.md"
"""The page of tables."""


def write_pages(config: StudyConfig) -> None:
    """Write ``results.json`` and the page of tables from the figures that are there, and say where they are.

    What is missing is null in the one and named in the other; what is stale is said, and used for nothing.

    Raises:
        DataError: members of a set answered different questions.
        OSError: a file cannot be read or written.
    """
    members = [member for member in planned(config) if member.set_name is not None]
    stand = stand_of(config.pages_folder, config.folder, members)
    for line in stand.stale.values():
        say(line)
    sets = sets_of(config, members, stand)
    config.pages_folder.mkdir(parents=True, exist_ok=True)
    results, page = config.pages_folder / "results.json", config.pages_folder / PAGE
    write_json(results, results_of(config, sets))
    shown = [block for one in sets for block in set_blocks(config, one)]
    text = [*heading(config), *shown, *blocks(sources(sets))]
    write_text(page, "\n\n".join(filter(None, text)) + "\n")
    say(f"results: {results}, {page}")


def heading(config: StudyConfig) -> list[str]:
    """What the study is."""
    seeds = ", ".join(map(str, config.seeds))
    return [
        f"# {escaped(config.name)}",
        f"Variants of the recipe `{config.recipe}`, trained with the seeds {seeds}:",
        "\n".join(
            f"- `{name}`: {', '.join(f'`{line}`' for line in overrides(settings)) or 'the recipe as it is'}"
            for name, settings in config.variants.items()
        ),
        "Figures are means over questions, in brackets 95% intervals over the texts that are resampled, paired where "
        "two are compared; the seeds of a variant are pooled, and their own spread is a column. Where variants are "
        "compared over seeds, the interval is Student's over the differences of the seeds. Bits are the contrastive "
        f"bound, which tells a document from others: {_negatives(config)} a question.",
    ]


def _negatives(config: StudyConfig) -> str:
    """What documents of another content a message is told from: "16 twins", "3 counterfactual and 4 batch"."""
    counts = config.recipe_with("recipe").information.negatives.model_dump()
    return " and ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in counts.items() if count)


def set_blocks(config: StudyConfig, one: SetFigures) -> list[str]:
    """The part of the page that a set has: its tables, and below the first of them its picture, which is written.

    Raises:
        OSError: the picture cannot be written.
    """
    if not one.members:
        return [f"## {escaped(one.name)}", "Nothing is there yet."]
    lines = lines_of(config, one)
    first, *others = [blocks(table) for table in tables_of(config, one, lines)]
    curve = write_curve(config, one, lines)
    picture = (
        [] if curve is None else [f"![{_capital(one.score)} against message tokens on {escaped(one.name)}]({curve})"]
    )
    return [*first, *picture, *(block for table in others for block in table)]


def tables_of(config: StudyConfig, one: SetFigures, lines: Sequence[Line]) -> list[Table]:
    """The tables of a set: all lines; where there are any, variants over seeds, kinds of question, other readers."""
    return [
        set_table(config, one, lines),
        *seed_tables(config, one, lines),
        *kind_tables(one, lines),
        *reader_tables(one),
    ]


def seed_tables(config: StudyConfig, one: SetFigures, lines: Sequence[Line]) -> list[Table]:
    """How far the other variants are from the first, seed by seed; none where no two share two seeds."""
    first = next(iter(config.variants))
    shared = {line.name: len(set(one.lines[line.name]) & set(one.lines.get(first, ()))) for line in lines}
    compared = [(line.name, line.over_seeds) for line in lines if line.over_seeds and shared[line.name] > 1]
    if not compared:
        return []
    cells = tuple(
        (
            name,
            figure_text(differences["accuracy"], points),
            figure_text(differences["message_tokens"], signed),
            figure_text(differences["information_bits"], signed),
            str(shared[name]),
        )
        for name, differences in compared
    )
    columns = ("Messages", f"{_capital(one.score)}, points", "Tokens", "Bits", "Seeds")
    note = f"Differences from {first}: means over seeds, in brackets Student's 95% intervals over the same."
    return [Table(f"{one.name}-seeds", f"{one.name}: variants over seeds", columns, cells, note)]


def reader_tables(one: SetFigures) -> list[Table]:
    """What other readers make of the messages, line by line, the seeds of each pooled; none where nobody was asked."""
    scores: dict[str, dict[str, list[float]]] = {}
    for line, by_seed in one.readers.items():
        for read in by_seed.values():
            for reader, values in read.items():
                known = [value for value in values if value is not None]
                scores.setdefault(line, {}).setdefault(reader, []).extend(known)
    readers = list(dict.fromkeys(reader for read in scores.values() for reader in read))
    if not readers:
        return []
    lines = []
    for line, read in scores.items():
        own = [record["accuracy"] for records in one.lines[line].values() for record in records]
        mean = statistics.fmean(value for value in own if value is not None)
        cells = [statistics.fmean(read[reader]) if read.get(reader) else None for reader in readers]
        shown = [("", "") if cell is None else (percent(cell), number(cell / mean) if mean else "") for cell in cells]
        lines.append((line, percent(mean), *(cell for pair in shown for cell in pair)))
    score = _capital(one.score)
    heads = [f"{what}, {reader}" for reader in readers for what in (score, "Portability")]
    note = f"Portability is another reader's {one.score} over that of the pair's own predictor, from the same messages."
    return [Table(f"{one.name}-readers", f"{one.name} read by others", ("Messages", score, *heads), tuple(lines), note)]


def kind_tables(one: SetFigures, lines: Sequence[Line]) -> list[Table]:
    """Accuracy by kind of question; none where there is one kind."""
    kinds = sorted({kind for line in lines for kind in line.by_kind})
    if not kinds:
        return []
    columns = ("Messages", *(f"{_capital(one.score)}, {kind or 'no kind'}" for kind in kinds))
    cells = tuple(
        (line.name, *(figure_text(line.by_kind[kind]["accuracy"], percent) for kind in kinds)) for line in lines
    )
    counts = ", ".join(f"{lines[0].by_kind[kind]['n']:,} {kind or 'without one'}" for kind in kinds)
    note = f"Questions by the task's own label: {counts}."
    return [Table(f"{one.name}-kinds", f"{one.name} by kind of question", columns, cells, note)]


def set_table(config: StudyConfig, one: SetFigures, lines: Sequence[Line]) -> Table:
    """The table of a set."""
    first = next(iter(config.variants))
    compared = len(config.variants) > 1
    score = _capital(one.score)
    columns = (
        "Messages",
        score,
        "Tokens",
        "Bits",
        "Bits per token",
        "Just the answer",
        f"{score} between seeds",
        f"{score} against {config.start}, points",
        f"Tokens of {config.start} to own",
        *([f"{score} against {first}, points"] if compared else []),
        *([f"{score} against the strongest baseline at equal tokens, points"] if one.baselines else []),
    )
    cells = tuple(_cells(line, compared)[: len(columns)] for line in lines)
    return Table(one.name, one.name, columns, cells, _note(one))


def sources(sets: Sequence[SetFigures]) -> Table:
    """What the figures were made from."""
    lines = [
        (
            one.name,
            member.name.removeprefix(f"{one.name} "),
            str(figures.made["compressor"]),
            member.depends.hash,
            f"{figures.made['commit'] or 'unknown'}"[:12] + (" with changes" if figures.made["modified"] else ""),
            str(figures.made["date"])[:10],
            f"{figures.made['seconds']:,.0f}",
        )
        for one in sets
        for member, figures in one.members
    ]
    columns = ("Set", "Member", "Compressor", "Configuration", "Commit", "Date", "Seconds of evaluation")
    return Table("sources", "Where the figures come from", columns, tuple(lines), names=6)


def _cells(line: Line, compared: bool) -> tuple[str, ...]:
    figures = line.figures
    return (
        line.name,
        figure_text(figures["accuracy"], percent),
        figure_text(figures["message_tokens"], number),
        figure_text(figures["information_bits"], number),
        figure_text(figures["bits_per_token"], number),
        percent(line.just_the_answer),
        _spread(line.by_seed),
        _change(line.against_start, "accuracy", points),
        _change(line.against_start, "message_tokens_ratio", number),
        *([_change(line.against_first, "accuracy", points)] if compared else []),
        _rival(line),
    )


def _change(changes: Mapping[str, Figure] | None, name: str, form: Format) -> str:
    return "" if changes is None else figure_text(changes[name], form)


def _rival(line: Line) -> str:
    if line.strongest is None:
        return "" if line.is_baseline else "no baseline at this length"
    return f"{figure_text(line.strongest.lead, points)} {line.strongest.name}"


def _capital(name: str) -> str:
    """A name as a heading begins."""
    return name[0].upper() + name[1:]


def _spread(by_seed: Sequence[float]) -> str:
    if (found := spread(by_seed)) is None:
        return ""
    deviation, least, most = found
    return f"{100 * deviation:.1f} points ({percent(least)} to {percent(most)})"


def _note(one: SetFigures) -> str:
    _, figures = one.members[0]
    texts = len({cluster(record) for records in one.lines.values() for seed in records.values() for record in seed})
    said = f"{len(figures.questions):,} questions of {texts:,} {'articles' if one.articles else 'documents'}."
    return f"{said} Not there yet: {', '.join(one.missing)}." if one.missing else said
