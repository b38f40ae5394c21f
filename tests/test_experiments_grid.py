"""Grid files: the paper's points are in them, and mistakes in one are one sentence."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_compemb.experiments.command_line import ALL, parse
from tf_compemb.experiments.grid import GRIDS, grid_names, read_grid
from tf_compemb.experiments.plan import value_text
from tf_compemb.training.errors import UserError

METHODS = ["full", "hash", "path", "qr", "frequency_threshold"]
SMALL = {"title": "t", "plot": "bytes", "series": [{"name": "full", "embedding": "full"}]}


def packaged(name):
    return read_grid(GRIDS / f"{name}.json", METHODS)


def points(grid):
    return {(s.name, tuple(v) if isinstance(v, list) else v) for s in grid.series for v in s.values}


def written(tmp_path, content):
    file = tmp_path / "own.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def test_every_experiment_has_a_grid():
    assert {*ALL, "headline", "fullscale", "leaderboard_fullscale"} == set(grid_names())
    for name in grid_names():
        grid = packaged(name)
        assert grid.title
        assert grid.source
        assert grid.about
        assert grid.baselines[:2] == ("full", "hash")
        assert all(series.embedding in METHODS for series in grid.series)


@pytest.mark.parametrize("name", ["figure4", "figure5", "figure6", "figure7", "table1"])
def test_the_papers_settings(name):
    grid = packaged(name)
    assert grid.models == ("dcn", "dlrm")
    assert grid.seeds == 5
    # The defaults of PyTorch, which the authors used.
    assert grid.optimizers == (
        {"optimizer": "adagrad", "learning_rate": 0.01},
        {"optimizer": "amsgrad", "learning_rate": 0.001},
    )
    common = {"dim": 16, "batch_size": 128, "epochs": 1}
    assert common.items() <= grid.settings.items()
    wide = [s.name for s in grid.series if s.settings.get("dim", 16) != 16]
    assert wide == (["concat"] if name in ("figure5", "figure6", "figure7") else [])


def test_the_points_of_the_papers_figures_and_table():
    operations = ("feature", "concat", "add", "mult")
    figure5 = {(name, c) for name in ("hash", *operations) for c in (2, 3, 4, 5, 6, 7, 60)}
    assert points(packaged("figure5")) == figure5 | {("full", None)}
    thresholds = {
        (name, t) for name in ("hash", *operations) for t in (1, 20, 200, 2000, 20000)
    } | {("full", None)}
    assert points(packaged("figure6")) == points(packaged("figure7")) == thresholds
    assert packaged("figure6").settings["collisions"] == 4
    assert not packaged("figure7").is_trained
    assert points(packaged("figure4")) == {("full", None), ("hash", None), ("mult", None)}
    hidden = {("path", (h,)) for h in (16, 32, 64, 128)}
    assert points(packaged("table1")) == hidden | {("full", None), ("hash", None)}
    for name in ("figure4", "figure5", "table1"):
        assert packaged(name).settings["threshold"] == 0


def test_the_leaderboard_has_every_method_at_every_budget():
    grid = packaged("leaderboard")
    budgets = {(name, b) for name in METHODS[1:] for b in (2, 4, 10, 60, 1000)}
    assert points(grid) == budgets | {("full", None)}
    assert {s.varied for s in grid.series} == {None, "budget"}


def test_the_leaderboard_at_full_scale_is_one_run_of_each_method():
    grid = packaged("leaderboard_fullscale")
    budgets = {(name, b) for name in METHODS[1:] for b in (4, 10, 60, 1000)}
    assert points(grid) == budgets | {("full", None)}
    assert (grid.seeds, grid.models, len(grid.optimizers)) == (1, ("dlrm",), 1)


def test_the_headline_is_60_collisions_against_4():
    for name in ("figure5", "headline"):
        (headline,) = packaged(name).comparisons
        assert (headline.this, headline.other) == (("mult", 60), ("hash", 4))


def test_a_grid_of_ones_own(tmp_path):
    content = {
        **SMALL,
        "models": ["dlrm"],
        "seeds": 2,
        "vary": {"collisions": [2, 3]},
        "series": [
            {"name": "full", "embedding": "full", "vary": None},
            {"name": "qr", "embedding": "qr", "settings": {"operation": "add"}},
        ],
    }
    grid = read_grid(written(tmp_path, content), METHODS)
    assert (grid.name, grid.models, grid.seeds) == ("own", ("dlrm",), 2)
    assert points(grid) == {("full", None), ("qr", 2), ("qr", 3)}
    assert grid.series[1].settings == {"operation": "add"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is not JSON"),
        ("[]", "must be an object in braces, not []"),
        ({"title": "t"}, "lacks 'plot'"),
        ({**SMALL, "sereis": []}, "unknown key 'sereis'"),
        ({**SMALL, "plot": "pie"}, "'plot' must be of training"),
        ({**SMALL, "models": ["wide"]}, "'models' must be of dcn, dlrm"),
        ({**SMALL, "seeds": 0}, "'seeds' must be an integer from 1 to 10000, not 0"),
        ({**SMALL, "series": []}, "'series' must be a list with entries"),
        ({**SMALL, "series": [{"name": "x"}]}, "a series needs a name and an embedding"),
        ({**SMALL, "series": SMALL["series"] * 2}, "two series have one name"),
        ({**SMALL, "vary": {"collisions": []}}, "a list of values of collisions"),
        ({**SMALL, "vary": {"budget": [0.5]}}, "a number from 1 on"),
        ({**SMALL, "baselines": ["hash"]}, "the baseline 'hash' is no series"),
        ({**SMALL, "optimizers": [{"optimizer": "lion"}]}, "'optimizer' must be of sgd"),
        (
            {**SMALL, "comparisons": [{"title": "c", "this": ["full", 4], "with": ["full", None]}]},
            "has no point ['full', 4]",
        ),
    ],
)
def test_mistakes_in_a_grid_are_one_sentence(content, words, tmp_path):
    file = written(tmp_path, content)
    with pytest.raises(UserError) as caught:
        read_grid(file, METHODS)
    assert words in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_grid_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"none.json cannot be read: No such file"):
        read_grid(tmp_path / "none.json", METHODS)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.sampled_from(sorted({*SMALL, "vary", "models", "optimizers", "comparisons"})), _VALUES)
@settings(max_examples=150, deadline=None)
def test_any_other_value_is_a_user_error_or_a_grid(tmp_path_factory, key, value):
    file = tmp_path_factory.mktemp("grid") / "any.json"
    file.write_text(json.dumps({**SMALL, key: value}))
    try:
        seeds = read_grid(file, METHODS).seeds
    except UserError as error:
        message = str(error)
    else:
        message = f"{file}: {seeds} seeds"
    assert str(file) in message


def test_values_for_people():
    assert value_text("hidden_units", [16, 8]) == "hidden_units=[16, 8]"
    assert value_text("budget", 1000) == "budget=1/1000"


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "give the NAME of an experiment, or --grid FILE"),
        (["figure9"], "no experiment is called 'figure9'; there are figure4, "),
        (["figure5", "--data", "x", "--rows", "9"], "leave it out when --data is given"),
        (["figure5", "--out", __file__], "is a file; give a directory"),
        (["figure5", "--seeds", "0"], "must be at least 1, not 0"),
    ],
)
def test_refused_command_lines_end_with_status_2(argv, words, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse(argv)
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    assert words in line


def test_all_are_the_papers_and_the_leaderboard():
    assert parse(["all", "figure5"]).names == list(ALL)
