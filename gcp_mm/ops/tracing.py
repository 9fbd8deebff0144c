"""Whether an operation runs, or is recorded by a compiler, an exporter or torch.func."""

import torch
from torch import Tensor
from torch.nn import Parameter

# Both compilers and exporters answer to it; PyTorch before 2.3 had it elsewhere.
if hasattr(torch.compiler, 'is_compiling'):
    from torch.compiler import is_compiling
else:
    from torch._utils import is_compiling

# The innermost transform of torch.func that runs, or None; PyTorch has no public name for it.
functorch = getattr(torch._C, '_functorch', None)
interpreter = getattr(functorch, 'peek_interpreter_stack', lambda: None)


def is_traced(x: Tensor) -> bool:
    """Whether a compiler, an exporter or torch.func watches what is done to `x`.

    Then only plain operations will do: no cached tensors, which belong to the outside, no autograd
    function, which not all of them follow, and no branch on values.
    """
    if torch.jit.is_tracing() or is_compiling() or interpreter() is not None:
        return True
    # Tensors without data: of shape inference, of torch.export, which come as subclasses.
    return x.is_meta or type(x) not in (Tensor, Parameter)
