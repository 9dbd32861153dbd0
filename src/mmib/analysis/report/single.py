"""The report of one run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmib import charts
from mmib.analysis.calibration import RiskCoverage, calibration, risk_coverage
from mmib.analysis.relevance import SIGNALS, Detection, area_texts, detections
from mmib.analysis.report import evidence
from mmib.analysis.report.evidence import LatentSpace
from mmib.analysis.report.history import read_plane, settings, shortened, shown_command
from mmib.analysis.report.page import Section, grid, note, scrolling, table
from mmib.analysis.report.posts import PostWriter, darkest_word, read_post, sample
from mmib.analysis.report.training import training
from mmib.analysis.slices import ERRORS, breakdown, error_texts, rated
from mmib.base.timing import duration
from mmib.charts import Chart, Mark, Series
from mmib.charts.markup import Html, element, join
from mmib.datamodules.image_relevance import ImageRelevance
from mmib.geometry import Geometry
from mmib.records import OTHERS, Confusion, Record
from mmib.runs.reader import FinishedRun
from mmib.schema import Wording
from mmib.scores import few_items

SPLITS = {"test": "test", "val": "validation"}
# Maximum number of classes in the confusion matrix, besides one for all others.
MOST_CLASSES = 60
# Number of posts whose text and image latents are joined by a line.
PAIRS = 14
GEOMETRY = (
    "posts",
    *("cosine, texts", "cosine, images", "cosine, pairs", "gap"),
    *("effective rank, text", "effective rank, image"),
    *("rank of the own image", "of", "share"),
)
# Measured on the latents that the authors published; see docs/explanation/information.md.
RELEASED = (
    *("released model", "453 to 458", "", "0.960 to 0.999", "", "1.13 to 1.27"),
    *("", "", "216 to 257", "453 to 458", "47 to 57 %"),
)


def sections(
    run: FinishedRun, data_root: Path | None, posts: int, relevance: ImageRelevance | None = None
) -> list[Section]:
    """Return all sections of the report on a run.

    Args:
        run: the run.
        data_root: folder of its images, if not the one in its configuration.
        posts: how many posts to show.
        relevance: relevance of the posts' images, by which scores are split.

    Raises:
        RunError: a file of the run is damaged.
        DataError: the relevance file is about other images.
    """
    split = next((split for split in SPLITS if run.has_predictions(split)), None)
    records = run.predictions(split) if split else []
    detected: list[Detection] = []
    sliced: list[Section] = []
    if split is not None:
        with run.interpreting(split):
            detected = detections(records)
    if split is not None and records:
        sliced.append(Section("slices", "Slices", *_slices(run, split, rated(run, records, relevance))))
    return [
        Section("scores", "Scores", "", _scores(run)),
        Section("training", "Training", *training(run)),
        Section("information", "Information", *_information(run)),
        Section("errors", "Errors", *_errors(run, split, records)),
        *sliced,
        *([Section("relevance", "Irrelevant images", *_relevance(detected, str(split)))] if detected else []),
        Section("posts", "Posts", *_posts(run, split, records, data_root, posts)),
        Section("settings", "Settings", "", _settings(run)),
    ]


def headings(scores: dict[str, Any]) -> list[str]:
    """Return the names of the scores that are single numbers in a summary."""
    return [name for name, value in scores.items() if isinstance(value, int | float) and name != "f1_se"]


def heading(name: str) -> str:
    """Turn the name of a score into a heading: `strict_f1` becomes `strict F1`."""
    return name.replace("_", " ").replace("f1", "F1")


def percent(value: float) -> str:
    """Format a fraction in percent, without the percent sign."""
    return f"{100 * value:.1f}"


def _scores(run: FinishedRun) -> Html:
    summary = run.summary
    scored = [(split, summary[split]) for split in SPLITS if summary.get(split)]
    if not scored:
        return note("No split was scored.")
    ceiling = summary.get("ceiling")
    rows, marks = [], []
    for split, whole in scored:
        levels = {f", {level}": described for level, described in (summary.get("levels") or {}).items()}
        for suffix, described in {"": None, **levels}.items():
            scores = described[split] if described else whole
            if scores is None:
                continue
            possible = (described or summary).get("ceiling") if ceiling and ceiling["split"] == split else None
            name = SPLITS[split] + suffix
            best = {"text": 100 * possible["text"], "ink": 100 * possible["multimodal"]} if possible else {}
            ceilings = [percent(possible[key]) for key in ("text", "multimodal")] if possible else ["", ""]
            rows.append((name, scores, ceilings))
            marks.append(_mark(name, scores, best))
    names = headings(scored[0][1])
    best_headings = ["best with text", "best with text and image"] if ceiling else []
    best_key = {"best possible with the text": "text stroke", "best possible with text and image": "ink stroke"}
    bars = "Bars: one bootstrap standard error to each side."
    plot = charts.dot_plot("F1", marks, key=best_key if ceiling else None, note=bars).html
    cells = [[name, *(_cell(scores, key) for key in names), *(best if ceiling else [])] for name, scores, best in rows]
    cautions = [
        element("p", f"{SPLITS[split].capitalize()}: {caution}.", class_="note")
        for split, scores in scored
        if (caution := few_items(scores.get("classes", {}), run.labels.negative))
    ]
    return join([plot, table(["split", *map(heading, names), *best_headings], cells, "Scores in percent"), *cautions])


def _mark(name: str, scores: dict[str, Any], ceilings: dict[str, float]) -> Mark:
    value, error = 100 * scores["f1"], 100 * scores.get("f1_se", 0.0)
    return Mark(name, value, max(0.0, value - error), min(100.0, value + error), ceilings)


def _cell(scores: dict[str, Any], name: str) -> str:
    if name not in scores:
        return ""
    error = f" ± {percent(scores['f1_se'])}" if name == "f1" and "f1_se" in scores else ""
    return percent(scores[name]) + error


def _information(run: FinishedRun) -> tuple[str, Html]:
    plane = read_plane(run.folder)
    parts: list[Html] = []
    if plane:
        parts.append(grid(*charts.information_plane(plane)) or Html())
        if "information" in plane[0]:
            first, last = (charts.number(point["information"]) for point in (plane[0], plane[-1]))
            gain = f"H(Y) minus the distortion, at most I(Z; Y), went from {first} to {last} nats a post."
            parts.append(element("p", gain, class_="note"))
    names = {"start": "before training", "selected": "selected checkpoint"}
    spaces = {
        title: space
        for name, title in names.items()
        if (space := evidence.read_latents(run.folder / "latents" / f"{name}.safetensors", run.labels.names))
        is not None
    }
    if spaces:
        parts.append(grid(*(_latents(title, space) for title, space in spaces.items())) or Html())
        rows = [[title, *_geometry(space.geometry)] for title, space in spaces.items()]
        parts.append(table(["latent space", *GEOMETRY], [*rows, RELEASED], "Measures of the latent space"))
        last, space = list(spaces.items())[-1]
        if space.by_label:
            what = run.registered_task().wording.label
            rows = [[name, *_geometry(found)] for name, found in space.by_label.items()]
            parts.append(table([what, *GEOMETRY], rows, f"Latent space by {what}, {last}"))
    else:
        parts.append(note("This run kept no latents: the callback that keeps them was off, or no post had an image."))
    return (
        "Information plane: the rate, an upper bound on the information in a latent, against the remaining task "
        "loss; one dot per validation, darker with time. Latent space: the mean latents of validation posts as unit "
        "vectors, projected on the first two principal components of both modalities together; lines join text and "
        "image of one post. The modality gap is the distance between the centres of the two clouds before the "
        "projection; cosines are means, of different posts' texts and images, where 1 is collapse, and of a post's "
        "text and image; the effective rank is the number of directions in use, at most the number of posts; the rank "
        "of a post's own image, 1 at best, is the median over posts of its place among the images of all, by cosine "
        "with the text after centring both: half of them by chance. The released model's figures are those of its "
        "published latents of about 150 test mentions of each type.",
        join(parts),
    )


def _geometry(found: Geometry) -> list[str]:
    """Return the cells of a row below the headings `GEOMETRY`."""
    values = [found.cosine_text, found.cosine_image, found.pair_cosine, found.gap]
    ranks = [found.effective_rank_text, found.effective_rank_image]
    own = ["", "", ""]
    if not math.isnan(found.own_image_rank):
        own = [f"{found.own_image_rank:.1f}", f"{found.candidates:.0f}", f"{percent(found.own_image_share)} %"]
    cells = [*(f"{value:.3f}" for value in values), *(f"{value:.1f}" for value in ranks)]
    return [str(found.posts), *("" if cell == "nan" else cell for cell in cells), *own]


def _latents(title: str, space: LatentSpace) -> Chart:
    places = np.unique(np.linspace(0, len(space.text) - 1, PAIRS).round().astype(int))
    text, image = ([(float(x), float(y)) for x, y in side] for side in (space.text, space.image))
    groups = [Series("text", text, "text"), Series("image", image, "image")]
    first, second = space.explained
    numbers = f"Gap {space.geometry.gap:.3f}, mean cosine {space.geometry.pair_cosine:.3f}."
    caption = f"{numbers} The axes hold {charts.share(first)} and {charts.share(second)} of the variance."
    return charts.scatter(f"Latent space, {title}", groups, [(text[place], image[place]) for place in places], caption)


def _errors(run: FinishedRun, split: str | None, records: Sequence[Record]) -> tuple[str, Html]:
    if split is None or not records:
        return "", _no_predictions()
    task, labels = run.registered_task(), run.labels
    wording = task.wording
    with run.interpreting(split):
        confusion = task.confusion(records, labels)
        judged = task.judge(records, labels)
        trust, risk = calibration(judged), risk_coverage(judged)
    beside = [note("Nothing was predicted, or its scores are not finite, so there is no calibration.")]
    if trust is not None:
        off = charts.share(trust.error, 1)
        caption = f"Expected calibration error {off} over {trust.count:,} predictions."
        beside = [charts.reliability("Calibration", trust.bins, caption).html, _risk(risk)]
    classes = (run.summary.get(split) or {}).get("classes") or {}
    if classes:
        rows = [
            [name, *(percent(scores[key]) for key in ("precision", "recall", "f1")), f"{scores['gold']:,}"]
            for name, scores in classes.items()
        ]
        names = [wording.label, "precision", "recall", "F1", "gold"]
        beside.append(table(names, rows, f"By {wording.label}, {SPLITS[split]}, percent"))
    parts = [_matrix(confusion, wording.label), element("div", beside, class_="beside")]
    reading = (
        f"{SPLITS[split].capitalize()} split. Rows of the matrix are gold, columns predicted; the shade is the share "
        f"of the gold row. Calibration compares the confidence of each {wording.unit} with how often it is right: on "
        f"the diagonal, 80 % sure is right in 80 of 100 cases. Confidence is {wording.confidence}; ten equally wide "
        "bins; the expected calibration error is the mean distance from the diagonal, weighted by the number in each "
        "bin. Risk: the error rate among the most confident predictions."
    )
    return reading, join(parts)


def _risk(risk: RiskCoverage | None) -> Html:
    if risk is None:
        return Html()
    points = [(100 * coverage, 100 * wrong) for coverage, wrong in risk.curve]
    caption = f"Area {charts.share(risk.area, 1)}, the mean risk over all coverages."
    chart = charts.line_chart("Risk against coverage", [Series("risk", points, "ink")], "coverage", "percent", caption)
    return Html() if chart is None else chart.html


def _slices(run: FinishedRun, split: str, records: Sequence[Record]) -> tuple[str, Html]:
    task = run.registered_task()
    training = run.training()
    with run.interpreting(split):
        found = breakdown(task, run.labels, records, training, run.own_images)
    rows = [
        [
            f"{group['slice']}: {group['group']}",
            *(f"{group[name]:,}" for name in ("rows", "gold", "predicted")),
            *(percent(group[name]) for name in ("precision", "recall")),
            _cell(group, "f1"),
        ]
        for group in found["groups"]
    ]
    counts = [["items", *error_texts(found["errors"])]]
    headings = ["slice", task.rows, "gold", "predicted", "precision", "recall", "F1"]
    parts = [table(headings, rows, "Scores by slice, percent")] if rows else []
    parts.append(table(["", *ERRORS.values()], counts, "Kinds of errors"))
    lines = [f"No slices by {name}: {reason}." for name, reason in found["unavailable"].items()]
    parts += [element("p", line, class_="note") for line in lines]
    by = f"How well the image fits is judged by {found['image_by']}. " if found["image_by"] else ""
    return (
        f"{SPLITS[split].capitalize()} split, divided by properties of the training data and the posts. Predicted and "
        "gold items belong to a slice by their own surface form and label. "
        f"{by}F1 ± one bootstrap standard error.",
        join(parts),
    )


def _relevance(detected: Sequence[Detection], split: str) -> tuple[str, Html]:
    rows = [[each.noise, f"{each.irrelevant:,}", *area_texts(each.auc)] for each in detected]
    reading = (
        f"Which {SPLITS[split]} rows show an irrelevant image is known. Area under the ROC curve: the chance that a "
        f"signal is higher for one of the {detected[0].relevant:,} relevant images than for one of the irrelevant; 0.5 "
        "is chance. Signals: the nats of a region, mean over the regions; the similarity of text and image; how far "
        "attention is from even over the regions, where there are several. The best possible is that of the true "
        "probability given words and image."
    )
    return reading, table(["irrelevant images", "rows", *SIGNALS], rows, "AUC, relevant against irrelevant images")


def _no_predictions() -> Html:
    command = element("code", "mmib test --config RUN/config.yaml --ckpt_path RUN/checkpoints/best.ckpt")
    return element(
        "p",
        "This run's folder holds no predictions. ",
        command,
        " writes them to another folder; make the report of that folder.",
        class_="missing",
    )


def _matrix(whole: Confusion, what: str) -> Html:
    confusion = whole.of_most_frequent(MOST_CLASSES)
    sums = confusion.counts.sum(axis=1)
    head = [element("th", element("span", name), scope="col") for name in confusion.columns]
    rows = []
    for place, (name, counts) in enumerate(zip(confusion.rows, confusion.counts, strict=True)):
        cells = [
            element(
                "td",
                str(count) if count else "",
                class_="right" if confusion.columns[column] == name != OTHERS else None,
                style=f"--s:{count / sums[place]:.2f}" if count else None,
            )
            for column, count in enumerate(counts)
        ]
        rows.append(
            element("tr", element("th", name, scope="row"), cells, element("td", f"{sums[place]:,}", class_="sum"))
        )
    caption = f"Gold {what} by predicted {what}"
    square = confusion.rows == confusion.columns
    frequent = " ".join(str(place) for place in np.argsort(-sums, kind="stable"))
    shown = element(
        "table",
        element("caption", caption),
        element(
            "thead", element("tr", element("th", f"gold {what}", scope="col"), head, element("th", "all", scope="col"))
        ),
        element("tbody", rows),
        class_="matrix",
        data_frequent=frequent if square else None,
    )
    order = element(
        "p",
        "Order: ",
        element("button", "by name", type="button", data_order="name", aria_pressed="true"),
        " ",
        element("button", "by frequency", type="button", data_order="frequent", aria_pressed="false"),
        class_="filters",
    )
    merged = len(whole.rows) - len(confusion.rows) + 1
    left_out = f"The {MOST_CLASSES} most frequent, by gold items; {merged:,} more are in the row and column {OTHERS}."
    return element(
        "div",
        note(left_out) if confusion is not whole else None,
        order if square else None,
        scrolling(shown, caption),
        class_="confusion",
    )


def _posts(
    run: FinishedRun, split: str | None, records: Sequence[Record], data_root: Path | None, size: int
) -> tuple[str, Html]:
    if split is None or not records:
        return "", _no_predictions()
    if not all("words" in record for record in records):
        return "", note("The prediction file holds no words: it was written by an older version. Score the run again.")
    task, labels = run.registered_task(), run.labels
    chosen = sample([read_post(task, labels, record) for record in records], size)
    classes = sorted({name for post in chosen for name in post.answer.classes})
    darkest = darkest_word(chosen)
    root = data_root or run.image_root
    writer = PostWriter(classes, darkest, root if root and root.is_dir() else None)
    written = list(writer.within(chosen))
    reading = [
        f"{len(written)} of {len(records):,} posts of the {SPLITS[split]} split: wrong ones first, then right ones, "
        "the surest first. Choose a post with ↑ and ↓, its words and entities with ← and →, or point at them, to see "
        "how much the bottleneck lets through and which regions of the image they look at."
    ]
    if len(written) < len(chosen):
        reading.append(f"{len(chosen) - len(written)} more were left out to keep the page small.")
    if writer.missing:
        place = f"below {shortened(str(root))}" if root else "(the configuration names no folder)"
        reading.append(f"{writer.missing} images were not found {place}: set their folder with --data.root.")
    posts = element("ol", written, class_="posts", id="posts-list")
    return " ".join(reading), join([_filters(classes, task.wording.label), _legend(task.wording, darkest), posts])


def _filters(classes: Sequence[str], what: str) -> Html:
    buttons = [
        element("button", name, type="button", data_show=value, aria_pressed="true" if value == "" else "false")
        for name, value in (("all", ""), ("wrong", "0"), ("right", "1"))
    ]
    options = [element("option", name, value=str(place)) for place, name in enumerate(classes)]
    return element(
        "div",
        element("span", join(buttons, " "), role="group", aria_label="right or wrong"),
        element("label", f"{what} ", element("select", element("option", "any", value=""), options, id="post-class")),
        element("span", "", id="post-count", aria_live="polite"),
        class_="filters",
    )


def _legend(wording: Wording, darkest: float) -> Html:
    marks = element("p", wording.legend, class_="legend") if wording.legend else Html()
    if darkest <= 0:
        return join([marks, note("The prediction file holds no KL of the words: score the run again to see it.")])
    shades = element(
        "p",
        "KL of a word, the sum over its pieces: 0 ",
        element("span", class_="ramp", aria_hidden="true"),
        f" {charts.number(darkest)} nats and more",
        class_="legend",
    )
    return join([marks, shades])


def _settings(run: FinishedRun) -> Html:
    summary = run.summary
    facts: list[tuple[str, str]] = [
        ("run", f"{run.name}/{run.folder.resolve().name}"),
        ("command", shown_command(str(summary.get("command", "")))),
        ("seed", str(run.seed)),
        ("corpus", str(summary.get("corpus", ""))),
        ("task", run.task),
        ("labels", ", ".join(run.labels.names)),
        ("negative label", run.labels.negative or ""),
        ("precision", str(summary.get("precision", ""))),
    ]
    facts += [(f"images, {split}", str(report)) for split, report in (summary.get("images") or {}).items()]
    for split, data in (summary.get("data") or {}).items():
        facts.append((f"data, {split}", f"{_rows(data)}, SHA-256 {data['sha256']}" if data else "none"))
    spent: dict[str, float] = summary.get("seconds") or {}
    parts = [f"{name} {duration(seconds)}" for name, seconds in spent.items()]
    facts.append(("time", f"{duration(sum(spent.values()))}: {', '.join(parts)}" if parts else ""))
    facts += [(str(name), str(version)) for name, version in (summary.get("versions") or {}).items()]
    rows = [[name, element("code", value)] for name, value in facts if value]
    options = [[name, element("code", value)] for name, value in settings(run.config()).items()]
    return join(
        [
            table(["what", "value"], rows, "Where the scores come from", numbers=False),
            element(
                "details",
                element("summary", f"All {len(options)} settings"),
                table(["setting", "value"], options, "Configuration", numbers=False),
            ),
        ]
    )


def _rows(data: dict[str, Any]) -> str:
    """Describe the number of rows of a split and, for a subset, of the whole data set."""
    subset = data.get("subset")
    if not subset:
        return f"{data['rows']:,} rows"
    lost = f", none of {', '.join(subset['without'])}" if subset["without"] else ""
    return f"{data['rows']:,} of {subset['of']:,} rows (subset seed {subset['seed']}{lost})"
