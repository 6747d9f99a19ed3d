"""What a call can raise.

ClientError
├── ServerUnavailable   nothing answered, or it takes no request now: safe to retry
├── DeadlineExceeded    it answered too late: retry with a longer timeout_s
├── RequestRejected     it answered no: do not retry unchanged
└── StreamBroken        the answer stopped in the middle: what came before is incomplete
"""


class ClientError(Exception):
    """Base of every error this package raises on purpose."""


class ServerUnavailable(ClientError):
    """Nothing answered, or the server has no room now or is stopping: safe to retry."""


class DeadlineExceeded(ClientError):
    """The answer was not complete in time: retry with a longer `timeout_s`."""


class RequestRejected(ClientError):
    """The server refused the request; the message is the server's: do not retry unchanged."""


class StreamBroken(ClientError):
    """The answer stopped in the middle; what came before is incomplete."""
