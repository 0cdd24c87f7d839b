"""Journal: telemetry on disk before it is sent, so that it survives the process and an absent collector."""

from nissa.journal.file_journal import FileJournal as FileJournal
from nissa.journal.framing import SIGNALS as SIGNALS
from nissa.journal.framing import Frame as Frame
from nissa.journal.framing import Kind as Kind
from nissa.journal.framing import Signal as Signal
from nissa.journal.lane import DamagedFrame as DamagedFrame
from nissa.journal.owner_lock import OwnerState as OwnerState
from nissa.journal.owner_lock import states_of_owners as states_of_owners
from nissa.journal.rotating_file import line_files as line_files
from nissa.journal.spool import Spool as Spool
from nissa.journal.spool import destinations_of as destinations_of
from nissa.journal.spool import frames as frames
from nissa.journal.spool import spools as spools
