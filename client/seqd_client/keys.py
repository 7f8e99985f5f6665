"""CURVE keys in certificate files, as czmq and pyzmq write them (ZPL, https://rfc.zeromq.org/spec/4/).

``NAME.key`` holds a public key, ``NAME.key_secret`` the public and the secret one, each as 40 characters of Z85.
"""

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import zmq
import zmq.auth
from zmq.auth.thread import ThreadAuthenticator

from seqd_client.errors import KeysError

KEY_CHARACTERS = 40


@dataclass(frozen=True)
class Certificate:
    """A key pair: the public key names its owner, and the secret key proves it."""

    public: bytes
    secret: bytes = field(repr=False)


@dataclass(frozen=True)
class ServerKeys:
    """Keys of a socket that is bound: its own certificate and the public keys of the clients that it allows.

    The keys take effect with :func:`allow_clients`.
    """

    own: Certificate
    name: str
    """Name of the list of allowed clients."""
    allowed: frozenset[bytes]
    """Public keys of the allowed clients."""

    def apply(self, socket: "zmq.Socket[bytes]") -> None:
        """Make the socket refuse every client that does not speak CURVE."""
        socket.curve_publickey, socket.curve_secretkey = self.own.public, self.own.secret
        socket.curve_server = True
        socket.zap_domain = self.name.encode()
        # Without this, libzmq would allow every client when no list is in effect.
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)


@dataclass(frozen=True)
class ClientKeys:
    """Keys of a socket that connects: its own certificate, and the public key of the server that it trusts."""

    own: Certificate
    server: bytes

    def apply(self, socket: "zmq.Socket[bytes]") -> None:
        """Make the socket speak CURVE, and with this server only."""
        socket.curve_publickey, socket.curve_secretkey = self.own.public, self.own.secret
        socket.curve_serverkey = self.server


def load_certificate(path: Path) -> Certificate:
    """Read a certificate with its secret key.

    Raises
    ------
    KeysError : the file cannot be read, its secret key is missing or does not fit its public key, or other users may
        read the file.
    """
    public, secret = _load(path)
    if secret is None:
        raise KeysError(f"certificate {path}: it has no secret key; a file NAME.key_secret is needed")
    if len(secret) != KEY_CHARACTERS or zmq.curve_public(secret) != public:
        raise KeysError(f"certificate {path}: its secret key does not belong to its public key")
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o007:
        raise KeysError(f"certificate {path}: its mode is {mode:04o}, others may read the secret; chmod 600 {path}")
    return Certificate(public, secret)


def load_client_keys(certificate: Path | None, server: Path | None) -> ClientKeys | None:
    """Read the keys of a client: its own certificate and the public key of the server; None if neither is given.

    Raises
    ------
    KeysError : only one of the two is given, or a file cannot be used.
    """
    if certificate is None and server is None:
        return None
    if certificate is None or server is None:
        raise KeysError("keys: both your own certificate and the public key of the other end are needed")
    return ClientKeys(load_certificate(certificate), load_public(server))


def load_server_keys(certificate: Path, name: str, folder: Path) -> ServerKeys:
    """Read the keys of a server: its own certificate and the folder of the public keys that it allows.

    Raises
    ------
    KeysError : a file or the folder cannot be used.
    """
    return ServerKeys(load_certificate(certificate), name, load_allowed(folder))


def load_public(path: Path) -> bytes:
    """Read the public key of a certificate.

    Raises
    ------
    KeysError : the file has no public key.
    """
    return _load(path)[0]


def load_allowed(folder: Path) -> frozenset[bytes]:
    """Read the public keys, ``*.key``, in a folder.

    Raises
    ------
    KeysError : the folder or a file cannot be read, or the folder has no key.
    """
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix == ".key")
    except OSError as error:
        raise KeysError(f"folder of public keys {folder}: {error.strerror}") from error
    if not paths:
        raise KeysError(f"folder of public keys {folder}: it has no file *.key, so nobody would be allowed")
    return frozenset(load_public(path) for path in paths)


def _load(path: Path) -> tuple[bytes, bytes | None]:
    try:
        public, secret = zmq.auth.load_certificate(path)
    except OSError as error:
        raise KeysError(f"certificate {path}: {error.strerror or 'No such file or directory'}") from error
    except ValueError as error:
        raise KeysError(f"certificate {path}: no public key in it; `seqd keys` makes certificates") from error
    if len(public) != KEY_CHARACTERS:
        raise KeysError(f"certificate {path}: its public key has {len(public)} characters, a key has {KEY_CHARACTERS}")
    return public, secret


@contextmanager
def allow_clients(context: "zmq.Context[zmq.Socket[bytes]]", *lists: ServerKeys) -> Iterator[None]:
    """Within a ``with`` block, allow connections only to the clients that the keys list.

    Each of ``lists`` applies to the sockets of the context that use these server keys.
    """
    authenticator = ThreadAuthenticator(context)
    for keys in lists:
        authenticator.certs[keys.name] = dict.fromkeys(keys.allowed, True)
    authenticator.start()
    try:
        yield
    finally:
        authenticator.stop()
