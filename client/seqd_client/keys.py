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
    """Who somebody is, and the proof of it."""

    public: bytes
    secret: bytes = field(repr=False)


@dataclass(frozen=True)
class ServerKeys:
    """What a socket needs to let clients in: its own certificate, and theirs (:func:`seqd_client.keys.let_in`)."""

    own: Certificate
    name: str
    """Of the list of those who are let in."""
    allowed: frozenset[bytes]
    """Their public keys."""

    def apply(self, socket: "zmq.Socket[bytes]") -> None:
        """Demand CURVE of whoever connects."""
        socket.curve_publickey, socket.curve_secretkey = self.own.public, self.own.secret
        socket.curve_server = True
        socket.zap_domain = self.name.encode()
        # Without the list nobody gets in, where libzmq would let in everybody.
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)


@dataclass(frozen=True)
class ClientKeys:
    """What a socket needs to be let in: its own certificate, and the public key of the one server that it trusts."""

    own: Certificate
    server: bytes

    def apply(self, socket: "zmq.Socket[bytes]") -> None:
        """Speak CURVE, with this server only."""
        socket.curve_publickey, socket.curve_secretkey = self.own.public, self.own.secret
        socket.curve_serverkey = self.server


def load_certificate(path: Path) -> Certificate:
    """Read one's own certificate.

    Raises
    ------
    KeysError : there is none, it has no secret key or not the one of its public key, or others may read it.
    """
    public, secret = _load(path)
    if secret is None:
        raise KeysError(f"certificate {path}: it has no secret key; a file NAME.key_secret is needed")
    if len(secret) != KEY_CHARACTERS or zmq.curve_public(secret) != public:
        raise KeysError(f"certificate {path}: its secret key is not that of its public key")
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o007:
        raise KeysError(f"certificate {path}: its mode is {mode:04o}, others may read the secret; chmod 600 {path}")
    return Certificate(public, secret)


def load_client_keys(certificate: Path | None, server: Path | None) -> ClientKeys | None:
    """Keys of a client from its own certificate and the public key of the server; None where neither is given.

    Raises
    ------
    KeysError : one of the two is missing or cannot be used.
    """
    if certificate is None and server is None:
        return None
    if certificate is None or server is None:
        raise KeysError("keys: one's own certificate and the public key of the other end are needed, both")
    return ClientKeys(load_certificate(certificate), load_public(server))


def load_server_keys(certificate: Path, name: str, folder: Path) -> ServerKeys:
    """Keys of a server from its own certificate and the folder of those that it lets in.

    Raises
    ------
    KeysError : one of the two cannot be used.
    """
    return ServerKeys(load_certificate(certificate), name, load_allowed(folder))


def load_public(path: Path) -> bytes:
    """Read the public key of somebody else.

    Raises
    ------
    KeysError : there is none.
    """
    return _load(path)[0]


def load_allowed(folder: Path) -> frozenset[bytes]:
    """Read the public keys, ``*.key``, in a folder.

    Raises
    ------
    KeysError : the folder or a file cannot be read, or there is no key in it.
    """
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix == ".key")
    except OSError as error:
        raise KeysError(f"folder of public keys {folder}: {error.strerror}") from error
    if not paths:
        raise KeysError(f"folder of public keys {folder}: no file *.key in it, nobody would be let in")
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
def let_in(context: "zmq.Context[zmq.Socket[bytes]]", *lists: ServerKeys) -> Iterator[None]:
    """Let in, while in the block, the clients on these lists at sockets of the context that have these keys."""
    authenticator = ThreadAuthenticator(context)
    for keys in lists:
        authenticator.certs[keys.name] = dict.fromkeys(keys.allowed, True)
    authenticator.start()
    try:
        yield
    finally:
        authenticator.stop()
