"""Single import of plotly, an optional dependency, with an error message that names the extra to install."""

from nissa.errors import ConfigurationError

try:
    import plotly.graph_objects as go
    from plotly.offline import get_plotlyjs
except ImportError as error:
    raise ConfigurationError("Figures need plotly, which is not installed: pip install 'nissa[report]'") from error

__all__ = ["get_plotlyjs", "go"]
