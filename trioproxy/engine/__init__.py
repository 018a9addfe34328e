"""What sessions run on: sockets with one registration each, and fibers, which cost a fraction of a task.

`Engine` does it with an epoll of its own, `PortableEngine` with nothing but Trio; a session cannot tell them apart.
"""

from trioproxy.engine.channel import Channel
from trioproxy.engine.engine import Engine
from trioproxy.engine.fiber import Cut, Fiber
from trioproxy.engine.timers import Timers

__all__ = ["Channel", "Cut", "Engine", "Fiber", "Timers"]
