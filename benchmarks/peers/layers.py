"""The layers of a MoE-Mamba, defined as in moe_mamba (docs/layers.md), as functions of tensors, so that all layers of a model share the
code that torch.compile generates for one."""
import torch
import torch.nn.functional as functional


def rms_norm(x, gain):
    return functional.rms_norm(x, x.shape[-1:], gain, 1e-5)


def mamba_inputs(x, gain, in_proj, conv_weight, conv_bias, x_proj, dt_proj):
    """Norm, projections and convolution: u, delta before bias and softplus, B, C, z, all (batch, …, length)."""
    batch, length, width = x.shape
    states = (x_proj.shape[0] - dt_proj.shape[1]) // 2
    normed = rms_norm(x, gain).reshape(-1, width)
    xz = (in_proj @ normed.t()).view(-1, batch, length).transpose(0, 1)
    u, z = xz.chunk(2, 1)
    taps = conv_weight.shape[1]
    padded = functional.pad(u, (taps - 1, 0)).float()
    u = sum(padded[..., k : k + length] * conv_weight[:, k, None] for k in range(taps)) + conv_bias[:, None]
    u = functional.silu(u).to(xz.dtype)
    step, b, c = torch.matmul(x_proj, u).split([dt_proj.shape[1], states, states], 1)
    return u, torch.matmul(dt_proj, step), b, c, z


def mamba_output(x, y, out_proj):
    return x + functional.linear(y.transpose(1, 2), out_proj).float()


def grouped_products(rows, up, down, offsets):
    """Both matrix products of every expert, on rows sorted by expert."""
    hidden = functional.relu(functional.grouped_mm(rows, up.transpose(1, 2), offs=offsets))
    return functional.grouped_mm(hidden, down.transpose(1, 2), offs=offsets)


def padded_products(rows, up, down, offsets):
    """The same as batched products on rows padded to the largest number of rows per expert, for which the host waits."""
    experts, counts = up.shape[0], offsets.diff(prepend=offsets.new_zeros(1))
    most = int(counts.max())
    place = torch.arange(rows.shape[0], device=rows.device)
    expert = torch.searchsorted(offsets, place, right=True)
    slot = expert * most + place - (offsets - counts)[expert]
    padded = rows.new_zeros(experts * most, rows.shape[1]).index_copy(0, slot, rows).view(experts, most, -1)
    hidden = functional.relu(torch.bmm(padded, up.transpose(1, 2)))
    return torch.bmm(hidden, down.transpose(1, 2)).reshape(experts * most, -1)[slot]


def best_products():
    if hasattr(functional, "grouped_mm"):
        return grouped_products, "torch.nn.functional.grouped_mm"
    return padded_products, "padded torch.bmm (this PyTorch has no grouped_mm)"


def route(x, router, top_k):
    """Returns the gates and the rows' numbers, both sorted by expert, the end of each expert's rows, and the balance loss
    without its factor."""
    tokens, experts = x.shape[0], router.shape[0]
    with torch.autocast(x.device.type, enabled=False):
        probabilities = functional.linear(x.float(), router.float()).softmax(-1)
    gates, chosen = probabilities.topk(top_k, -1)
    chosen = chosen.flatten()
    load = torch.zeros(experts, dtype=torch.int32, device=x.device)
    load = load.scatter_add(0, chosen, torch.ones_like(chosen, dtype=torch.int32))
    balance = experts * (load / (tokens * top_k) * probabilities.mean(0)).sum()
    order = chosen.argsort(stable=True)
    return gates.flatten()[order], order // top_k, load.cumsum(0, dtype=torch.int32), balance


def mixture(x, router, up, down, top_k, products):
    """A dropless mixture of experts on (rows, width), weighted by the gates; returns its output and balance loss."""
    gates, source, offsets, balance = route(x, router, top_k)
    rows = x.to(torch.bfloat16)[source]
    y = products(rows, up.to(torch.bfloat16), down.to(torch.bfloat16), offsets)
    out = torch.zeros_like(x, dtype=torch.float32).index_add(0, source, y.float() * gates[:, None])
    return out, balance


def mixture_block(x, gain, router, up, down):
    """Switch: one expert per token, with norm and residual."""
    y, balance = mixture(rms_norm(x, gain).flatten(0, 1), router, up, down, 1, best_products()[0])
    return x + y.view_as(x), balance


def head_loss(x, gain, weight, targets):
    logits = functional.linear(rms_norm(x, gain), weight).flatten(0, 1)
    return functional.cross_entropy(logits.float(), targets.flatten())
