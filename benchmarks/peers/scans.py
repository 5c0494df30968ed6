"""Mamba's selective scan with gradients, by the fastest implementation that is installed. Tensors are (batch, channels, length), B and C
(batch, states, length)."""
import importlib.machinery
import importlib.util

import torch
import torch.nn.functional as functional

from common import compiled


class KernelScan(torch.autograd.Function):
    """mamba_ssm's compiled kernels, called as mamba_ssm calls them."""

    module = None

    @staticmethod
    def forward(context, u, delta, a, b, c, d, z, bias):
        u, delta, z = (v if v.stride(-1) == 1 else v.contiguous() for v in (u, delta, z))
        b, c = b.contiguous()[:, None], c.contiguous()[:, None]
        out, saved, gated = KernelScan.module.fwd(u, delta, a, b, c, d, z, bias, True)
        context.save_for_backward(u, delta, a, b, c, d, z, bias, saved, out)
        return gated

    @staticmethod
    def backward(context, gradient):
        u, delta, a, b, c, d, z, bias, saved, out = context.saved_tensors
        du, ddelta, da, db, dc, dd, dbias, dz = KernelScan.module.bwd(
            u, delta, a, b, c, d, z, bias, gradient.contiguous(), saved, out, None, True, False
        )
        return du, ddelta, da, db[:, 0].to(b.dtype), dc[:, 0].to(c.dtype), dd, dz, dbias


def combine(first, second):
    """The composition of two maps h -> a h + b, as one such map."""
    return first[0] * second[0], second[0] * first[1] + second[1]


def states_of(decay, drive, reverse=False):
    """Solves h_t = decay_t h_(t-1) + drive_t along the last dimension, starting from zero; in reverse, with h_(t+1)."""
    if decay.is_cuda and torch.compiler.is_compiling():
        from torch._higher_order_ops.associative_scan import associative_scan

        return associative_scan(combine, (decay, drive), dim=-1, reverse=reverse, combine_mode="pointwise")[1]
    if reverse:
        return states_of(decay.flip(-1), drive.flip(-1)).flip(-1)
    distance = 1  # Hillis and Steele: the span that has been summed doubles in every iteration
    while distance < decay.shape[-1]:
        before = functional.pad(drive, (distance, 0))[..., : drive.shape[-1]]
        drive = drive + decay * before
        decay = decay * functional.pad(decay, (distance, 0), value=1.0)[..., : decay.shape[-1]]
        distance *= 2
    return drive


def inputs_of(u, delta, a, b, bias):
    step = functional.softplus(delta.float() + bias[:, None])
    decay = torch.exp(step[:, :, None] * a[:, :, None])  # (batch, channels, states, length)
    return step, decay, (step * u.float())[:, :, None] * b.float()[:, None]


def scan_forward(u, delta, a, b, c, d, z, bias):
    _, decay, drive = inputs_of(u, delta, a, b, bias)
    y = (states_of(decay, drive) * c.float()[:, None]).sum(2) + d[:, None] * u.float()
    return (y * functional.silu(z.float())).to(u.dtype)


def scan_backward(gradient, u, delta, a, b, c, d, z, bias):
    """Recomputes the forward pass, then runs the same recurrence from the end for the states' gradient."""
    x, gate = u.float(), z.float()
    step, decay, drive = inputs_of(u, delta, a, b, bias)
    h = states_of(decay, drive)
    y = (h * c.float()[:, None]).sum(2) + d[:, None] * x
    sigmoid = torch.sigmoid(gate)
    dy = gradient.float() * gate * sigmoid
    dz = gradient.float() * y * sigmoid * (1 + gate * (1 - sigmoid))
    following = functional.pad(decay, (0, 1))[..., 1:]
    dh = states_of(following, dy[:, :, None] * c.float()[:, None], reverse=True)
    ddecay = dh * functional.pad(h, (1, 0))[..., :-1] * decay
    ddrive = (dh * b.float()[:, None]).sum(2)
    dstep = (ddecay * a[:, :, None]).sum(2) + ddrive * x
    ddelta = dstep * (1 - torch.exp(-step))  # the derivative of softplus, from its value
    da = (ddecay * step[:, :, None]).sum((0, 3))
    db, dc = (dh * (step * x)[:, :, None]).sum(1), (h * dy[:, :, None]).sum(1)
    du = ddrive * step + d[:, None] * dy
    dd, dbias = (dy * x).sum((0, 2)), ddelta.sum((0, 2))
    return du.to(u.dtype), ddelta.to(u.dtype), da, db.to(b.dtype), dc.to(c.dtype), dd, dz.to(z.dtype), dbias


