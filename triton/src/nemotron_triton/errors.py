"""What this package can raise.

ServingError
├── ProfileError        the file of a model profile is wrong
│   └── UnknownProfileError  there is no model profile of this name
├── RequestError        the caller's request is wrong: do not retry it unchanged
├── AccessError         the caller has no secret, or a wrong one
├── OverloadedError     no room for the request now: retry it later, or elsewhere
│   └── CallerLimitError  the caller has as many requests here as it may
├── DeadlineError       the request's time was up before its answer was complete
├── ClientGoneError     the caller went away
├── TokenizerError      a tokenizer.json is missing, malformed, or not byte-level BPE
├── BundleError         an engine bundle is missing, changed, or made for another place
├── EngineError         the engine cannot start, or failed while generating
└── ServerError         tritonserver is missing, would not start, or died
"""


class ServingError(Exception):
    """Base of every error this package raises on purpose; its text is one line, for a person.

    *detail* is what is wrong, and *remedy* what to do, where the two are kept apart.
    """

    def __init__(self, detail: str, remedy: str = "") -> None:
        self.detail = detail
        self.remedy = remedy
        super().__init__(f"{detail}; {remedy}" if remedy else detail)


class ProfileError(ServingError):
    """The file of a model profile is wrong; the message names the file and the key."""


class UnknownProfileError(ProfileError):
    """There is no model profile of this name; the message lists the known ones."""


class RequestError(ServingError):
    """The caller's request is wrong; the message names the field, the value and what is allowed."""


class AccessError(ServingError):
    """The caller has no secret, or a wrong one."""


class OverloadedError(ServingError):
    """No room for the request now: it is safe to retry later, or elsewhere."""


class CallerLimitError(OverloadedError):
    """The caller has as many requests here as it may."""


class DeadlineError(ServingError):
    """The request's time was up before its answer was complete."""


class ClientGoneError(ServingError):
    """The caller went away; nobody reads this."""


class TokenizerError(ServingError):
    """A tokenizer.json is missing, malformed, or not byte-level BPE."""


class BundleError(ServingError):
    """An engine bundle is missing, changed, or made for another place."""


class EngineError(ServingError):
    """The engine cannot start, or failed while generating."""


class ServerError(ServingError):
    """tritonserver is missing, would not start, or died."""


def first_line(error: BaseException) -> str:
    """The first line of an *error* of another library, or its type's name where it has no text."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
