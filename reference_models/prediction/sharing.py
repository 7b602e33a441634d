"""What threads that work on one photograph each share: memory, and the network."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from threading import Condition, Lock, Semaphore
from typing import Generic, TypeVar

import numpy as np

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(
    work: Callable[[Item], Result], items: Iterable[Item], threads: int
) -> Iterator[Result]:
    """The results of `work` in the order in which they are ready. Few items wait in the pool, so
    that millions of them take no memory, and nothing is begun after an error."""
    with ThreadPoolExecutor(threads) as pool:
        pending: set[Future[Result]] = set()
        try:
            for item in items:
                pending.add(pool.submit(work, item))
                while len(pending) >= 2 * threads:
                    done, pending = wait(pending, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
            while pending:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        finally:
            for future in pending:
                future.cancel()


class Budget:
    """Limits the pixels of decoded photographs in memory; one photograph always fits.

    Threads never wait for others while they hold a share, except for the network, so they cannot
    wait for each other.
    """

    def __init__(self, most: int) -> None:
        self.most, self.used = most, 0
        self.changed = Condition()

    @contextmanager
    def share(self) -> Iterator[Callable[[int], None]]:
        """A function that waits until there is room for a number of pixels, and takes it until the
        end of the block."""
        taken = 0

        def take(pixels: int) -> None:
            nonlocal taken
            taken = min(pixels, self.most)
            with self.changed:
                self.changed.wait_for(lambda: self.used + taken <= self.most)
                self.used += taken

        try:
            yield take
        finally:
            with self.changed:
                self.used -= taken
                self.changed.notify_all()


class Batches(Generic[Item]):
    """Calls the network on what several threads ask for at the same time.

    A thread that finds the network free computes for up to `size` threads that wait, and none waits
    for a batch to fill. Batches are always filled up to `size` with copies: a map would otherwise
    depend in its last bits on which photographs were decoded at the same time, and JAX would
    compile a program for each number. Single photographs are computed by at most `cores` threads:
    more of them would take the processor's cache from each other.
    """

    def __init__(self, maps: Callable[[list[Item]], np.ndarray], size: int, cores: int = 1) -> None:
        self.maps, self.size = maps, size
        self.waiting: list[tuple[Item, Future[np.ndarray]]] = []
        self.changes, self.network = Lock(), Semaphore(cores if size == 1 else 1)

    def map(self, inputs: Item) -> np.ndarray:
        """The saliency map, float32 `(S, S)`."""
        if self.size == 1:
            with self.network:
                return self.maps([inputs])[0]
        future: Future[np.ndarray] = Future()
        with self.changes:
            self.waiting.append((inputs, future))
        while not future.done():
            with self.network:
                if not future.done():
                    self.compute()
        return future.result()

    def compute(self) -> None:
        """Compute the maps of those who have waited longest."""
        with self.changes:
            now, self.waiting = self.waiting[: self.size], self.waiting[self.size :]
        filled = [inputs for inputs, _ in now]
        filled += filled[:1] * (self.size - len(now))
        try:
            maps = self.maps(filled)
        except BaseException as error:
            for _, future in now:
                future.set_exception(error)
            return
        for (_, future), saliency in zip(now, maps, strict=False):
            future.set_result(saliency)
