#!/usr/bin/env python3
"""python3 benchmarks/peers/decode.py [--batch 1,64]

Measures greedy decoding in PyTorch with a model of mamba-2.8b's shape (64 Mamba layers, width 2560, state 16, vocabulary 50280, tied
head): bfloat16 weights and activations, the scan's states in float, a whole step as one CUDA graph. Measured once with plain
operations and once with each layer's operations fused by torch.compile. Weights are random, which does not affect the time.
"""
import argparse
import math

from common import add_device_argument, compiled, describe, median_milliseconds, torch
import torch.nn.functional as functional


def step_inputs(x, taps_state, gain, in_proj, conv_weight, conv_bias, x_proj, dt_proj, states):
    """Norm, projections and convolution of one position; updates the convolution's state in place."""
    xz = functional.linear(functional.rms_norm(x, x.shape[-1:], gain, 1e-5), in_proj)
    u, z = xz.chunk(2, -1)
    moved = torch.cat((taps_state[..., 1:], u[..., None]), -1)
    taps_state.copy_(moved)
    u = functional.silu((moved * conv_weight).sum(-1) + conv_bias)
    step, b, c = functional.linear(u, x_proj).split([dt_proj.shape[1], states, states], -1)
    return u, functional.linear(step, dt_proj), b, c, z


def step_output(x, u, delta, b, c, z, state, dt_bias, a, skip, out_proj):
    """One step of the scan, whose state is updated in place, then gate and residual."""
    delta = functional.softplus(delta.float() + dt_bias)
    state.copy_(state * torch.exp(delta[..., None] * a) + (delta * u)[..., None] * b[:, None].float())
    y = (state * c[:, None].float()).sum(-1) + skip * u
    return x + functional.linear((y * functional.silu(z.float())).to(x.dtype), out_proj)


class Decoder:
    def __init__(self, batch, device, eager, layers, width, states, vocabulary, taps=4):
        inner, rank = 2 * width, math.ceil(width / 16)
        self.states = states

        def weight(*shape):
            return torch.empty(*shape, device=device, dtype=torch.bfloat16).normal_(0, shape[-1] ** -0.5)

        self.embedding = weight(vocabulary, width)
        self.layers = [dict(
            gain=torch.ones(width, device=device, dtype=torch.bfloat16), in_proj=weight(2 * inner, width),
            conv_weight=weight(inner, taps), conv_bias=weight(inner), x_proj=weight(rank + 2 * states, inner),
            dt_proj=weight(inner, rank), dt_bias=torch.full((inner,), -4.0, device=device),
            a=-torch.arange(1, states + 1, device=device).float().repeat(inner, 1), skip=torch.ones(inner, device=device),
            out_proj=weight(width, inner) / math.sqrt(layers),
            taps_state=torch.zeros(batch, inner, taps, device=device, dtype=torch.bfloat16),
            state=torch.zeros(batch, inner, states, device=device)) for _ in range(layers)]
        self.gain = torch.ones(width, device=device, dtype=torch.bfloat16)
        self.tokens = torch.zeros(batch, dtype=torch.long, device=device)
        self.inputs, self.output = compiled(step_inputs, eager), compiled(step_output, eager)

    def step(self):
        x = functional.embedding(self.tokens, self.embedding)
        for p in self.layers:
            u, delta, b, c, z = self.inputs(x, p["taps_state"], p["gain"], p["in_proj"], p["conv_weight"], p["conv_bias"],
                                            p["x_proj"], p["dt_proj"], self.states)
            x = self.output(x, u, delta, b, c, z, p["state"], p["dt_bias"], p["a"], p["skip"], p["out_proj"])
        logits = functional.linear(functional.rms_norm(x, x.shape[-1:], self.gain, 1e-5), self.embedding)
        self.tokens.copy_(logits.argmax(-1))

    def bytes(self):
        weights = [v for p in self.layers for k, v in p.items() if "state" not in k] + [self.embedding]
        states = [p[k] for p in self.layers for k in ("state", "taps_state")]
        return sum(v.numel() * v.element_size() for v in weights) + 2 * sum(v.numel() * v.element_size() for v in states)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", default="1,64")
    parser.add_argument("--small", action="store_true", help="use a tiny model, to check that the script runs")
    add_device_argument(parser)
    arguments = parser.parse_args()
    describe(arguments)
    torch.manual_seed(1)
    shape = dict(layers=64, width=2560, states=16, vocabulary=50280)
    if arguments.small:
        shape = dict(layers=2, width=32, states=16, vocabulary=101)
    for batch in [int(number) for number in arguments.batch.split(",")]:
        for eager in [True] if arguments.eager else [True, False]:
            decoder = Decoder(batch, arguments.device, eager, **shape)
            with torch.inference_mode():
                for _ in range(2):
                    decoder.step()
                work = decoder.step
                if arguments.device == "cuda":
                    torch.cuda.synchronize()
                    graph = torch.cuda.CUDAGraph()
                    with torch.cuda.graph(graph):
                        decoder.step()
                    work = graph.replay
                time = median_milliseconds(work, arguments.device, arguments.repetitions)
            name = "plain operations" if eager else "torch.compile"
            print(f"batch {batch:3}, {name:17}: {time:8.3f} ms per step, {batch / time * 1e3:8.0f} tokens/s, "
                  f"{decoder.bytes() / time * 1e-6:6.0f} GB/s of weights and states", flush=True)
            del decoder, work
            graph = None
            if arguments.device == "cuda":
                torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
