"""Command line interface; one module per command."""

from nissa.cli.app import app as app
from nissa.cli.app import main as main
