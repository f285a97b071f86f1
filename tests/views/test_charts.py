import math
import re

import pytest

from sdpo_lab import views
from sdpo_lab.core.records import History, StepRecord


def history(values):
    return History(
        [StepRecord(i + 1, v, 0.1, {"success_fraction": v}, []) for i, v in enumerate(values)]
    )


def test_compare_draws_every_run_and_averages_groups():
    chart = views.compare(
        {"one": history([0.0, 0.5, 1.0]), "<b>two": [history([0, 0, 0]), history([1, 1, 1])]},
        window=1,
    )
    picture = chart._repr_html_()
    assert picture.count("<polyline") == 2 and picture.count("<polygon") == 1
    assert (
        "&lt;b&gt;two (2 runs)" in picture
        and "<b>" not in picture
        and "<script" not in picture
        and "http" not in picture
    )
    assert chart.lines[1].y == [0.5, 0.5, 0.5] and list(chart.lines[1].low) == [0, 0, 0]
    assert "one: 0.00 to 1.00" in repr(chart)


def test_points_lie_where_the_values_are():
    chart = views.Chart("t", [views.Line("a", [0, 10], [0.0, 1.0])], y_range=(0, 1))
    (x0, y0), (x1, y1) = [
        tuple(map(float, p.split(",")))
        for p in re.search(r'<polyline points="([^"]+)"', chart._repr_html_()).group(1).split()
    ]
    assert x1 > x0 and y1 < y0  # up is smaller in SVG


def test_gaps_and_single_values_do_not_break_a_chart():
    assert (
        "nan"
        not in views.Chart("t", [views.Line("a", [1, 2, 3], [0.0, math.nan, 1.0])])._repr_html_()
    )
    assert "<svg" in views.Chart("t", [views.Line("a", [1], [0.3])])._repr_html_()


def test_plotly_figure_has_the_same_numbers():
    figure = views.compare({"one": history([0.0, 0.5, 1.0])}, window=1).figure()
    assert list(figure.data[0].y) == [0.0, 0.5, 1.0]


def test_bars_are_proportional():
    picture = views.Bars("t", {"a": 1.0, "b": 2.0}, "bits")._repr_html_()
    widths = [float(w) for w in re.findall(r"width:([\d.]+)%;background", picture)]
    assert widths[1] == pytest.approx(2 * widths[0]) and "1.00 bits" in picture


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match="must be a dictionary"):
        views.compare(history([1.0]))
    with pytest.raises(ValueError, match="'x' has no steps yet"):
        views.compare({"x": History()})
    with pytest.raises(ValueError, match="no metric 'sucess'; there are loss, reward"):
        views.compare({"x": history([1.0])}, metric="sucess")


def test_bars_below_zero_go_to_the_left_of_it():
    page = views.Bars("t", {"up": 3.0, "down": -1.0, "none": 0.0})._repr_html_()
    places = [
        (float(a), float(w)) for a, w in re.findall(r"margin-left:([\d.]+)%;width:([\d.]+)%", page)
    ]
    assert places == [(18.0, 54.0), (0.0, 18.0), (18.0, 0.0)], (
        "zero lies at a quarter of the 72 percent"
    )
    assert "-1.00" in page


@pytest.mark.parametrize(
    "x, y",
    [
        ([0, 1], [-1e308, 1e308]),
        ([0, math.inf], [0, 1]),
        ([-math.inf, math.nan], [0, 1]),
        ([0, 1], [math.inf, -math.inf]),
        ([1e308, -1e308], [0, 1]),
        ([0, 1], [10**400, 0]),
        ([0, 1], [1e300, -1e300]),
        ([0, 1], [0, 5e-324]),
        ([5e-324, 0], [1e17, 1e17]),
        ([1e300], [1e300]),
        ([], []),
    ],
)
def test_points_that_have_no_place_are_left_out(x, y):
    """As the docstring promises; the others stand where they stood."""
    kept = [(a, b) for a, b in zip(x, y) if abs(a) <= 1e300 and abs(b) <= 1e300]
    for chart in (
        views.Chart("t", [views.Line("a", x, y, y, y, True)]),
        views.Chart("t", [views.Line("a", x, y)], y_range=(0, 1), marks={v: "m" for v in x}),
    ):
        picture = chart._repr_html_()
        points = re.search(r'<polyline points="([^"]*)"', picture).group(1).split()
        assert (
            len(points) == len(kept)
            and not re.search(r"[\W_](nan|inf)\b", picture)
            and "nan," not in picture
        )
        assert all(0 <= float(v) <= 720 for point in points for v in point.split(",")) and repr(
            chart
        )
    mixed = views.Chart(
        "t", [views.Line("a", [*x, 3, 4], [*y, 0.5, 0.6]), views.Line("b", [3, 4], [0.5, 0.6])]
    )._repr_html_()
    assert mixed.count("<polyline") == 2


def test_bars_without_a_length_have_no_bar():
    page = views.Bars(
        "t", {"a": 1.0, "b": math.inf, "c": math.nan, "d": 1e308, "e": -2.0}
    )._repr_html_()
    assert (
        [float(w) for w in re.findall(r"%;width:([\d.]+)%", page)] == [24.0, 0.0, 0.0, 0.0, 48.0]
        and "inf" in page
        and "nan %" not in page
    )


def test_a_curve_and_a_comparison_of_rewards_out_of_all_bounds():
    wild = history([0.5, 1e308, -1e308, math.inf, 0.7])
    assert views.curve(wild).lines[0].x == [1, 5] and "<svg" in views.curve(wild)._repr_html_()
    assert (
        views.compare({"a": wild}, "reward", window=1).lines[0].x == [1, 5]
        and "<svg" in views.compare({"a": wild}, "reward")._repr_html_()
    )


def test_a_figure_s_texts_are_no_tags():
    pytest.importorskip("plotly")
    link = "<a href='//evil.example'>x</a>"
    found = views.Chart(link, [views.Line(link, [0, 1], [0, 1])], link, link).figure()
    texts = (
        found.layout.title.text,
        found.layout.xaxis.title.text,
        found.layout.yaxis.title.text,
        found.data[0].name,
    )
    assert set(texts) == {"&lt;a href='//evil.example'&gt;x&lt;/a&gt;"}
