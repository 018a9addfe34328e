"""What sessions run on: sockets with one registration each, and fibers, which cost a fraction of a task.

`Engine` does it with nothing but Trio; `EpollEngine` does the same with an epoll of its own, for Linux. A session
cannot tell them apart.
"""

from trioproxy.engine.channel import Channel
from trioproxy.engine.portable import Engine, Fiber
from trioproxy.engine.timers import Timers

__all__ = ["Channel", "Engine", "Fiber", "Timers"]
