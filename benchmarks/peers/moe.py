#!/usr/bin/env python3
"""python3 benchmarks/peers/moe.py [--experts 8,32,128] [--top-k 1,2] [--tokens 4096,16384,65536]

Times a mixture-of-experts layer in PyTorch, forward and backward, and a dense feed-forward layer with the same number of operations:
width 1024, hidden 4096, ReLU, dropless. The mixture's time includes routing, sorting, products, gates and balance loss. Weights and
activations are bfloat16 (training under autocast also has to convert all weights), router and gates float.
"""
import argparse

from common import add_device_argument, compiled, describe, median_milliseconds, torch
import layers


def numbers(text):
    return [int(number) for number in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experts", type=numbers, default=[8, 32, 128])
    parser.add_argument("--top-k", type=numbers, default=[1, 2])
    parser.add_argument("--tokens", type=numbers, default=[4096, 16384, 65536])
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--padded", action="store_true", help="use batched products on padded rows instead of grouped_mm")
    add_device_argument(parser)
    arguments = parser.parse_args()
    describe(arguments)
    torch.manual_seed(1)
    products, name = (layers.padded_products, "padded torch.bmm") if arguments.padded else layers.best_products()
    print(f"experts: {name}", flush=True)
    width, hidden, device = arguments.width, arguments.hidden, arguments.device

    def weight(*shape):
        return torch.empty(*shape, device=device, dtype=torch.bfloat16).normal_(0, 0.02).requires_grad_()

    def dense_layer(x, up, down):
        return torch.nn.functional.linear(torch.relu(torch.nn.functional.linear(x, up)), down)

    def mixture_layer(x, router, up, down, top_k):
        return layers.mixture(x, router, up, down, top_k, products)

    mixture_layer = compiled(mixture_layer, arguments.eager)
    dense = compiled(dense_layer, arguments.eager)

    def passes(function, inputs):
        """One forward and backward pass, gradients overwritten."""
        with torch.no_grad():
            result = function(*inputs)
        gradient = torch.randn_like(result[0] if isinstance(result, tuple) else result)
        leaves = [v for v in inputs if isinstance(v, torch.Tensor)]

        def work():
            out = function(*inputs)
            if isinstance(out, tuple):
                torch.autograd.grad((out[0], 0.01 * out[1]), leaves, (gradient, torch.ones_like(out[1])))
            else:
                torch.autograd.grad(out, leaves, gradient)

        return work

    print(f"{'experts':>8}{'top':>5}{'tokens':>8}{'mixture ms':>12}{'TFLOP/s':>9}{'dense ms':>10}{'TFLOP/s':>9}{'of dense':>10}")
    for top_k in arguments.top_k:
        for tokens in arguments.tokens:
            operations = 3 * 2 * 2.0 * tokens * top_k * width * hidden
            x = torch.randn(tokens * top_k, width, device=device, dtype=torch.bfloat16, requires_grad=True)
            best = median_milliseconds(passes(dense, (x, weight(hidden, width), weight(width, hidden))), device, arguments.repetitions)
            for experts in arguments.experts:
                x = torch.randn(tokens, width, device=device, dtype=torch.bfloat16, requires_grad=True)
                router = torch.randn(experts, width, device=device).mul_(0.05).requires_grad_()
                inputs = (x, router, weight(experts, hidden, width), weight(experts, width, hidden), top_k)
                time = median_milliseconds(passes(mixture_layer, inputs), device, arguments.repetitions)
                print(f"{experts:8}{top_k:5}{tokens:8}{time:12.3f}{operations / time * 1e-9:9.0f}"
                      f"{best:10.3f}{operations / best * 1e-9:9.0f}{100 * best / time:8.0f} %", flush=True)


if __name__ == "__main__":
    main()
