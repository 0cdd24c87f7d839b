"""The boards, one a file."""

from typing import Final

from dashboards.board import Board
from dashboards.boards import blueprints, gradients, overview, seeds, telemetry

BOARDS: Final[tuple[Board, ...]] = (overview.BOARD, gradients.BOARD, seeds.BOARD, blueprints.BOARD, telemetry.BOARD)
