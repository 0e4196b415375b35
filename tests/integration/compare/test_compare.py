"""`darkroom compare` prints and writes what it found, and refuses in one paragraph what it can't do."""

from __future__ import annotations

import csv
import re
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from support.heavy_imports import loaded
from support.html import Page, shown_in_a_browser

from darkroom.experiments.cli.main import main
from darkroom.experiments.reporting.svg import ChartLine, dot_chart, line_chart, rank_chart


@pytest.fixture(scope="session")
def pages(trained_folder: Path) -> Path:
    """The comparison of all trained runs in every format."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(trained_folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{trained_folder / 'mlflow.db'}")
        out = [f"--out=found.{suffix}" for suffix in ("md", "tex", "csv", "html")]
        rope = ["--rope=0.01"] if find_spec("baycomp") else []
        assert main(["compare", "digits/cnn", *rope, *out]) == 0
    return trained_folder


def test_it_reads_records_without_torch(trained_store):
    use = "from darkroom.experiments.cli.main import main; sys.exit(main(['compare', 'digits/cnn']))"
    status, *libraries = loaded(use, Path.cwd())
    assert status == "0"
    assert {"torch", "pytorch_lightning", "timm", "torchmetrics", "optuna", "matplotlib"}.isdisjoint(
        libraries
    )


def test_it_prints_each_group_each_pair_and_what_can_be_said(trained_store, capsys):
    assert main(["compare", "digits/cnn"]) == 0
    printed = capsys.readouterr().out
    assert "test/accuracy" in printed
    assert "widths=[8]" in printed
    assert "widths=[2]" in printed
    assert re.search(r"^A - B: ", printed, flags=re.MULTILINE)
    assert "a single seed of B: how much seeds vary is not known" in " ".join(printed.split())


def test_the_csv_has_the_numbers_of_the_runs(pages, trained_store):
    (best, other) = csv.DictReader((pages / "found.csv").open())
    by_widths: dict[str, list[float]] = {}
    for run in trained_store.runs_of("digits/cnn"):
        widths = run.params["model.backbone_options.widths"]
        by_widths.setdefault(widths, []).append(run.metrics["test/accuracy"])
    for row in (best, other):
        values = by_widths[row["model.backbone_options.widths"]]
        assert float(row["mean"]) == pytest.approx(np.mean(values))
        assert int(row["num_seeds"]) == len(values)
    assert float(best["mean"]) > float(other["mean"])
    (pair,) = csv.DictReader((pages / "found-pairs.csv").open())
    assert float(pair["difference"]) == pytest.approx(float(best["mean"]) - float(other["mean"]))


def test_the_markdown_has_tables_whose_lines_have_as_many_cells_as_their_heads(pages):
    tables = re.findall(r"(?:^\|.*\n)+", (pages / "found.md").read_text(), flags=re.MULTILINE)
    assert len(tables) == 4
    for table in tables:
        lines = table.strip().splitlines()
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1
        assert len(lines) > 2


def test_the_latex_is_balanced_escaped_and_of_booktabs(pages):
    text = (pages / "found.tex").read_text()
    for name in ("table", "tabular"):
        assert text.count(f"\\begin{{{name}}}") == text.count(f"\\end{{{name}}}") == 4
    assert text.count("\\toprule") == text.count("\\midrule") == text.count("\\bottomrule") == 4
    body = re.sub(r"\\[&%$#_{}]", "", text)
    assert body.count("{") == body.count("}")
    rows = [line for line in body.splitlines() if line.endswith("\\\\")]
    assert "_" not in "".join(rows)
    assert "%" not in "".join(rows)
    for columns, table in re.findall(r"tabular\}\{(\w+)\}(.*?)\\bottomrule", body, flags=re.DOTALL):
        for line in table.splitlines():
            if line.endswith("\\\\"):
                assert line.count("&") == len(columns) - 1


def test_the_page_is_one_well_formed_file_that_fetches_nothing(pages):
    text = (pages / "found.html").read_text()
    page = Page(text)
    assert page.open == []
    assert page.fetched
    assert all(source.startswith("data:image/") for source in page.fetched)
    for heading in ("Learning curves", "ROC", "Classes", "Mistakes in common", "A right, B wrong"):
        assert f"<h2>{heading}</h2>" in text
    for svg in re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL):
        ElementTree.fromstring(svg)


def test_the_images_in_dispute_are_those_that_one_group_is_right_about(pages, trained_store):
    text = (pages / "found.html").read_text()
    section = text.partition("<h2>A right, B wrong</h2>")[2].partition("<h2>")[0]
    shown = re.findall(r"<figcaption>(\d), not (\d)<br>(.*?)</figcaption>", section)
    assert shown
    frames = {}
    for run in trained_store.runs_of("digits/cnn"):
        frame = run.predictions("test").set_index("id")
        frame["said"] = frame.filter(regex="prob_").to_numpy().argmax(1)
        frames.setdefault(run.params["model.backbone_options.widths"], []).append(frame)
    for truth, said, name in shown:
        assert all(
            frame.loc[name, "said"] == frame.loc[name, "target"] == int(truth) for frame in frames["[8]"]
        )
        assert frames["[2]"][0].loc[name, "said"] == int(said) != int(truth)


def test_the_page_shows_no_error_in_a_browser_and_its_tables_sort(pages, tmp_path):
    page = (pages / "found.html").read_text()
    click = (
        "<script>document.querySelectorAll('table.sortable')[1].querySelectorAll('th')[2].click()</script>"
    )
    (tmp_path / "page.html").write_text(page.replace("</body>", f"{click}</body>"))
    document = shown_in_a_browser(tmp_path / "page.html", tmp_path / "profile")
    shown = document.partition("<h2>test/accuracy</h2>")[2].partition("</table>")[0]
    assert re.findall(r'<td class="word">([AB])</td>', shown) == ["B", "A"]  # by their means, lowest first


def test_without_the_data_the_page_is_written_without_its_images(trained_store, tmp_path):
    (run,) = [run for run in trained_store.runs_of("digits/cnn") if run.params["seed"] == "1"]
    other = trained_store.runs_of("digits/cnn")[0].run_id
    assert main(["compare", run.run_id, other, f"--out={tmp_path / 'a.html'}", "--data.test_fraction=2"]) == 0
    assert "Left out: the data is not available here" in (tmp_path / "a.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "which runs?"),
        (["nothing"], "no run in"),
        (["digits/cnn", "--metric=test/acuracy"], "did you mean accuracy"),
        (["digits/cnn", "--metric=train/accuracy"], "must be of test or val"),
        (["digits/cnn", "--out=a.pdf"], "must name a file that ends in .md, .tex, .csv or .html"),
        (["digits/cnn", "--out=nowhere/a.md"], "there is no folder"),
        (["digits/cnn", "--model.lr=1"], "model.lr can't be changed: recorded runs are compared"),
        (["--where", "tags.recipe = 'nothing'"], "no run is there for --where"),
    ],
)
def test_what_can_not_be_done_is_refused_in_one_paragraph(trained_store, capsys, arguments, words):
    assert main(["compare", *arguments]) == 2
    errors = capsys.readouterr().err
    assert words in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize("metric", ["f1_macro", "auroc", "log_loss", "val/ece", "loss"])
def test_every_recorded_metric_is_compared(trained_store, capsys, metric):
    assert main(["compare", "digits/cnn", f"--metric={metric}"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert ("does not follow from predictions alone" in printed) == (metric == "loss")


def test_a_curve_stands_where_its_values_do():
    x, y = np.array([1.0, 2, 3]), np.array([0.0, 1, 0.5])
    svg = ElementTree.fromstring(line_chart([ChartLine("A", "red", x, y, y, y)], "epoch", "loss"))
    points = [tuple(map(float, each.split(","))) for each in svg.find("polyline").get("points").split()]
    assert points[1][0] - points[0][0] == pytest.approx(points[2][0] - points[1][0])
    rise = points[0][1] - points[1][1]
    assert points[2][1] - points[1][1] == pytest.approx(rise / 2, abs=0.2)


def test_the_ranks_have_a_bar_over_those_not_told_apart():
    svg = ElementTree.fromstring(rank_chart(["A", "B", "C"], [0.99, 0.98, 0.9], [(0, 1)]))
    (bar,) = [line for line in svg.findall("line") if line.get("stroke-width") == "4"]
    places = {line.get("stroke"): float(line.get("points").split(",")[0]) for line in svg.findall("polyline")}
    c, b, a = sorted(places.values())
    assert float(bar.get("x1")) == pytest.approx(b - 4, abs=0.2)
    assert float(bar.get("x2")) == pytest.approx(a + 4, abs=0.2)
    assert c < b - 50


def test_dots_of_equal_values_are_drawn():
    ElementTree.fromstring(dot_chart(["a & b"], ["A", "B"], np.ones((1, 2)), "F1"))
