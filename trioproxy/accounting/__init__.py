"""What is kept of a flow: its meter while it runs, one record when it has ended, and where the records go."""

from trioproxy.accounting.record import Flow, FlowRecord, Termination, ended_by, escaped
from trioproxy.accounting.sinks import LineSink, NullSink

__all__ = ["Flow", "FlowRecord", "LineSink", "NullSink", "Termination", "ended_by", "escaped"]
