"""The command line; one file for each command."""

from nissa.cli.app import app as app
from nissa.cli.app import main as main
