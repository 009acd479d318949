"""What the tests of worker processes share."""

import multiprocessing
import threading
import time
from concurrent.futures import Future

LONG = 60  # s, more than anything here needs on a loaded machine


class Negative:
    def __call__(self, number):
        return -number


def workers_of(before):
    return [child for child in multiprocessing.active_children() if child not in before]


def wait_for(condition):
    end = time.monotonic() + LONG
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def begin(action) -> Future:
    """Do it in a thread, so that a test does not hang with it."""
    future = Future()

    def work():
        try:
            future.set_result(action())
        except Exception as error:
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return future


class Pickled:
    """Does something when it is sent to a new process, where it is an empty string."""

    def __init__(self, action):
        self.action = action

    def __reduce__(self):
        self.action()
        return (str, ())
