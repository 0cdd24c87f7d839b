"""Plotly figures from series, grids and swimlanes, independent of the data source (files or a server)."""

from nissa.charts.distribution import band_chart as band_chart
from nissa.charts.grid import Grid as Grid
from nissa.charts.grid import gather as gather
from nissa.charts.heatmap import heatmap as heatmap
from nissa.charts.line_chart import lines as lines
from nissa.charts.series import Series as Series
from nissa.charts.series import thin as thin
from nissa.charts.swimlane import Bar as Bar
from nissa.charts.swimlane import Lane as Lane
from nissa.charts.swimlane import Mark as Mark
from nissa.charts.swimlane import swimlane as swimlane
