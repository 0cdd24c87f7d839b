"""Reference page of boards, recording rules and alerts."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from dashboards import alerts, recording
from dashboards.board import Board
from dashboards.boards import BOARDS

Table = Callable[[Sequence[str], Iterable[Sequence[str]]], str]


def boards(table: Table) -> str:
    """Return the page.

    Args:
        table: Renders a table.
    """
    return (
        "# Boards, rules and alerts\n\n"
        "Meaning and queries of each panel. Grafana replaces variables, which begin with `$`. [Boards](../how-to/boards.md) "
        "explains how to read and change boards.\n\n"
        + "\n".join(_board(board, table) for board in BOARDS)
        + "\n## Recording rules\n\n"
        + table(
            ["series", "query", "why"],
            [[f"`{rule.name}`", f"`{rule.expression}`", rule.why] for rule in recording.ALL],
        )
        + "\n## Alerts\n\n"
        + table(
            ["alert", "severity", "for", "query"],
            [
                [
                    f"[{each.name}](../how-to/alerts.md#{each.name.lower()})",
                    each.severity,
                    each.hold,
                    f"`{each.expression}`",
                ]
                for each in alerts.ALL
            ],
        )
    )


def _board(board: Board, table: Table) -> str:
    return f"## {board.title}\n\n{board.description}\n\n{table(['panel', 'meaning', 'queries'], _panels(board))}"


def _panels(board: Board) -> Iterator[list[str]]:
    for row in board.rows:
        for _, panel in row.panels:
            queries = (each["expr"] if "expr" in each else _of_jaeger(each) for each in panel["targets"])
            yield [panel["title"], panel["description"], "<br>".join(f"`{each}`" for each in queries)]


def _of_jaeger(target: dict[str, object]) -> str:
    if "query" in target:
        return f"the trace {target['query']}"
    return f"traces with the span {target['operation']} and {target['tags']}"