class TorchScan(torch.autograd.Function):
    """PyTorch only. Tensors of size batch x length x channels x states exist during a call only, but several at a time."""

    run_forward, run_backward = scan_forward, scan_backward

    @staticmethod
    def forward(context, *inputs):
        context.save_for_backward(*inputs)
        return TorchScan.run_forward(*inputs)

    @staticmethod
    def backward(context, gradient):
        return TorchScan.run_backward(gradient, *context.saved_tensors)


def kernels(path):
    """mamba_ssm's compiled module, or None and the reason."""
    try:
        if not path:
            import selective_scan_cuda

            return selective_scan_cuda, ""
        loader = importlib.machinery.ExtensionFileLoader("selective_scan_cuda", path)
        spec = importlib.util.spec_from_file_location("selective_scan_cuda", path, loader=loader)
        module = importlib.util.module_from_spec(spec)
        loader.exec_module(module)
        return module, ""
    except ImportError as error:
        return None, str(error)


def loop(u, delta, a, b, c, d, z, bias):
    """The recurrence as defined, step by step."""
    step = functional.softplus(delta + bias[:, None])
    h, outputs = torch.zeros(*u.shape[:2], a.shape[1], device=u.device, dtype=u.dtype), []
    for t in range(u.shape[2]):
        h = torch.exp(step[:, :, t, None] * a) * h + (step * u)[:, :, t, None] * b[:, None, :, t]
        outputs.append((h * c[:, None, :, t]).sum(-1))
    return (torch.stack(outputs, 2) + d[:, None] * u) * functional.silu(z)


def worst_error(scan, device):
    """The largest relative error of a scan's output and gradients in float, compared with the loop in double."""
    batch, channels, states, length = 2, 64, 16, 200
    wide, narrow = (batch, channels, length), (batch, states, length)
    shapes = dict(u=wide, delta=wide, a=(channels, states), b=narrow, c=narrow, d=(channels,), z=wide, bias=(channels,))
    inputs = {name: torch.rand(shape, device=device) * 2 - 1 for name, shape in shapes.items()}
    inputs["a"] = -torch.exp(inputs["a"] + 1)
    gradient = torch.rand(wide, device=device)
    results = []
    for function, kind in ((scan, torch.float32), (loop, torch.float64)):
        leaves = [v.to(kind).requires_grad_() for v in inputs.values()]
        y = function(*leaves)
        results.append([y, *torch.autograd.grad(y, leaves, gradient.to(kind))])
    return max(float((x.detach().double() - e.detach()).norm() / e.detach().norm()) for x, e in zip(*results))


def choose(device, extension=None, eager=False, torch_only=False):
    """Returns a function scan(u, delta, a, b, c, d, z, bias) and its description."""
    module, reason = (None, "not requested") if torch_only else kernels(extension)
    if module is not None:
        KernelScan.module = module
        return KernelScan.apply, "mamba_ssm's kernels"
    eager = eager or device != "cuda"  # the associative scan needs a CUDA device and compiled code
    TorchScan.run_forward, TorchScan.run_backward = (
        compiled(function, eager, dynamic=False) for function in (scan_forward, scan_backward)
    )
    name = "a scan by doubling, plain operations" if eager else "torch's associative scan"
    return TorchScan.apply, f"{name} (mamba_ssm's kernels: {reason})"
