"""What a training step keeps in memory."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.config import Config
from mmengine.registry import OPTIMIZERS
from torch import nn

from .finding import Finding

GIB = 2**30
PROBE = (64, 64)  # a parameter so large that single numbers of its state, Adam's step, vanish


@contextmanager
def saved_bytes(model: nn.Module) -> Iterator[dict[int, int]]:
    """Context that counts what the forward passes in it keep for the backward.

    Args:
        model: network, whose parameters are left out.

    Yields:
        {address of a storage: its bytes}. A storage that several operations keep counts once.
    """
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    saved = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield saved


def bytes_of(tensors) -> int:
    """Bytes of tensors together."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def optimizer_bytes(cfg: Config, model: nn.Module) -> tuple[float, str]:
    """Bytes that a config's optimizer keeps for the parameters of a network that are trained.

    The optimizer is built for a parameter of its own and makes a step. What a wrapper keeps besides
    (K-FAC its factors) is not in it.

    Args:
        cfg: the final config.
        model: its network.

    Returns:
        The bytes, and '' or, where they are not known and left out, the reason.
    """
    optimizer = cfg.optim_wrapper.get('optimizer')
    if not optimizer:
        return 0, ', without the state of the optimizers, which are several'
    parameter = nn.Parameter(torch.zeros(PROBE))
    parameter.grad = torch.ones(PROBE)
    try:
        built = OPTIMIZERS.build({**optimizer, 'params': [parameter]})
        built.step()
    except Exception as error:  # some want a GPU, or several processes: no fault of the config
        return 0, f', without the state of the optimizer, which could not be tried ({error})'
    states = [s for s in built.state[parameter].values() if isinstance(s, torch.Tensor)]
    share = sum(state.numel() for state in states) // parameter.numel()
    return share * trained_bytes(model), ''


def trained_bytes(model: nn.Module) -> int:
    """Bytes of the parameters that are trained."""
    return bytes_of(p for p in model.parameters() if p.requires_grad)


def check_memory(cfg: Config, model: nn.Module, saved: int, images: int) -> list[Finding]:
    """Estimate the memory of a training step and compare it with that of the GPU.

    Args:
        cfg: the final config.
        model: its network.
        saved: bytes that a forward pass kept for the backward, see :func:`saved_bytes`.
        images: in that pass; the activations of a batch are taken to be as many times more.
    """
    batch = cfg.train_dataloader.batch_size
    weights = bytes_of([*model.parameters(), *model.buffers()])
    states, note = optimizer_bytes(cfg, model)
    parts = {
        'weights': weights,
        'gradients': trained_bytes(model),
        'optimizer': states,
        f'activations of {batch} images': saved / images * batch,
    }
    total = sum(parts.values())
    listed = ', '.join(f'{name} {size / GIB:.2f}' for name, size in parts.items())
    text = (
        f'about {total / GIB:.2f} GiB a GPU ({listed}), an estimate in float32{note}. It leaves '
        "out the workspaces of convolutions, the backward's own, gaps that the allocator leaves, "
        'and the CUDA context'
    )
    if not torch.cuda.is_available():
        return [Finding('ok', f'{text}; PyTorch finds no GPU to compare with')]
    available = torch.cuda.mem_get_info()[1]
    text += f'; the GPU has {available / GIB:.2f} GiB'
    if total > available:
        return [
            Finding('warning', f'{text}: lower train_dataloader.batch_size, or train with --amp')
        ]
    return [Finding('ok', text)]
