"""Starting the server: descriptors, logs, the store, the first user, and one clear line if something is in the way."""

import gc
import resource
import shutil
import signal
import sys
from pathlib import Path

import trio

from trioproxy.accounting import LineSink, NullSink
from trioproxy.accounting.sinks import Sink
from trioproxy.cli.first_start import FirstLogin, prepare
from trioproxy.cli.output import say
from trioproxy.cli.place import RECORDS_FILE
from trioproxy.config import Config
from trioproxy.limits import raise_descriptor_limit
from trioproxy.log import configure_log, get_log
from trioproxy.resolve import forget_search_domains
from trioproxy.server import Server, StartError
from trioproxy.store import Store, StoreError, login_problems, usage_path
from trioproxy.store.usage_writer import UsageWriter

__all__ = ["run_server"]


def run_server(config: Config, config_path: Path | None, data_dir: Path) -> None:
    """Run until a signal ends it.

    Args:
        config: as read.
        config_path: what SIGHUP reads again; None if there is no file.
        data_dir: for the store and the records, unless the configuration names other places.

    Raises:
        StartError: it cannot start; the text is one line.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold passwords
    raise_descriptor_limit()
    forget_search_domains()
    log_sink = configure_log(config.log.level)
    try:
        _run(config, config_path, data_dir)
    finally:
        log_sink.close()


def _run(config: Config, config_path: Path | None, data_dir: Path) -> None:
    try:
        store = Store.open(config.store.url or data_dir / "trioproxy.db", create=True)
        for problem in login_problems(store.snapshot().users.values()):
            get_log().warning("a user cannot log in", problem=problem)
        records = _open_records(config, data_dir)
    except StoreError as exc:
        raise StartError(str(exc)) from exc
    except OSError as exc:
        raise StartError(f"{exc.filename}: {exc.strerror}") from exc
    usage = UsageWriter(usage_path(store.path), config.usage.retention_days)
    server = Server(config, store, records, usage=usage, config_path=config_path)
    try:
        trio.run(_serve, server, config, config_path is None)
    except BaseExceptionGroup as group:
        # Not `except*`: Python before 3.11.4 wraps what is raised in it into a group again.
        start_error, rest = group.split(StartError)
        if start_error is None or rest is not None:
            raise
        raise StartError(str(start_error.exceptions[0])) from group
    finally:
        usage.close()
        records.close()


def _open_records(config: Config, data_dir: Path) -> Sink:
    match config.log.records:
        case "none":
            return NullSink()
        case "stdout":
            return LineSink(lambda: 1, close_descriptor=False)
        case path:
            if path is None:
                data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            return LineSink.to_file(Path(path) if path else data_dir / RECORDS_FILE)


async def _serve(server: Server, config: Config, may_be_first: bool) -> None:
    async with trio.open_nursery() as nursery:
        # The listeners first: whoever finds the port in use must not lose a password that is shown only once.
        listening = await nursery.start(server.run)
        # Before anybody is told that we listen: a signal that nobody receives yet would be the end of us.
        await nursery.start(_obey_signals, server)
        first = await trio.to_thread.run_sync(prepare, server.store_path, config) if may_be_first else None
        if first is not None:
            await server.until_read(first.revision)
        _spare_the_collector()
        _welcome(listening, first, server.store_path.absolute())
        await server.stopped.wait()
        nursery.cancel_scope.cancel()


def _spare_the_collector() -> None:
    """Let the search for cycles leave alone what was there at the start, and come less often.

    Sessions leave none (tests/test_session_cycles.py), so it finds next to nothing; measured, it took a sixth of the
    time of each.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


async def _obey_signals(server: Server, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
    """SIGTERM and SIGINT drain, the second one ends at once; SIGHUP reloads; SIGUSR1 writes the counters to the log."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1) as signals:
        task_status.started()
        async for number in signals:
            match number:
                case signal.SIGHUP:
                    await server.reload()
                case signal.SIGUSR1:
                    get_log().info("counters", open_sessions=server.open_sessions, **server.all_counters())
                case _:
                    server.stop()


def _program() -> str:
    """How this program can be called again: it need not be where the shell looks."""
    if shutil.which("trioproxy") is not None:
        return "trioproxy"
    return "python3 -m trioproxy" if sys.argv[0].endswith("__main__.py") else sys.argv[0]


def _welcome(listening: list[str], first: FirstLogin | None, store_path: Path) -> None:
    say(f"trioproxy listens on {', '.join(listening)}; users and rules are in {store_path}")
    if first is None:
        return
    text = f"""
First start. A user was made for you; the password is shown this once only:

    user      {first.name}
    password  {first.password}

Try it from another terminal:

    curl -x socks5h://{first.name}:{first.password}@{listening[0]} https://example.org/

`{_program()} user --help` and `{_program()} rule --help` tell how to go on. Ctrl-C stops the server."""
    say(*text.splitlines())
