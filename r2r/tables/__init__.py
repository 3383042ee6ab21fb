"""What lies between the stages: tables (`schemas`), atomic writing (`writing`), TREC runs (`runs`). Knows no stage."""

from r2r.tables.runs import run_id, write_run
from r2r.tables.schemas import SCHEMAS, checked, content, content_of, files, path, ranked, read
from r2r.tables.writing import clear, replacing, seal, write, write_part, write_text

__all__ = [
    "SCHEMAS",
    "checked",
    "clear",
    "content",
    "content_of",
    "files",
    "path",
    "ranked",
    "read",
    "replacing",
    "run_id",
    "seal",
    "write",
    "write_part",
    "write_run",
    "write_text",
]
