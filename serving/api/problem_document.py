"""How errors look on the wire: RFC 9457's problem documents, and OpenAI's errors."""

from pydantic import Field

from serving.api.answer import Answer, optional


class Problem(Answer):
    """One thing wrong in what was sent."""

    path: str = Field(
        description="Where, as a user would write it; empty for the whole.", examples=["shots[2].seconds"]
    )
    message: str
    value: str | None = Field(description="The offending value, shortened.")
    nearest: str | None = Field(description="What was probably meant.")
    line: int | None = Field(description="Line of the storyboard, from 1, if it was sent as text.")


class ProblemDocument(Answer):
    """An error as RFC 9457 has it. `code` is for programs, `detail` for people."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str = Field(description="For programs: does not change.", examples=["invalid_request"])
    problems: list[Problem] | None = optional("What is wrong, if a request was refused.")
    allowed: list[str] | None = optional("What the job can be asked to do instead.")


class OpenAIErrorBody(Answer):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(Answer):
    """An error as OpenAI has it."""

    error: OpenAIErrorBody
