#!/usr/bin/env python3
"""python3 benchmarks/peers/attention.py

Times PyTorch's scaled_dot_product_attention on this machine's device, at the shapes of benchmarks/gpu/attention.cu: causal,
forward and backward, in bfloat16 and float. Prints medians of event times; operations are counted as in that benchmark.
"""
import statistics
import sys

try:
    import torch
except ImportError:
    sys.exit("PyTorch is not installed; please install it (tested with 2.11): pip install torch")
import torch.nn.functional as functional


def milliseconds(work, repetitions=7):
    times = []
    for _ in range(repetitions + 2):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        work()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times[2:])


def measure(kind, batch, length, queries, key_values, width):
    def rows(heads):
        return torch.randn(batch, heads, length, width, device="cuda", dtype=kind, requires_grad=True)

    q, k, v = rows(queries), rows(key_values), rows(key_values)

    def forward():
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=queries != key_values)

    y = forward()
    dy = torch.randn_like(y)
    forward_ms = milliseconds(forward)
    backward_ms = milliseconds(lambda: torch.autograd.grad(y, (q, k, v), dy, retain_graph=True))
    operations = 4.0 * width * queries * batch * length * (length + 1) / 2
    print(
        f"{str(kind)[6:]:8s} {batch:2d} x {length:5d}, {queries:2d} of {key_values:2d} heads of {width:3d}: "
        f"forward {forward_ms:8.3f} ms {operations / forward_ms * 1e-9:6.1f} TFLOP/s | "
        f"backward {backward_ms:8.3f} ms {2.5 * operations / backward_ms * 1e-9:6.1f} TFLOP/s"
    )


def main():
    if not torch.cuda.is_available():
        sys.exit("no CUDA device")
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}")
    for length in (1024, 4096):
        batch = 16384 // length
        measure(torch.bfloat16, batch, length, 16, 16, 64)
        measure(torch.bfloat16, batch, length, 16, 4, 128)
        measure(torch.float32, batch, length, 16, 16, 64)


if __name__ == "__main__":
    main()
