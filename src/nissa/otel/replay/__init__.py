"""Sends the OTLP JSON files of a run to a collector: what `nissa replay` does."""

from nissa.otel.replay.replaying import Replayed as Replayed
from nissa.otel.replay.replaying import replay as replay
