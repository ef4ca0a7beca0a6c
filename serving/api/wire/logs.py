"""Lines of the farm's log as the API answers them.

An administrator sees a line as it was logged; a tenant sees what became of their job, without the farm's insides.
"""

from typing import Any, Literal

from pydantic import Field

from serving.api.answer import Answer, Milliseconds, Page
from serving.store import log_lines
from serving.store.insides import hide_insides

TENANT_FIELDS = ("take", "pool", "gang", "step", "chunk", "outcome", "times", "resumed", "calls_done", "calls")
"""What a tenant may see beside the message."""


class LogLine(Answer):
    """One event of the farm's log."""

    id: int
    object: Literal["log_line"] = "log_line"
    at: Milliseconds = Field(description="Unix seconds.")
    level: Literal["info", "warning", "error"]
    action: str = Field(description="What happened, for programs.", examples=["call_failed"])
    message: str = Field(description="What happened, for people; without the farm's insides unless an admin asks.")
    job: str | None
    fields: dict[str, Any] = Field(description="Further ids and numbers: take, pool, gang, step, outcome...")

    @classmethod
    def of(cls, line: log_lines.LogLine, *, is_admin: bool) -> "LogLine":
        """A line as an administrator or a tenant sees it."""
        values = vars(line) | {"job": line.job_id}
        if not is_admin:
            fields = {name: line.fields[name] for name in TENANT_FIELDS if name in line.fields}
            values |= {"message": hide_insides(line.message), "fields": fields}
        return cls(**values)


class LogLineList(Page):
    """A page of log lines, oldest first. The next page begins after `last_id`."""

    data: list[LogLine]
    first_id: int | None
    last_id: int | None
    has_more: bool = Field(description="With `after`: there are newer lines. Without: there are older ones.")
