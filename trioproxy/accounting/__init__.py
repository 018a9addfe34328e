"""What is kept of a flow: its meter while it runs, one record when it has ended, and where the records go."""

from trioproxy.accounting.record import Charged, Flow, FlowRecord, Termination, ended_by, escaped
from trioproxy.accounting.sinks import LineSink, NullSink
from trioproxy.accounting.usage import NullUsage, QuotaKey, Usage

__all__ = [
    "Charged",
    "Flow",
    "FlowRecord",
    "LineSink",
    "NullSink",
    "NullUsage",
    "QuotaKey",
    "Termination",
    "Usage",
    "ended_by",
    "escaped",
]
