"""Sets up the log of a process of ours: every one calls this once, and nothing else configures logging.

Lines go to stderr: words on a terminal, else JSON as cluster/contract/log_lines.py has it; LONGTAKE_LOG=json or text
decides.
"""

import logging
import sys

from cluster.contract.log_lines import FORMS, TEXT, choose_formatter
from serving.settings import log_form

log = logging.getLogger(__name__)


def set_up_logs(*, text: str = TEXT, level: int = logging.INFO) -> None:
    """Our lines of `level` and above go to stderr. `text` is how they look on a terminal."""
    form = log_form()
    stderr = sys.__stderr__ or sys.stderr  # Serve puts a stream of its own in its place, which writes lines anew
    handler = logging.StreamHandler(stderr)
    handler.setFormatter(choose_formatter(form, is_terminal=stderr.isatty(), text=text))
    logging.basicConfig(level=level, handlers=[handler])
    for chatty in ("httpx", "alembic"):  # a line for each request, and for each look at the tables' version
        logging.getLogger(chatty).setLevel(logging.WARNING)
    if form not in ("", *FORMS):
        log.warning("LONGTAKE_LOG must be json or text, not %r", form[:20], extra={"action": "set_up_logs"})
