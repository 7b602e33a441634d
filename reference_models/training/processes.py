"""Several processes that train one network: waiting for each other, and losing one."""

import os
import secrets
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener, wait
from typing import NoReturn

from tqdm import tqdm

from reference_models.command_line import expected
from reference_models.errors import InputError, OutOfTime, count, lacks_memory

JOIN_MINUTES = 10
"""Time for all processes to join, and for the slowest of them to reach the next step."""
RESUME = "then run the same command in all processes again to resume"


@contextmanager
def waiting(processes: int, address: str) -> Iterator[None]:
    """Say for whom this process waits if joining the others takes longer than a few seconds."""
    text = f"waiting for {count(processes, 'process', 'processes')} at {address}"
    timer = threading.Timer(5.0, lambda: print(text, file=sys.stderr, flush=True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def with_others(processes: int) -> Iterator[None]:
    """Turn the loss of another process within the block into one line."""
    try:
        yield
    except (RuntimeError, ValueError) as error:  # PyTorch's and JAX's.
        if processes == 1 or lacks_memory(error):
            raise
        if Watch.current is not None:
            time.sleep(3 * BEAT)  # The watch ends this process, and names the other one.
        reason = next(iter(str(error).splitlines()), "no reason")
        raise InputError(
            f"another of the {processes} processes stopped or did not answer ({reason}); see its "
            f"own message, {RESUME}"
        ) from None


# Signs of life -----------------------------------------------------------------------------------

BEAT = 1.0
"""Seconds between two signs of life."""
SIGN, DONE = b".", b"done"


class Watch:
    """A thread that ends this process when another one is killed, fails or stands still.

    The first process is connected to every other one, and both sides send a sign of life each
    second. So work that takes long, such as a first step or a checkpoint, alarms nobody, whereas a
    frozen process is noticed although its connections stay open.
    """

    current: "Watch | None" = None
    """The watch of this process, if it trains with others."""

    def __init__(self, rank: int, processes: int, patience: float) -> None:
        self.rank, self.processes, self.patience = rank, processes, patience
        self.connected = threading.Event()
        self.leaves, self.left = threading.Event(), threading.Event()
        self.others: dict[Connection, int] = {}
        """Connections, with the rank at the other end."""
        self.done: set[Connection] = set()

    @staticmethod
    def begin(
        rank: int,
        processes: int,
        host: str,
        share: Callable[[list[int]], list[int]],
        patience: float,
    ) -> None:
        """Start the watch.

        host: of the first process. share: Returns the numbers, of 31 bits, that the first process
        passed. patience: Seconds without a sign of life after which a process counts as lost.
        """
        watch = Watch.current = Watch(rank, processes, patience)
        drawn = [secrets.randbits(31) for _ in range(4)]
        if rank == 0:
            listener = Listener(("", 0), backlog=processes, authkey=as_key(drawn))
            share([listener.address[1], *drawn])
        else:
            port, *drawn = share([0, *drawn])

        def run() -> None:
            silent = (
                f"another of the {processes} processes has not answered for {patience:g} seconds"
            )
            alarm = threading.Timer(patience, lambda: watch.end(f"{silent}; end all, {RESUME}"))
            alarm.daemon = True
            alarm.start()
            try:
                if rank == 0:
                    watch.others = accepted(listener, processes - 1)
                else:
                    first = Client((host, port), authkey=as_key(drawn))
                    first.send_bytes(rank.to_bytes(8, "big"))
                    watch.others = {first: 0}
            except (OSError, EOFError, AuthenticationError) as error:
                watch.end(
                    f"no connection to process 0 of {processes} at {host}:{port} "
                    f"({str(error) or type(error).__name__}): it stopped, or a firewall closes the "
                    f"port; see its own message, {RESUME}"
                )
            alarm.cancel()
            watch.connected.set()
            watch.follow()

        threading.Thread(target=run, daemon=True).start()

    def follow(self) -> None:
        """Send and read signs of life until this process, or the first one, is done."""
        before = time.monotonic()
        due, heard = before, dict.fromkeys(self.others, before)
        while not (self.left.is_set() if self.rank == 0 else self.done):
            watched = [other for other in self.others if other not in self.done]
            ready = wait(watched, timeout=max(0.0, due - time.monotonic()))
            now = time.monotonic()
            for other in watched:
                if other in ready:
                    self.read(other)
                # After a pause of this process itself the others have a new chance.
                if other in ready or now - before > self.patience / 2:
                    heard[other] = now
                if now - heard[other] > self.patience:
                    self.end(
                        f"{self.name(other)} has not answered for {self.patience:g} seconds, "
                        f"perhaps because it is frozen; end it, {RESUME}"
                    )
            before = now
            if now >= due:
                due = now + BEAT
                self.send()

    def read(self, other: Connection) -> None:
        """Read a message, and end this process if it says that one is lost."""
        try:
            message = other.recv_bytes(1000)
        except (EOFError, OSError):
            self.end(f"{self.name(other)} stopped; see its own message, {RESUME}")
        if message == DONE:
            self.done.add(other)
        elif message != SIGN:
            self.end(message.decode(errors="replace"))

    def send(self) -> None:
        leaves = self.leaves.is_set()
        for other in self.others:
            say(other, DONE if leaves else SIGN)
        if leaves:
            self.left.set()

    def end(self, text: str) -> NoReturn:
        """Tell the others, and end this process, whatever its other threads wait for."""
        for other in self.others:
            say(other, text.encode())
        end_process(f"error: {text}")

    def name(self, other: Connection) -> str:
        return f"process {self.others[other]} of {self.processes} (counted from 0)"

    def leave(self) -> None:
        """Tell the others that this process is done and may end."""
        self.leaves.set()
        self.left.wait(5 * BEAT)


def end_process(text: str, status: int = 1) -> NoReturn:
    """Print a text below a progress bar, and end the process even if nobody reads its output."""
    below = "\n" if getattr(tqdm, "_instances", None) else ""
    try:
        print(below + text, file=sys.stderr, flush=True)
    finally:
        os._exit(status)


def as_key(numbers: Sequence[int]) -> bytes:
    return b"".join(number.to_bytes(4, "big") for number in numbers)


def accepted(listener: Listener, number: int) -> dict[Connection, int]:
    """Connections to the other processes, with their ranks."""
    others: dict[Connection, int] = {}
    with listener:
        while len(others) < number:
            try:
                other = listener.accept()
                others[other] = int.from_bytes(other.recv_bytes(8), "big")
            except (AuthenticationError, EOFError, ConnectionError):  # A stranger.
                continue
    return others


def say(other: Connection, message: bytes) -> None:
    with suppress(OSError):  # A broken connection is noticed in reading.
        other.send_bytes(message)


@contextmanager
def together() -> Iterator[None]:
    """Tell the other processes, if any, how this one left the block.

    The processes may meet within the block. After an error the process ends at once: at its exit,
    JAX would wait for the others, and they would wait for it.
    """
    try:
        yield
    except OutOfTime:
        if (watch := Watch.current) is not None:
            watch.leave()
        raise
    except BaseException as error:
        if (watch := Watch.current) is None:
            raise
        watch.connected.wait(5 * BEAT)  # Without a connection the others would not notice the end.
        if isinstance(error, KeyboardInterrupt):
            end_process("stopped", 130)
        text = expected(error)
        end_process(traceback.format_exc() if text is None else f"error: {text}")
    if (watch := Watch.current) is not None:
        watch.leave()
