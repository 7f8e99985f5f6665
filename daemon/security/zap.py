"""Letting in those whose public keys are on a list (ZAP, https://rfc.zeromq.org/spec/27/)."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

import zmq
from zmq.auth.thread import ThreadAuthenticator


@contextmanager
def let_in(context: "zmq.Context[zmq.Socket[bytes]]", allowed: Mapping[str, Collection[bytes]]) -> Iterator[None]:
    """Answer for a context, while in the block, whether a key is on a list.

    Parameters
    ----------
    allowed : public keys, 40 bytes of Z85, by the name of their list (:class:`daemon.security.keys.ServerKeys`).
    """
    authenticator = ThreadAuthenticator(context)
    for name, keys in allowed.items():
        authenticator.certs[name] = dict.fromkeys(keys, True)
    authenticator.start()
    try:
        yield
    finally:
        authenticator.stop()
