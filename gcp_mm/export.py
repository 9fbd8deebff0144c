"""Classification networks as files that need neither this package nor MMPretrain to run.

The suffix of a file is its format: ``.pt2`` a program of torch.export, ``.onnx`` ONNX, ``.pt`` a
trace in TorchScript. Each takes batches of any number of images and gives logits. What is written
is read again and compared with the network it came from, before it gets its name.
"""

import copy
import importlib.util
import inspect
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from pathlib import Path

import torch
from mmengine.config import Config
from mmpretrain.models import BaseClassifier
from torch import Tensor, nn

from .models import GlobalCovariancePooling
from .ops.precision import full_float32

# Largest difference of a file's logits from the network's, in units of the largest logit. Where
# float32's rounding costs the network itself more, so many times that.
TOLERANCE = 1e-4
ROUNDING = 4
BATCHES = (1, 3)  # numbers of images to compare at, neither of them the number exported with


class LogitNetwork(nn.Module):
    """Images to logits, the whole of what is written to a file.

    Args:
        model: classifier of MMPretrain, in evaluation mode.
        with_normalisation: whether to begin with the normalisation of the model's data
            preprocessor.

    Raises:
        TypeError: if `model` is no classifier of MMPretrain.
        ValueError: if it is in training mode, or has no normalisation where one is asked for.
    """

    def __init__(self, model: BaseClassifier, with_normalisation: bool = False):
        super().__init__()
        if not isinstance(model, BaseClassifier):
            raise TypeError(
                f'model: expected a classifier of MMPretrain, got {type(model).__name__}; what of '
                'a detector can be exported is in docs/export.md'
            )
        if any(module.training for module in model.modules()):
            raise ValueError('model: it is in training mode; call its eval() first')
        preprocessor = model.data_preprocessor
        if with_normalisation and getattr(preprocessor, 'mean', None) is None:
            raise ValueError(
                'with_normalisation: the data preprocessor of the model has no mean and standard '
                'deviation; leave it out'
            )
        self.model = model
        self.with_normalisation = with_normalisation
        # MMPretrain reads images as BGR, and its preprocessor turns them round or does not.
        self.takes_rgb = getattr(preprocessor, 'to_rgb', False)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images.

        Args:
            images: (B, 3, H, W) float32: what the data preprocessor gives, or, with the
                normalisation, RGB of 0 to 255.

        Returns:
            (B, classes).
        """
        if self.with_normalisation:
            preprocessor = self.model.data_preprocessor
            images = images if self.takes_rgb else images.flip(1)
            images = (images - preprocessor.mean) / preprocessor.std
        return self.model(images, mode='tensor')


def export_classifier(
    model: BaseClassifier,
    path: str | Path,
    size: tuple[int, int],
    with_normalisation: bool = False,
    force: bool = False,
) -> float:
    """Write a classifier to a file that takes batches of any number of images of one size.

    The file belongs to the kind of device the model is on, but for ONNX, which belongs to none.

    Args:
        model: classifier of MMPretrain, in evaluation mode.
        path: of the file; its suffix, one of ``.pt2``, ``.onnx`` and ``.pt``, is the format.
        size: height and width of the images, in pixels.
        with_normalisation: whether the file takes RGB images of 0 to 255 and normalises them
            itself.
        force: whether to replace a file that exists, once the new one is proven.

    Returns:
        The largest difference of the file's logits from the network's, in units of the largest of
        those, over :data:`BATCHES` of random images.

    Raises:
        FileExistsError, FileNotFoundError, ImportError: see :func:`check_target`.
        TypeError: if `model` is no classifier of MMPretrain.
        ValueError: for a `path`, a `size` or a network that cannot be exported.
        RuntimeError: if that difference exceeds :data:`TOLERANCE`, and :data:`ROUNDING` times
            the network's :func:`rounding_error`. No file is left, or, with `force`, the earlier
            one.
    """
    path = Path(path)
    check_target(path, force)
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f'size: expected a height and a width from 1 on, got {size}')
    network = LogitNetwork(model, with_normalisation)
    _check_layers(model, path.suffix)
    write, read = FORMATS[path.suffix]
    with torch.no_grad(), full_float32():
        # Two: an exporter takes a batch of one for a batch that is always one.
        images = next(_random_images(network, size, [2]))
        _check_logits(network(images))
        with tempfile.TemporaryDirectory(prefix='.export-', dir=path.parent) as folder:
            draft = Path(folder, path.name)
            write(network, images, draft)
            batches = list(_random_images(network, size, BATCHES))
            difference = largest_difference(read(draft), network, batches)
            limit = TOLERANCE
            if not difference <= limit:  # nor a NaN
                limit = max(limit, ROUNDING * rounding_error(network, batches))
            if not difference <= limit:
                raise RuntimeError(
                    f'{path}: the exported logits differ from those of the network by '
                    f'{difference:.1e} of the largest, more than {limit:.0e}; the file was '
                    'removed. Try another format'
                )
            os.replace(draft, path)
    return difference


def check_target(path: Path, force: bool = False) -> None:
    """Check that a file of this name can be written, and proven, here.

    Raises:
        ValueError: if its suffix is no format, or one that this PyTorch does not write.
        FileExistsError: if it exists and `force` is not set.
        FileNotFoundError: if its folder does not exist.
        ImportError: if its format takes a package that is not installed.
    """
    if path.suffix not in FORMATS:
        raise ValueError(f'path: expected a name that ends in {", ".join(FORMATS)}, got {path}')
    if path.exists() and not force:
        raise FileExistsError(f'path: {path} exists; name another file, or set force (--force)')
    if not path.parent.is_dir():
        raise FileNotFoundError(f'path: the folder {path.parent} does not exist; make it first')
    if path.suffix == '.pt2' and not _has_dynamic_shapes():
        raise ValueError(
            f'path: {path}: PyTorch {torch.__version__} exports programs for one number of images '
            'alone; install 2.2 or later, or take .onnx or .pt'
        )
    if path.suffix == '.onnx':
        needed = ['onnx', 'onnxruntime', *(['onnxscript'] if _has_dynamo() else [])]
        missing = [name for name in needed if importlib.util.find_spec(name) is None]
        if missing:
            raise ImportError(
                f'{path}: to write and prove ONNX takes packages that are not installed: pip '
                f'install {" ".join(missing)}'
            )


def image_size(cfg: Config) -> tuple[int, int]:
    """Height and width of the images that a config tests with.

    Args:
        cfg: of a classifier.

    Raises:
        ValueError: if its test pipeline does not settle the size.
    """
    dataset = (cfg.get('test_dataloader') or cfg.get('val_dataloader') or {}).get('dataset', {})
    for transform in reversed(dataset.get('pipeline', [])):
        kind = str(getattr(transform['type'], '__name__', transform['type'])).split('.')[-1]
        size = None
        if kind in ('CenterCrop', 'EfficientNetCenterCrop'):
            size = transform['crop_size']
        elif kind == 'Resize' and not transform.get('keep_ratio'):
            size = transform.get('scale')
        if size is not None:
            width, height = (size, size) if isinstance(size, int) else size
            return height, width
    raise ValueError(
        "size: the config's test pipeline crops or resizes to no size; give it (--size)"
    )


def largest_difference(
    run: Callable[[Tensor], Tensor], network: nn.Module, batches: Iterable[Tensor]
) -> float:
    """Largest difference of two functions' values, in units of the largest value.

    Args:
        run: takes each batch, on any device.
        network: what it is compared with.
        batches: at least one.

    Returns:
        Infinity where shapes differ.
    """
    differences = []
    for images in batches:
        value, expected = run(images).cpu(), network(images).cpu()
        if value.shape != expected.shape:
            return float('inf')
        differences.append((value - expected).abs().max() / expected.abs().max())
    return torch.stack(differences).max().item()


def rounding_error(network: nn.Module, batches: Iterable[Tensor]) -> float:
    """Largest difference of a network's values from those in float64, in units of the largest.

    Args:
        network: left as it is.
        batches: at least one.
    """
    precise = copy.deepcopy(network).double()
    return largest_difference(network, lambda images: precise(images.double()), batches)


def _write_program(network, images, path):
    batch = ({0: torch.export.Dim('batch')},)
    program = torch.export.export(network, (images,), dynamic_shapes=batch)
    torch.export.save(program, str(path))


def _read_program(path):
    return torch.export.load(str(path)).module()


def _write_onnx(network, images, path):
    if _has_dynamo():
        options = dict(
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim('batch')},),
            external_data=False,  # one file
            verbose=False,
        )
    else:
        options = dict(dynamic_axes=dict(images={0: 'batch'}, logits={0: 'batch'}))
    names = dict(input_names=['images'], output_names=['logits'])
    with _one_size():
        torch.onnx.export(network, (images,), str(path), **names, **options)


def _read_onnx(path):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])

    def run(images):
        return torch.from_numpy(session.run(['logits'], dict(images=images.cpu().numpy()))[0])

    return run


def _write_trace(network, images, path):
    with _one_size():
        # The trace is compared with the network afterwards, at other numbers of images.
        torch.jit.trace(network, images, check_trace=False).save(str(path))


FORMATS = {
    '.pt2': (_write_program, _read_program),
    '.onnx': (_write_onnx, _read_onnx),
    '.pt': (_write_trace, lambda path: torch.jit.load(str(path))),
}


def _has_dynamic_shapes():
    """Whether torch.export takes batches of any number; from PyTorch 2.2 on."""
    return 'dynamic_shapes' in inspect.signature(torch.export.export).parameters


def _has_dynamo():
    """Whether PyTorch has the ONNX exporter that builds on torch.export; from 2.5 on."""
    return 'dynamo' in inspect.signature(torch.onnx.export).parameters


@contextmanager
def _one_size():
    """Context without the warnings that a trace holds for one size of images: it is meant to."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', torch.jit.TracerWarning)
        yield


def _random_images(network, size, batches):
    """Random images as the network takes them, the same in each call."""
    parameter = next(network.parameters())
    generator = torch.Generator().manual_seed(0)
    for batch in batches:
        images = torch.randn(batch, 3, *size, generator=generator)
        if network.with_normalisation:
            images = (127.5 + 64 * images).clamp(0, 255)
        yield images.to(parameter)


def _check_layers(model, suffix):
    """Raise ValueError for a pooling by eigendecomposition, in a format that has none."""
    for name, module in model.named_modules():
        pooling = isinstance(module, GlobalCovariancePooling)
        if pooling and module.norm == 'eigh' and suffix != '.pt2':
            raise ValueError(
                f"model.{name}.norm='eigh' can be written as .pt2 alone, not as {suffix}"
            )


def _check_logits(logits):
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(
            f'model: expected a head that gives (B, classes) logits, got {got}; only networks '
            'for classification can be exported'
        )
