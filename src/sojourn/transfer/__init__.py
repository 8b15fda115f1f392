"""Moving sessions: to a file and back, and from one store to another while both are in use.

`export_sessions` writes all that a store keeps to a file that people can read, `import_sessions`
puts such a file into any store, `copy` makes one store follow another. Sessions arrive exactly as
they were: revision, epoch, log, documents, deadlines. All three read and write page by page, so
their memory does not grow with the number of sessions, nor with the size of one. The stores have to
be open, and to support `sojourn.store.SupportsTransfer`.
"""

from sojourn.transfer.checksum import checksum
from sojourn.transfer.copying import Copied, copy
from sojourn.transfer.exporting import Exported, export_sessions
from sojourn.transfer.importing import Imported, import_sessions
from sojourn.transfer.putting import Refusal
from sojourn.transfer.walking import Progress

__all__ = [
    "Copied",
    "Exported",
    "Imported",
    "Progress",
    "Refusal",
    "checksum",
    "copy",
    "export_sessions",
    "import_sessions",
]
