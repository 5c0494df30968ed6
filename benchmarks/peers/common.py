"""Shared by the scripts of this folder: the device, timing, and torch.compile with a fallback."""
import statistics
import sys
import time

try:
    import torch
except ImportError:
    sys.exit("PyTorch is not installed; please install it (tested with 2.11): pip install torch")


def add_device_argument(parser):
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to check that the script runs")
    parser.add_argument("--eager", action="store_true", help="without torch.compile")
    parser.add_argument("--repetitions", type=int, default=15, help="number of measurements, of which the median is printed")


def describe(arguments):
    """Prints the device and the versions; exits if there is no device."""
    if arguments.device == "cuda" and not torch.cuda.is_available():
        sys.exit("no CUDA device")
    name = torch.cuda.get_device_name() if arguments.device == "cuda" else "CPU"
    print(f"{name}, PyTorch {torch.__version__}, CUDA {torch.version.cuda}", flush=True)


def mark(device):
    """A point in time; on a device, the moment when it has finished all work queued so far."""
    if device != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def milliseconds(begin, end):
    """The time from one mark to another, for which it waits."""
    if isinstance(begin, float):
        return (end - begin) * 1e3
    end.synchronize()
    return begin.elapsed_time(end)


def median_milliseconds(work, device, repetitions, least=20):
    """The time of one call, measured over as many calls in a row as take `least` milliseconds, so that the host runs ahead of
    the device."""
    for _ in range(3):
        work()
    times, calls = [], 1
    while len(times) < repetitions:
        begin = mark(device)
        for _ in range(calls):
            work()
        total = milliseconds(begin, mark(device))
        if total < least and calls < 64:
            calls *= 2
        else:
            times.append(total / calls)
    return statistics.median(times)


def compiled(function, eager=False, dynamic=None):
    """The function compiled by torch.compile; if that fails, the function itself, after printing why."""
    if eager:
        return function
    attempt, state = torch.compile(function, dynamic=dynamic), {"failed": False}

    def call(*arguments):
        if state["failed"]:
            return function(*arguments)
        try:
            return attempt(*arguments)
        except Exception as error:  # the compiler's stages raise many types
            reason = (str(error).strip().splitlines() or [""])[0][:160]
            print(f"torch.compile fails for {function.__name__} ({type(error).__name__}: {reason}); running it eagerly", flush=True)
            state["failed"] = True
            return function(*arguments)

    return call
