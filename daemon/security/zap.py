"""Letting in those whose public keys are on a list (ZAP, https://rfc.zeromq.org/spec/27/)."""

from collections.abc import Iterator
from contextlib import contextmanager

import zmq
from zmq.auth.thread import ThreadAuthenticator

from daemon.security.keys import ServerKeys


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
