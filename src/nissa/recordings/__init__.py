"""Reader for the OTLP JSON lines that runs write: spans, metric streams and log records."""

from nissa.recordings.folders import find_run as find_run
from nissa.recordings.folders import recorded_files as recorded_files
from nissa.recordings.reading import read as read
from nissa.recordings.records import Distribution as Distribution
from nissa.recordings.records import DistributionStream as DistributionStream
from nissa.recordings.records import LogRecord as LogRecord
from nissa.recordings.records import Process as Process
from nissa.recordings.records import Recording as Recording
from nissa.recordings.records import Span as Span
from nissa.recordings.records import SpanEvent as SpanEvent
from nissa.recordings.records import Stream as Stream
from nissa.recordings.records import SumStream as SumStream
