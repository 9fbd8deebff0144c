"""Whether an operation runs, or is being recorded by a compiler or an exporter."""

import torch
from torch import Tensor
from torch.nn import Parameter

# Both compilers and exporters answer to it; PyTorch before 2.3 had it elsewhere.
if hasattr(torch.compiler, 'is_compiling'):
    from torch.compiler import is_compiling
else:
    from torch._utils import is_compiling


def is_traced(x: Tensor) -> bool:
    """Whether a compiler or an exporter watches what is done to `x`.

    Then only plain operations will do: no cached tensors, which belong to the outside, and no
    autograd function, which not all of them follow.
    """
    if torch.jit.is_tracing() or is_compiling():
        return True
    # Tensors without data: of shape inference, of torch.export, which come as subclasses.
    return x.is_meta or type(x) not in (Tensor, Parameter)
