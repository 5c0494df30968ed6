#!/usr/bin/env python3
"""python3 benchmarks/peers/selective_scan.py [--extension selective_scan_cuda….so] [--shapes 8x2048x2048,…] [--types bf16,fp32]

Times other implementations of the selective scan on this machine's device, at the shapes of benchmarks/gpu/selective_scan.cu:
state 16, with bias, softplus, skip and gate, parameters in float. Prints medians of event times, separately for forward and backward.

- mamba_ssm's compiled kernels, from the module selective_scan_cuda (pip install mamba-ssm) or from the file given by
  --extension. Tensors are (batch, channels, length); the time of a call includes allocating and zeroing its results.
- If that is not installed, PyTorch alone: a loop over time, each step of which works on all sequences and channels, captured as one
  graph to minimise the cost of launches. The backward pass is autograd's, through all states; its time is that of forward and backward
  minus that of forward. PyTorch itself has no scan, so this is a baseline rather than a competitor.

The first line shows the implementation's error at a small shape, compared with a loop in double.
"""
import argparse
import importlib.machinery
import importlib.util
import statistics
import sys

try:
    import torch
except ImportError:
    sys.exit("PyTorch is not installed; please install it (tested with 2.11): pip install torch")
import torch.nn.functional as functional

STATES = 16
TYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def extension(path):
    """mamba_ssm's compiled module, or None."""
    try:
        if path:
            loader = importlib.machinery.ExtensionFileLoader("selective_scan_cuda", path)
            spec = importlib.util.spec_from_file_location("selective_scan_cuda", path, loader=loader)
            module = importlib.util.module_from_spec(spec)
            loader.exec_module(module)
            return module
        import selective_scan_cuda

        return selective_scan_cuda
    except ImportError as error:
        print(f"mamba_ssm's kernels are not installed ({error}); to use them: pip install mamba-ssm, or --extension FILE")
        return None


def problem(batch, length, channels, kind):
    """Random inputs as in our benchmark: step sizes from about 0.02 to 1.3, decays per step from nearly 1 to 0."""
    generator = torch.Generator(device="cuda").manual_seed(1)

    def uniform(shape, low, high, kind=torch.float32):
        return torch.empty(shape, device="cuda").uniform_(low, high, generator=generator).to(kind)

    wide, narrow = (batch, channels, length), (batch, 1, STATES, length)
    return {
        "u": uniform(wide, -1, 1, kind),
        "delta": uniform(wide, -4, 1, kind),
        "A": -torch.exp(uniform((channels, STATES), 0, 2.8)),
        "B": uniform(narrow, -1, 1, kind),
        "C": uniform(narrow, -1, 1, kind),
        "D": uniform((channels,), -1, 1),
        "z": uniform(wide, -3, 3, kind),
        "bias": uniform((channels,), -1, 0),
        "dy": uniform(wide, -1, 1, kind),
    }


def loop(p):
    """The scan in PyTorch operations, computed in the type of A."""
    delta = functional.softplus(p["delta"].to(p["A"].dtype) + p["bias"][:, None])
    u, b, c = p["u"].to(delta.dtype), p["B"][:, 0].to(delta.dtype), p["C"][:, 0].to(delta.dtype)
    h = torch.zeros(*u.shape[:2], STATES, device=u.device, dtype=delta.dtype)
    outputs = []
    for t in range(u.shape[2]):
        step = delta[:, :, t, None]
        h = torch.addcmul(step * u[:, :, t, None] * b[:, None, :, t], torch.exp(step * p["A"]), h)
        outputs.append((h * c[:, None, :, t]).sum(-1))
    y = torch.stack(outputs, 2) + u * p["D"][:, None]
    return y * functional.silu(p["z"].to(delta.dtype))


def median(work, least=9):
    """Milliseconds per call on the device, measured over several calls between two events, so that launches run ahead."""
    work()
    torch.cuda.synchronize()
    times, calls = [], 1
    while len(times) < least:
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        for _ in range(calls):
            work()
        end.record()
        torch.cuda.synchronize()
        total = begin.elapsed_time(end)
        if total < 4 and calls < 64:
            calls *= 2
            continue
        times.append(total / calls)
    return statistics.median(times)


class Kernels:
    name = "mamba_ssm"

    def __init__(self, module):
        self.module = module

    def forward(self, p):
        return self.module.fwd(p["u"], p["delta"], p["A"], p["B"], p["C"], p["D"], p["z"], p["bias"], True)

    def backward(self, p, out, saved):
        return self.module.bwd(
            p["u"], p["delta"], p["A"], p["B"], p["C"], p["D"], p["z"], p["bias"], p["dy"], saved, out, None, True, False
        )

    def output(self, p):
        return self.forward(p)[2]

    def times(self, p):
        out, saved, _ = self.forward(p)
        return median(lambda: self.forward(p)), median(lambda: self.backward(p, out, saved))


class Loop:
    name = "torch loop"

    def output(self, p):
        return loop(p)

    def times(self, p):
        def graph_of(work):
            work()
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                work()
            return median(graph.replay, 3)

        def both():
            inputs = {k: v.detach().requires_grad_(k != "dy") for k, v in p.items()}
            y = loop(inputs)
            torch.autograd.grad(y, [v for k, v in inputs.items() if k != "dy"], p["dy"].to(y.dtype))

        with torch.no_grad():
            forward = graph_of(lambda: loop(p))
        try:
            return forward, graph_of(both) - forward
        except torch.OutOfMemoryError:
            return forward, float("nan")


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--extension", help="path of the compiled module selective_scan_cuda")
    arguments.add_argument("--shapes", default="8x1024x2048,8x2048x2048,8x16384x2048,8x65536x2048,8x2048x8192,1x2048x2048")
    arguments.add_argument("--types", default="bf16,fp32")
    arguments = arguments.parse_args()
    if not torch.cuda.is_available():
        sys.exit("no CUDA device")
    module = extension(arguments.extension)
    peer = Kernels(module) if module else Loop()
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}")

    small = problem(2, 600, 64, torch.float32)
    exact = loop({k: v.double() for k, v in small.items()})
    error = (peer.output(small).double() - exact).norm() / exact.norm()
    print(f"{peer.name}: error {error:.1e} in fp32 at 2 x 600 x 64")

    print(f"{'':12}{'type':6}{'batch x length x channels':>26}{'forward ms':>12}{'backward ms':>13}")
    for shape in arguments.shapes.split(","):
        batch, length, channels = (int(n) for n in shape.split("x"))
        for kind in arguments.types.split(","):
            if isinstance(peer, Loop) and batch * length * channels > 1 << 25:
                continue  # autograd would keep all states
            p = problem(batch, length, channels, TYPES[kind])
            forward, backward = peer.times(p)
            print(f"{peer.name:12}{kind:6}{shape:>26}{forward:12.3f}{backward:13.3f}", flush=True)
            del p
            torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
