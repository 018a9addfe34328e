"""The human log on stderr: one line for each event, safe against what strangers put into names."""

import logging
import sys
from collections.abc import Callable
from typing import Any

import structlog

from trioproxy.accounting import LineSink
from trioproxy.accounting.sinks import Sink

__all__ = ["configure_log", "get_log"]

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class _SinkLogger:
    """What structlog calls with the finished line."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def msg(self, message: str) -> None:
        self._sink.write(message.encode("utf-8", "backslashreplace"))

    debug = info = warning = error = critical = exception = msg


def configure_log(level: str, *, sink: Sink | None = None) -> Sink:
    """Send the log to stderr (or `sink`), through a thread: a stalled terminal must not stop the event loop."""
    sink = sink or LineSink(sys.stderr.fileno, close_descriptor=False)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            # Values are printed by repr, which escapes what does not print; event texts are our own constants.
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                exception_formatter=structlog.dev.plain_traceback,  # the rich one prints locals: passwords, that is
                pad_event_to=0,
                repr_native_str=True,
            ),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=_factory(sink),
        cache_logger_on_first_use=False,
    )
    return sink


def _factory(sink: Sink) -> Callable[..., _SinkLogger]:
    return lambda *_args: _SinkLogger(sink)


def get_log() -> Any:  # noqa: ANN401 - structlog's bound loggers are untyped by design
    """The log of this process."""
    return structlog.get_logger()
