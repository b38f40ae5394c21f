"""`tf-compemb serving serve`: the local server as a program."""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tf_compemb._native_log import import_tensorflow_quietly
from tf_compemb.missing_packages import MODULES, require
from tf_compemb.training.errors import UserError
from tf_compemb.training.option_types import port, positive_integer, positive_number

_log = logging.getLogger("tf_compemb.serving")

_WHAT = (
    "Serves SavedModels with TensorFlow Serving's gRPC and REST API on this machine. It is the "
    "embedded default for one machine, for development, tests and measurements, and no replacement "
    "of TensorFlow Serving: no encryption, no authentication, and loopback only unless told."
)
# A freed table of this size goes back to the system at once. glibc raises its threshold by itself
# after the first large free, and then keeps the memory of unloaded models.
_MMAP_THRESHOLD_BYTES = 4 << 20
_M_MMAP_THRESHOLD = -3


def add_serve(commands: Any) -> None:
    """Adds the sub-command to argparse's sub-parsers; its function is in `run`."""
    parser = commands.add_parser(
        "serve", help="serve models over gRPC and REST on this machine", description=_WHAT
    )
    parser.set_defaults(run=run_serve)
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL_DIR",
        help="a directory with a numeric folder for each version of a model; requests name it by "
        "the directory's name, or by NAME in NAME=DIR",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: %(default)s)"
    )
    ports = (("--grpc-port", 8500, "gRPC"), ("--rest-port", 8501, "REST"))
    for option, usual, name in ports:
        parser.add_argument(
            option,
            type=port,
            default=usual,
            metavar="PORT",
            help=f"port of {name}; 0 for any that is free (default: {usual})",
        )
    parser.add_argument(
        "--poll-seconds",
        type=positive_number,
        default=1.0,
        metavar="SECONDS",
        help="time between two looks for new versions (default: 1)",
    )
    parser.add_argument(
        "--max-batch-size",
        type=positive_integer,
        metavar="ROWS",
        help="put requests together up to so many rows; off by default",
    )
    parser.add_argument(
        "--batch-timeout-micros",
        type=positive_integer,
        default=1000,
        metavar="MICROS",
        help="how long a request waits for others, with --max-batch-size (default: 1000)",
    )
    bounds = (
        (
            "--max-request-bytes",
            64 << 20,
            "bytes of a request, in either protocol, decompressed; all that run or wait may have "
            "256 MiB together, or four of the largest, where those over REST count four times",
        ),
        ("--max-requests", 256, "requests that run or wait; one more is refused"),
    )
    for option, most, what in bounds:
        parser.add_argument(
            option,
            type=positive_integer,
            default=most,
            metavar="N",
            help=f"{what} (default: {most})",
        )
    parser.add_argument(
        "--threads",
        type=positive_integer,
        metavar="N",
        help="requests that run at the same time, or wait in a batch (default: 4 for each "
        "processor; with --max-batch-size as many as --max-requests)",
    )
    parser.add_argument(
        "--intra-op-threads", type=positive_integer, metavar="N", help="threads within an operation"
    )
    parser.add_argument(
        "--inter-op-threads", type=positive_integer, metavar="N", help="operations at the same time"
    )


def run_serve(options: argparse.Namespace) -> int:
    """Serves until SIGTERM or SIGINT.

    Args:
        options: The parsed options.

    Returns:
        0, after a signal.

    Raises:
        UserError: An option, a model or a port is at fault.
    """
    # A client's malformed message is no event of the server's.
    logging.getLogger("grpc").setLevel(logging.CRITICAL)
    with _log_on_stderr():
        _serve_models(options)
    return 0


@contextmanager
def _log_on_stderr() -> Iterator[None]:
    shown = logging.StreamHandler()
    shown.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    _log.addHandler(shown)
    _log.setLevel(logging.INFO)
    try:
        yield
    finally:
        _log.removeHandler(shown)


def _serve_models(options: argparse.Namespace) -> None:
    models = [_model(given) for given in options.models]
    names = [name for name, _ in models]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"Two models are called {twice[0]}; give one another name with NAME=DIR.")
    # Before anything is loaded, which may take long.
    for number in (options.grpc_port, options.rest_port):
        _check_port(options, number)
    _import_libraries()
    asyncio.run(_serve(_loaded_server(models, options), options))


def _model(given: str) -> tuple[str, Path]:
    name, separator, directory = given.partition("=")
    path = Path(directory if separator else given).absolute()
    if not path.is_dir():
        raise UserError(f"There is no directory {path}; give the one with the version folders.")
    if (path / "saved_model.pb").exists():
        raise UserError(
            f"{path} is one version; give the directory that holds it, with a number for its name."
        )
    name = name if separator else path.name
    if not name or any(character in name for character in "/:"):
        raise UserError(f"{name!r} cannot name a model; give NAME=DIR.")
    return name, path


def _check_port(options: argparse.Namespace, number: int) -> None:
    try:
        with socket.create_server(
            (options.host, number),
            family=socket.AF_INET6 if ":" in options.host else socket.AF_INET,
        ):
            pass
    except OSError as error:
        raise UserError(
            f"Cannot listen on {options.host}, port {number}: {error.strerror or error}. Choose "
            "others with --grpc-port and --rest-port (0: any)."
        ) from error


def _import_libraries() -> None:
    require("The server", MODULES["serving"], "serving")
    import_tensorflow_quietly("tensorflow_serving.apis.prediction_service_pb2_grpc")
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, _MMAP_THRESHOLD_BYTES)


def _loaded_server(models: list[tuple[str, Path]], options: argparse.Namespace) -> Any:
    from tf_compemb.serving.batching import BatchingOptions
    from tf_compemb.serving.model_config import ModelConfig
    from tf_compemb.serving.model_manager import LoadingOptions
    from tf_compemb.serving.server import ModelServer, ServerOptions

    batching, threads = None, max(8, 4 * (os.cpu_count() or 1))
    if options.max_batch_size:
        threads = options.max_requests
        batching = BatchingOptions(options.max_batch_size, options.batch_timeout_micros / 1e6)
    server = ModelServer(
        [ModelConfig(name, path) for name, path in models],
        ServerOptions(
            host=options.host,
            grpc_port=options.grpc_port,
            rest_port=options.rest_port,
            max_request_bytes=options.max_request_bytes,
            max_requests=options.max_requests,
            threads=options.threads or threads,
        ),
        LoadingOptions(
            poll_seconds=options.poll_seconds,
            intra_op_threads=options.intra_op_threads,
            inter_op_threads=options.inter_op_threads,
            batching=batching,
        ),
    )
    print(f"tf-compemb serving: {_WHAT}", file=sys.stderr)
    server.load()
    refused = [it for name, _ in models for it in server.manager.versions(name)]
    if refused and all(it.error for it in refused):
        server.manager.close()
        raise UserError("No model can be served; the reasons are above.")
    return server


async def _serve(server: Any, options: argparse.Namespace) -> None:
    try:
        await server.start()
    except OSError as error:  # Someone else has taken a port in the meantime.
        server.manager.close()
        raise UserError(f"Cannot listen on {options.host}: {error.strerror or error}.") from error
    host = f"[{options.host}]" if ":" in options.host else options.host
    print(
        f"gRPC on {host}:{server.grpc_port}, REST on http://{host}:{server.rest_port}", flush=True
    )
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    await stopped.wait()
    _log.info("stopping after the requests in flight")
    await server.stop()
