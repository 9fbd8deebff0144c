"""A network as its stem and the rest, by the name of a module and without taking it apart."""

import difflib
from collections.abc import Callable
from contextlib import contextmanager

import torch
from torch import Tensor, nn

# The output of the first convolution after its BN and ReLU and, of a ResNet, after the max-pooling
STEMS = {
    'ResNet': 'backbone.maxpool',
    'MobileNetV2': 'backbone.conv1',
    'ShuffleNetV2': 'backbone.conv1',
}


def find_stem(model: nn.Module, stem: str | None = None) -> str:
    """Name of the module at whose output to split a classifier.

    Args:
        model: classifier with a `backbone`.
        stem: path of a module, such as ``'backbone.layer1'``. None takes the one in :data:`STEMS`
            for the class of the backbone, or for one it is derived from.

    Returns:
        The path, of a module that exists.

    Raises:
        ValueError: if there is no such module, or no default for the backbone.
    """
    if stem is None:
        classes = [kind.__name__ for kind in type(getattr(model, 'backbone', None)).__mro__]
        stem = next((STEMS[name] for name in classes if name in STEMS), None)
        if stem is None:
            raise ValueError(
                f'stem: there is no default for the backbone {classes[0]} (only for '
                f'{", ".join(STEMS)} and what is derived from them); give the path of the module '
                "whose output to take for X, such as stem='backbone.conv1'"
            )
    names = [name for name, _ in model.named_modules() if name]
    if stem not in names:
        nearest = difflib.get_close_matches(stem, names, n=5, cutoff=0) or names[:5]
        raise ValueError(
            f'stem={stem!r}: the model has no such module; the nearest names are '
            f'{", ".join(map(repr, nearest))}'
        )
    return stem


def split_at(
    model: nn.Module, stem: str, run: Callable[[], object]
) -> tuple[Tensor, Callable[[Tensor], object]]:
    """Split what `run` computes into features and a function of them.

    Forward hooks take the features where they come out of `stem`, or put others in their place.
    What comes before is computed each time, and then let go.

    Args:
        model: network, whose real forward is split.
        stem: path of a module of it, see :func:`find_stem`.
        run: runs `model` on a batch, ``lambda: model(**data, mode='loss')`` for example.

    Returns:
        The output of `stem`, detached, and the function `rest` of such a tensor that gives what
        `run` gives with the tensor in the place of that output.

    Raises:
        ValueError: if `stem` is not used in a run, or gives no tensor; by `rest`, if it is used
            more than once.
    """
    module = model.get_submodule(stem)

    def rest(x):
        uses = 0

        def replace(module, args, output):
            nonlocal uses
            uses += 1
            return x.clone()  # what follows may work in place

        with _forward_hook(module, replace):
            out = run()
        if uses != 1:
            raise ValueError(f'stem={stem!r} is used {uses} times in a run; name one used once')
        return out

    with _forward_hook(module, _stop), torch.no_grad():
        try:
            run()
        except _StemReached as reached:
            (x,) = reached.args
        else:
            raise ValueError(f'stem={stem!r} is not used in a run; name a module that is')
    if not isinstance(x, Tensor):
        raise ValueError(
            f'stem={stem!r} gives a {type(x).__name__}; name a module that gives a tensor'
        )
    return x.detach(), rest


@contextmanager
def _forward_hook(module, hook):
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


class _StemReached(Exception):  # noqa: N818  no error: it ends a run whose rest is not needed
    pass


def _stop(module, args, output):
    raise _StemReached(output)
