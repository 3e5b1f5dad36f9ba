"""Makes src/tellmeter/serve/grafana/*.json of tools/grafana_boards.py: python tools/grafana.py [FOLDER].

Needs grafana-foundation-sdk, which knows the fields that Grafana reads. What it makes is the same every time.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from grafana_boards import BOARDS, Board
from grafana_boards import Panel as Shown
from grafana_foundation_sdk.builders import common, heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders.dashboard import (
    Dashboard,
    DashboardLink,
    DatasourceVariable,
    QueryVariable,
    Row,
    TextBoxVariable,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import BigValueGraphMode, LegendDisplayMode, LegendPlacement, StackingMode
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    VariableOption,
    VariableRefresh,
    VariableSort,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

FOLDER = Path(__file__).parents[1] / "src" / "tellmeter" / "serve" / "grafana"
# The variable, and no datasource of ours: whoever imports it chooses one.
SOURCE = DataSourceRef(type_val="prometheus", uid="${DS}")
APP = 'job=~"$job", instance=~"$instance"'
SHORT = {"<app>": APP, "<llm>": f'{APP}, provider=~"$provider", model=~"$model"', "[r]": "[$__rate_interval]"}
# Where the values of a variable are found. An application may have LLM calls, requests, or neither yet.
VALUES = {
    "job": 'label_values({__name__=~"llm_requests_total|request_count_total|http_requests_total|tellmeter_.+"}, job)',
    "instance": "label_values("
    '{__name__=~"llm_requests_total|request_count_total|http_requests_total|tellmeter_.+", job=~"$job"}, instance)',
    "provider": f"label_values(llm_requests_total{{{APP}}}, provider)",
    "model": f'label_values(llm_requests_total{{{APP}, provider=~"$provider"}}, model)',
}


def board_json(board: Board) -> str:
    """The JSON of one dashboard."""
    made = (
        Dashboard(board.title)
        .uid(f"tellmeter-{board.name}")
        .description(board.description)
        .tags(["tellmeter", "llm"])
        .timezone("browser")
        .time("now-1h", "now")
        .refresh("30s")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .editable()
        .link(
            DashboardLink("tellmeter")
            .type(DashboardLinkType.DASHBOARDS)
            .tags(["tellmeter"])
            .as_dropdown(True)
            .include_vars(True)
            .keep_time(True)
        )
        .with_variable(DatasourceVariable("DS").label("Data source").type("prometheus"))
    )
    for name in ("job", "instance", *board.variables):
        made = made.with_variable(variable(name))
    number = 0
    for title, panels in board.rows:
        number += 1
        made = made.with_row(Row(title).id(number))
        for one in panels:
            number += 1
            made = made.with_panel(panel(one, number))
    return json.dumps(made.build(), cls=JSONEncoder, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def variable(name: str) -> Any:
    """One variable of the bar at the top."""
    if name == "tag":
        feature = VariableOption(selected=True, text="feature", value="feature")
        return TextBoxVariable("tag").label("Tag").default_value("feature").current(feature).options([feature])
    return (
        QueryVariable(name)
        .label(name.capitalize())
        .datasource(SOURCE)
        .query(VALUES[name])
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")  # with the values themselves, what has no provider yet would be left out
        .current(VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def panel(shown: Shown, number: int) -> Any:
    """One panel at the next free place."""
    builder: Any = {"stat": stat, "table": table, "heatmap": heatmap, "timeseries": timeseries}[shown.kind].Panel()
    builder = (
        builder.id(number)
        .title(shown.title)
        .description(shown.description)
        .datasource(SOURCE)
        .span(shown.width)
        .height(8 if shown.kind != "stat" else 5)
        .unit(shown.unit)
    )
    if shown.kind in {"timeseries", "stat"}:
        builder = builder.min(0)
    if shown.most is not None:
        builder = builder.max(shown.most)
    if shown.kind == "timeseries":
        builder = builder.fill_opacity(10).legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs([])
        )
        if shown.stacked:
            builder = builder.fill_opacity(40).stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A"))
    if shown.kind == "stat":
        last = common.ReduceDataOptions().calcs(["lastNotNull"]).values(False).fields("")
        builder = builder.reduce_options(last).graph_mode(BigValueGraphMode.NONE)
    if shown.kind == "table":
        builder = builder.show_header(True)
    if shown.kind == "heatmap":
        builder = (
            builder.calculate(False).show_legend().hide_y_histogram().y_axis(heatmap.YAxisConfig().unit(shown.unit))
        )
    for letter, (expr, legend) in zip("ABCDEFGH", shown.queries, strict=False):
        builder = builder.with_target(query(shown.kind, letter, expr, legend))
    return builder


def query(kind: str, letter: str, expr: str, legend: str) -> prometheus.Dataquery:
    """One query of a panel."""
    for short, long in SHORT.items():
        expr = expr.replace(short, long)
    made = prometheus.Dataquery().ref_id(letter).datasource(SOURCE).expr(expr).legend_format(legend or "__auto")
    made = made.instant() if kind in {"stat", "table"} else made.range()
    if kind == "table":
        return made.format(PromQueryFormat.TABLE)
    return made.format(PromQueryFormat.HEATMAP if kind == "heatmap" else PromQueryFormat.TIME_SERIES)


def main(folder: Path) -> None:
    """Write every dashboard to `folder`, and take away what is no longer one."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.json"):
        if old.stem not in {board.name for board in BOARDS}:
            old.unlink()
    for board in BOARDS:
        (folder / f"{board.name}.json").write_text(board_json(board), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
