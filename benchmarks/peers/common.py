"""What the scripts of this folder share: the machine, times, and functions compiled where that works."""
import statistics
import sys
import time

try:
    import torch
except ImportError:
    sys.exit("PyTorch is not installed; please install it (2.11 is the one tried): pip install torch")


def add_device_argument(parser):
    parser.add_argument("--device", default="cuda", help="cpu only shows that a script runs")
    parser.add_argument("--eager", action="store_true", help="without torch.compile")
    parser.add_argument("--repetitions", type=int, default=15, help="of what is timed; medians are shown")


def describe(arguments):
    """Prints what was found; ends the program where there is no device."""
    if arguments.device == "cuda" and not torch.cuda.is_available():
        sys.exit("no CUDA device here")
    name = torch.cuda.get_device_name() if arguments.device == "cuda" else "CPU"
    print(f"{name}, PyTorch {torch.__version__}, CUDA {torch.version.cuda}", flush=True)


def mark(device):
    """A moment: on a device, when it has done everything up to here."""
    if device != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def milliseconds(begin, end):
    """From one mark to another; waits for the second."""
    if isinstance(begin, float):
        return (end - begin) * 1e3
    end.synchronize()
    return begin.elapsed_time(end)


def median_milliseconds(work, device, repetitions, least=20):
    """Of one call. As many in a row as take `least` milliseconds, so that the host may run ahead of the device."""
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
    """torch.compile of a function; the function itself, with a line that says so, where that fails."""
    if eager:
        return function
    attempt, state = torch.compile(function, dynamic=dynamic), {"failed": False}

    def call(*arguments):
        if state["failed"]:
            return function(*arguments)
        try:
            return attempt(*arguments)
        except Exception as error:  # whatever the compiler's stages raise
            reason = (str(error).strip().splitlines() or [""])[0][:160]
            print(f"torch.compile fails for {function.__name__} ({type(error).__name__}: {reason}); eager", flush=True)
            state["failed"] = True
            return function(*arguments)

    return call
