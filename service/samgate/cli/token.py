"""``samgate token``: bearer tokens for clients."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from samgate.errors import SamgateError

_DESCRIPTION = """\
Make a bearer token for a client. The token goes to standard output, once: only its hash is kept, in the entry for the
file of clients (`samgate serve --auth-clients FILE`), which goes to standard error."""

_EXAMPLES = """\
examples:
  samgate token create --name studio > studio.token     # the entry is shown; put it into clients.yaml
  samgate token create --name batch --clients clients.yaml > batch.token
  SAMGATE_TOKEN=$(cat studio.token) samgate segment PHOTO.jpg --point 500,375 --server 127.0.0.1:50051
  samgate token check clients.yaml                      # what is wrong with it, or who may do what"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register the command."""
    parser = commands.add_parser("token", help="bearer tokens for clients")
    inner = parser.add_subparsers(metavar="COMMAND", required=True)
    create = inner.add_parser(
        "create",
        help="make a token",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    create.add_argument("--name", required=True, help="of the client, for logs and fair shares")
    create.add_argument(
        "--clients", metavar="FILE", type=Path, help="append the entry to this file, which is made if need be"
    )
    create.set_defaults(run=_create)
    check = inner.add_parser("check", help="check a file of clients")
    check.add_argument("clients", metavar="FILE", type=Path)
    check.set_defaults(run=_check)


def _create(options: argparse.Namespace) -> int:
    from samgate.security.clients import read_clients
    from samgate.security.tokens import make_token

    token, stored = make_token()
    entry = f'  - name: {_quoted(options.name)}\n    tokens: ["{stored}"]\n'
    before = "clients:\n"
    if options.clients is not None and options.clients.exists():
        before = _text(options.clients)
        if not before.endswith("\n"):
            before += "\n"
    read_clients((before + entry).encode())
    if options.clients is None:
        print(f"clients:\n{entry}", file=sys.stderr, end="")
    else:
        try:
            options.clients.write_text(before + entry, encoding="utf-8")
        except OSError as error:
            raise SamgateError(f"{options.clients} can't be written: {error.strerror}") from error
        print(f"added {options.name} to {options.clients}", file=sys.stderr)
    print(token)
    return 0


def _check(options: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table

    from samgate.security.clients import read_clients

    found = read_clients(_text(options.clients).encode())
    clients = {client.name: client for _, client in found.by_token.values()}
    clients |= {client.name: client for client in (*found.by_certificate.values(), *found.by_subject.values())}
    table = Table(*("client", "RPCs", "class", "weight", "calls/s", "burst", "at once", "expires"))
    for client in clients.values():
        limits = (f"{client.calls_per_s:g}", f"{client.burst:g}") if client.calls_per_s else ("–", "–")
        row = (client.priority.name.lower(), f"{client.weight:g}", *limits, str(client.concurrent or "–"))
        table.add_row(client.name, " ".join(sorted(client.rpcs)), *row, str(client.expires or "–"))
    Console().print(table)
    idle = found.weights.keys() - clients.keys()
    if idle:
        print(f"nobody can be: {', '.join(sorted(idle))} (no tokens, certificates or subjects)", file=sys.stderr)
    return 0


def _quoted(name: str) -> str:
    import json

    return json.dumps(name, ensure_ascii=False)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SamgateError(f"{path} can't be read: {error}") from error
