"""``seqd keys``: certificates for sockets that other machines can reach."""

import os
from pathlib import Path
from typing import Annotated

import typer
import zmq.auth
from pydantic import TypeAdapter, ValidationError
from seqd_client.runinfo import Name

from daemon.config import ConfigError


def keys(
    name: Annotated[str, typer.Argument(help="Name of the owner: the daemon, the controller, a person or a program.")],
    folder: Annotated[Path, typer.Option(help="Folder to write it to.")] = Path(),
) -> None:
    """Make a certificate: a secret file for its owner, and a public file for the daemon or clients that trust it."""
    try:
        TypeAdapter(Name).validate_python(name)
    except ValidationError:
        raise ConfigError(f"name {name!r}: letters, digits, '_', '.' and '-', at most 128") from None
    public, secret = folder / f"{name}.key", folder / f"{name}.key_secret"
    for path in (public, secret):
        if path.exists():
            raise ConfigError(f"certificate {path}: the file exists; choose another name, or remove it")
    before = os.umask(0o077)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        zmq.auth.create_certificates(folder, name)
    finally:
        os.umask(before)
    public.chmod(0o644)
    typer.echo(f"""{secret}  secret: stays with its owner, mode 0600
{public}  public: for the daemon that {name} connects to, or for its clients if it is the daemon

To allow {name}, copy {public.name} to the daemon's machine and start the daemon again:
  into the folder [security] observers   to read status and calls
  into the folder [security] operators   to drain
  to the file [security] controller      if it is the imaging controller
If {name} is the daemon: {secret.name} is [security] certificate, its clients need {public.name} as --server-key.""")
