"""``seqd keys``: certificates for sockets that reach beyond this machine, and the options that other commands take."""

import os
from pathlib import Path
from typing import Annotated

import typer
import zmq.auth
from pydantic import TypeAdapter, ValidationError
from seqd_client.runinfo import Name

from daemon.config import ConfigError

Own = Annotated[
    Path | None,
    typer.Option("--certificate", help="One's own certificate, NAME.key_secret of `seqd keys`; for tcp://."),
]
Server = Annotated[Path | None, typer.Option("--server-key", help="The daemon's public key, NAME.key; for tcp://.")]


def keys(
    name: Annotated[str, typer.Argument(help="Whose it is: the daemon, the controller, a person or program.")],
    folder: Annotated[Path, typer.Option(help="Where to write it.")] = Path(),
) -> None:
    """Make a certificate: a secret file for its owner and a public one for those who let it in."""
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError:
        raise ConfigError(f"name {name!r}: letters, digits, '_', '.' and '-', at most 128") from None
    public, secret = folder / f"{name}.key", folder / f"{name}.key_secret"
    for path in (public, secret):
        if path.exists():
            raise ConfigError(f"certificate {path}: it is there; choose another name, or remove it")
    before = os.umask(0o077)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        zmq.auth.create_certificates(folder, name)
    finally:
        os.umask(before)
    public.chmod(0o644)
    typer.echo(f"""{secret}  secret: stays with its owner, mode 0600
{public}  public: goes to those who let it in, or who connect to it

To let {name} in, copy {public.name} to the daemon's machine and start the daemon again:
  into the folder [security] observers   to read status and calls
  into the folder [security] operators   to drain
  to the file [security] controller      if it is the imaging controller
If {name} is the daemon: {secret.name} is [security] certificate, {public.name} its clients' --server-key.""")
