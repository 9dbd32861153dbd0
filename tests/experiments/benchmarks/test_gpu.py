"""The GPU script rehearsed on a CPU at tiny size: every section measures, and both files have the same figures."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments.benchmarks import gpu
from experiments.benchmarks.gpu import main
from experiments.benchmarks.sections import DONE, FAILED, SKIPPED, Figure, Section

SECTIONS = ["parity", "ceilings", "training", "memory", "inference", "cache", "crf", "varlen", "monitor", "waiting"]
SECTIONS.append("training-mner")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The report of a rehearsal, with its table under `table`."""
    folder = tmp_path_factory.mktemp("gpu")
    nowhere = str(folder / "nowhere")
    assert main(["--size", "tiny", "--no-compile", "--output", str(folder), "--data-root", nowhere]) == 0
    content: dict[str, Any] = json.loads((folder / "gpu.json").read_text())
    return {**content, "table": (folder / "gpu.md").read_text()}


def figures(report: dict[str, Any], name: str) -> dict[str, dict[str, Any]]:
    (section,) = (section for section in report["sections"] if section["name"] == name)
    return {figure["what"]: figure for figure in section["figures"]}


def test_every_section_measures_all_of_its_figures(report: dict[str, Any]) -> None:
    assert [section["name"] for section in report["sections"]] == SECTIONS
    for section in report["sections"]:
        assert (section["status"], section["error"]) == (DONE, ""), section["name"]
        for what, figure in figures(report, section["name"]).items():
            assert figure["error"] == "", what
            if figure["note"] != "not installed: left out":
                assert figure["value"]["low"] <= figure["value"]["median"] <= figure["value"]["high"], what
            assert f"| {section['name']} | {what} |" in report["table"]


def test_float32_agrees_with_float64_and_bf16_less(report: dict[str, Any]) -> None:
    found = {what: figure["value"]["median"] for what, figure in figures(report, "parity").items()}
    for task in ("mre", "mner"):
        assert 0 < found[f"{task}, cpu, float32, gradients"] < 1e-5 < found[f"{task}, cpu, bf16, gradients"] < 0.1


def test_training_is_compared_with_the_recipe_at_every_precision(report: dict[str, Any]) -> None:
    for name in ("training", "training-mner"):
        found = figures(report, name)
        assert list(found) == [
            *(f"batch 2, recipe, {arithmetic}" for arithmetic in ("float32", "TF32")),
            *(f"batch 2, ours, {arithmetic}" for arithmetic in ("float32", "TF32", "bf16")),
        ]
        first = found["batch 2, recipe, float32"]
        assert first["times"] == 1
        for figure in found.values():
            assert figure["of_ceiling"] > 0
            assert figure["times"] == pytest.approx(figure["value"]["median"] / first["value"]["median"])


def test_packed_and_padded_posts_have_the_same_states(report: dict[str, Any]) -> None:
    found = figures(report, "varlen")
    differences = [figure["value"]["median"] for what, figure in found.items() if "difference" in what]
    assert len(differences) == 2
    assert max(differences) < 1e-5


def test_host_synchronisations_of_the_recipe_are_located_in_its_code(report: dict[str, Any]) -> None:
    reads = figures(report, "waiting")["twitter2017, batch 2, recipe, float32, values read by the host"]
    assert reads["value"]["median"] > 20
    assert "experiments/benchmarks/recipe.py:" in reads["note"]


def test_without_a_compiler_everything_else_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-compiler")
    assert main(["--size", "tiny", "--sections", "training", "--output", str(tmp_path)]) == 1
    found = figures(json.loads((tmp_path / "gpu.json").read_text()), "training")
    assert "there is no C++ compiler 'no-compiler' here" in found.pop("torch.compile")["error"]
    assert len(found) == 5
    assert all(figure["value"] for figure in found.values())


@pytest.fixture
def two_sections(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Iterator[Figure]:
        yield Figure("first")
        raise RuntimeError("CUDA error: an illegal | memory access\nand more")

    sections = [Section("broken", "fails", 1.0, broken), Section("whole", "does not", 1.0, lambda: iter([Figure("x")]))]
    monkeypatch.setattr(gpu.Workbench, "sections", lambda self: sections)


@pytest.mark.usefixtures("two_sections")
def test_a_failing_section_is_reported_and_the_others_continue(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--output", str(tmp_path)]) == 1
    broken, whole = json.loads((tmp_path / "gpu.json").read_text())["sections"]
    assert (broken["status"], whole["status"]) == (FAILED, DONE)
    assert [figure["what"] for figure in broken["figures"]] == ["first"]
    printed = capsys.readouterr()
    assert "RuntimeError: CUDA error: an illegal \\| memory access |" in printed.out
    assert "broken: RuntimeError" in printed.err


@pytest.mark.usefixtures("two_sections")
def test_nothing_starts_without_a_time_budget(tmp_path: Path) -> None:
    assert main(["--output", str(tmp_path), "--budget", "0"]) == 1
    content = json.loads((tmp_path / "gpu.json").read_text())
    assert [section["status"] for section in content["sections"]] == [SKIPPED, SKIPPED]
    assert "the budget of 0 s was spent before it" in (tmp_path / "gpu.md").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sections", "parities"], "there is no section 'parities': choose from parity, ceilings, training"),
        (["--bundle", "nowhere"], "--bundle nowhere holds no folder tokenizer: make it with `make gpu-bundle`"),
        (["--budget", "soon"], "argument --budget: invalid float value: 'soon'"),
    ],
)
def test_bad_options_are_refused_in_one_sentence(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(options)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
