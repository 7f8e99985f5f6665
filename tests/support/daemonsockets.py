"""The sockets with which a daemon listens to a controller, for tests that play the daemon."""

import zmq
from seqd_client.wire.codec import encode

PATIENCE_S = 30.0


class DaemonSockets:
    """A subscriber to the frames and a dealer to ask with."""

    def __init__(self, folder, *, queue=1000):
        self.context = zmq.Context()
        self.frames, self.recovery = self.context.socket(zmq.SUB), self.context.socket(zmq.DEALER)
        self.frames.setsockopt(zmq.RCVHWM, queue)
        self.recovery.setsockopt(zmq.IMMEDIATE, 1)
        for socket, name in ((self.frames, "frames"), (self.recovery, "recovery")):
            socket.setsockopt(zmq.RECONNECT_IVL, 20)
            socket.connect(f"ipc://{folder}/{name}")
        self.frames.setsockopt(zmq.SUBSCRIBE, b"")

    def next_parts(self, socket, within_s=PATIENCE_S):
        """The parts of the next message; None when nothing comes."""
        return socket.recv_multipart() if socket.poll(int(within_s * 1000)) else None

    def tell(self, message):
        """Send to the controller; waits for it to be there."""
        assert self.recovery.poll(int(PATIENCE_S * 1000), zmq.POLLOUT)
        self.recovery.send_multipart(encode(message))

    def close(self):
        self.context.destroy(linger=0)
