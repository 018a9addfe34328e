"""`trioproxy serve`, as far as the command line goes; `trioproxy.cli.serve` runs the server."""

from cyclopts import App

from trioproxy.cli.output import Failure
from trioproxy.cli.place import HERE, Place

__all__ = ["app"]

app = App(
    name="serve",
    help_epilogue="Example: `trioproxy serve --config /etc/trioproxy.toml`",
)


@app.default
def serve(*, place: Place = HERE) -> None:
    """Run the proxy until SIGTERM or Ctrl-C.

    Without a configuration it listens on 127.0.0.1:1080, and on its first start it makes a user and shows the password.

    Args:
        place: which installation.
    """
    from trioproxy.cli.serve import run_server  # noqa: PLC0415 - loads Trio, which takes longer than most commands
    from trioproxy.server import StartError  # noqa: PLC0415 - as above

    config = place.load()
    try:
        run_server(config, place.config, place.folder())
    except StartError as error:
        raise Failure(str(error)) from error
