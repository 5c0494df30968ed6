#!/usr/bin/env python3
"""python3 benchmarks/peers/training.py [--batch 8] [--extension selective_scan_cuda….so] [--torch-scan]

Measures the training throughput, in tokens per second, of the paper's MoE-Mamba (Pióro et al. 2024, version 2, 25M active parameters)
in PyTorch: 8 x (Mamba, Moe), width 512, 42 experts of hidden width 1536, one per token, a vocabulary of 50257, context 1024. The model is
defined as in moe_mamba, LanguageModel<Vocabulary<50257>, Width<512>, Repeat<8, Mamba<>, Moe<Experts<42>, Hidden<1536>>>>: dropless, with
RMSNorm before each layer and before a tied head (the paper has LayerNorm, and an untied head without a norm before it).

Uses bfloat16 autocast on float parameters, fused AdamW, gradient clipping, torch.compile for the parts of each layer, and random tokens.
"""
import argparse
import math
import statistics

from common import add_device_argument, compiled, describe, mark, milliseconds, torch
import layers
import scans


class MoeMamba(torch.nn.Module):
    def __init__(self, blocks=8, width=512, experts=42, hidden=1536, vocabulary=50257, states=16, taps=4, eager=False, scan=None):
        super().__init__()
        inner, rank = 2 * width, math.ceil(width / 16)
        self.rank, self.scan, self.sizes = rank, scan, (blocks, width, inner, experts, hidden, vocabulary, states, taps)

        def drawn(*shape, fan_in):
            return torch.nn.Parameter(torch.empty(*shape).uniform_(-(fan_in**-0.5), fan_in**-0.5))

        def normal(*shape, deviation):
            return torch.nn.Parameter(torch.nn.init.trunc_normal_(torch.empty(*shape), 0, deviation, -2 * deviation, 2 * deviation))

        def gain():
            return torch.nn.Parameter(torch.ones(width))

        self.embedding = torch.nn.Parameter(torch.empty(vocabulary, width).normal_(0, 0.02))
        self.mambas, self.moes = torch.nn.ModuleList(), torch.nn.ModuleList()
        for _ in range(blocks):
            step = torch.exp(torch.empty(inner).uniform_(math.log(1e-3), math.log(1e-1))).clamp(min=1e-4)
            self.mambas.append(torch.nn.ParameterDict(dict(
                norm=gain(),
                in_proj=drawn(2 * inner, width, fan_in=width),
                conv_weight=drawn(inner, taps, fan_in=taps),
                conv_bias=drawn(inner, fan_in=taps),
                x_proj=drawn(rank + 2 * states, inner, fan_in=inner),
                dt_proj=drawn(inner, rank, fan_in=rank),
                dt_bias=torch.nn.Parameter(step + torch.log(-torch.expm1(-step))),
                a_log=torch.nn.Parameter(torch.log(torch.arange(1, states + 1).float()).repeat(inner, 1)),
                skip=torch.nn.Parameter(torch.ones(inner)),
                out_proj=torch.nn.Parameter(drawn(width, inner, fan_in=inner).data / math.sqrt(2 * blocks)),
            )))
            self.moes.append(torch.nn.ParameterDict(dict(
                norm=gain(),
                router=normal(experts, width, deviation=math.sqrt(0.1 / width)),
                up=normal(experts, hidden, width, deviation=math.sqrt(0.1 / width)),
                down=normal(experts, width, hidden, deviation=math.sqrt(0.1 / hidden)),
            )))
        self.final_norm = gain()
        self.mamba_inputs, self.mamba_output = compiled(layers.mamba_inputs, eager), compiled(layers.mamba_output, eager)
        self.mixture_block, self.head_loss = compiled(layers.mixture_block, eager), compiled(layers.head_loss, eager)

    def forward(self, tokens, targets):
        x = torch.nn.functional.embedding(tokens, self.embedding)
        balance = 0
        for p, moe in zip(self.mambas, self.moes):
            u, delta, b, c, z = self.mamba_inputs(
                x, p["norm"], p["in_proj"], p["conv_weight"], p["conv_bias"], p["x_proj"], p["dt_proj"])
            y = self.scan(u, delta, -torch.exp(p["a_log"]), b, c, p["skip"], z, p["dt_bias"])
            x = self.mamba_output(x, y, p["out_proj"])
            x, loss = self.mixture_block(x, moe["norm"], moe["router"], moe["up"], moe["down"])
            balance = balance + loss
        return self.head_loss(x, self.final_norm, self.embedding, targets), 0.01 * balance

    def operations_per_token(self):
        """Of the forward pass, counted as in moe_mamba's cost<>: products, convolution, and seven per state update."""
        blocks, width, inner, experts, hidden, vocabulary, states, taps = self.sizes
        mamba = 2 * (3 * inner * width + (self.rank + 2 * states) * inner + inner * self.rank) + 2 * taps * inner + 7 * states * inner
        return blocks * (mamba + 2 * (experts * width + 2 * width * hidden)) + 2 * vocabulary * width


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--extension", help="path of mamba_ssm's compiled module selective_scan_cuda, if it is not installed")
    parser.add_argument("--torch-scan", action="store_true", help="do not use mamba_ssm's kernels, even if they are installed")
    parser.add_argument("--peak", type=float, default=989, help="TFLOP/s that utilisation refers to; default: H100, dense bfloat16")
    parser.add_argument("--small", action="store_true", help="use a tiny model, to check that the script runs")
    add_device_argument(parser)
    arguments = parser.parse_args()
    describe(arguments)
    torch.manual_seed(1)
    scan, name = scans.choose(arguments.device, arguments.extension, arguments.eager, arguments.torch_scan)
    print(f"scan: {name}, error {scans.worst_error(scan, arguments.device):.1e}, gradients included")
    print(f"experts: {layers.best_products()[1]}", flush=True)
    sizes = dict(blocks=2, width=32, experts=4, hidden=64, vocabulary=101) if arguments.small else {}
    model = MoeMamba(scan=scan, eager=arguments.eager, **sizes).to(arguments.device)
    decaying = [p for name, p in model.named_parameters() if p.dim() > 1 and "a_log" not in name]
    others = [p for name, p in model.named_parameters() if p.dim() <= 1 or "a_log" in name]
    optimizer = torch.optim.AdamW([dict(params=decaying, weight_decay=0.1), dict(params=others, weight_decay=0.0)],
                                  lr=5e-4, betas=(0.9, 0.95), fused=True)
    count = sum(p.numel() for p in model.parameters())
    shape = (arguments.batch, arguments.length + 1)
    print(f"{count / 1e6:.1f}M parameters, {arguments.batch} x {arguments.length} tokens per step", flush=True)

    def step():
        tokens = torch.randint(0, model.sizes[5], shape, device=arguments.device)
        with torch.autocast(arguments.device, torch.bfloat16):
            loss, balance = model(tokens[:, :-1], tokens[:, 1:])
        (loss + balance).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    marks, losses = [], []
    for _ in range(5 + arguments.repetitions):
        losses.append(step())
        marks.append(mark(arguments.device))
    times = [milliseconds(begin, end) * 1e-3 for begin, end in zip(marks[4:], marks[5:])]
    median, tokens = statistics.median(times), arguments.batch * arguments.length
    rate = tokens / median
    print(f"loss {losses[0].item():.3f} -> {losses[-1].item():.3f}")
    print(f"{median * 1e3:.1f} ms per step (fastest {min(times) * 1e3:.1f}), {rate / 1e3:.1f}k tokens/s, "
          f"{100 * 3 * model.operations_per_token() * rate / (arguments.peak * 1e12):.1f} % of {arguments.peak:g} TFLOP/s")
    if arguments.device == "cuda":
        print(f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB peak memory")


if __name__ == "__main__":
    main()
