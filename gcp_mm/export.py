"""Export classifiers to files that run without this package and without MMPretrain.

The suffix selects the format: ``.pt2`` is a torch.export program, ``.onnx`` ONNX, and ``.pt`` a
TorchScript trace. Each file takes batches of any size and returns logits. Its metadata describe the
classes and the preprocessing of the images, as JSON under the key :data:`KEY`. Every export is
validated against the PyTorch model before the file is in place.
"""

import copy
import importlib.util
import inspect
import json
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from mmpretrain.models import BaseClassifier
from torch import Tensor, nn

from ._io import plain, write_atomically
from .compat.window_attention import windows_of_any_batch
from .data import describe_preprocessing
from .hub import input_channels
from .models import GlobalCovariancePooling
from .ops.precision import full_float32

# Largest difference of a file's logits from the network's, in units of the largest logit. Where
# float32's rounding costs the network itself more, so many times that.
TOLERANCE = 1e-4
ROUNDING = 4
KEY = 'gcp_mm'  # of what a file says of itself
BATCHES = (1, 3)  # numbers of images to compare at, neither of them the number exported with


class LogitNetwork(nn.Module):
    """The module that is exported: images to logits.

    Args:
        model: classifier of MMPretrain; is put in evaluation mode.
        with_normalization: include the normalization of the model's data preprocessor.

    Raises:
        TypeError: if `model` is no classifier of MMPretrain.
        ValueError: if it has no normalization where one is asked for.
    """

    def __init__(self, model: BaseClassifier, with_normalization: bool = False):
        super().__init__()
        if not isinstance(model, BaseClassifier):
            raise TypeError(
                f'model: expected a classifier of MMPretrain, got {type(model).__name__}; what of '
                'a detector can be exported is in docs/guides/export.md'
            )
        preprocessor = model.data_preprocessor
        if with_normalization and getattr(preprocessor, 'mean', None) is None:
            raise ValueError(
                'with_normalization: the data preprocessor of the model has no mean and standard '
                'deviation; leave it out'
            )
        self.model = model
        self.channels = input_channels(model)
        self.with_normalization = with_normalization
        # MMPretrain reads images as BGR, and its preprocessor turns three channels round or not.
        self.takes_rgb = getattr(preprocessor, 'to_rgb', False)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Logits of images.

        Args:
            images: (B, C, H, W) float32: what the data preprocessor gives, or, with the
                normalization, of 0 to 255 and, of three channels, RGB.

        Returns:
            (B, classes).
        """
        if self.with_normalization:
            preprocessor = self.model.data_preprocessor
            if self.channels == 3 and not self.takes_rgb:
                images = images.flip(1)
            images = (images - preprocessor.mean) / preprocessor.std
        return self.model(images, mode='tensor')


def export_classifier(
    model: BaseClassifier,
    path: str | Path,
    size: tuple[int, int],
    with_normalization: bool = False,
    force: bool = False,
) -> float:
    """Export a classifier to a file that takes batches of any number of images of one size.

    A ``.pt2`` or ``.pt`` file runs on the kind of device that the model is on. An ONNX file runs on
    any.

    Args:
        model: classifier of MMPretrain; is put in evaluation mode.
        path: path of the file; its suffix selects the format: ``.pt2`` (from PyTorch 2.2 on),
            ``.onnx`` or ``.pt``. A missing folder is created.
        size: height and width of the images, in pixels.
        with_normalization: include the normalization: the file takes images of 0 to 255, RGB if
            they have three channels.
        force: replace an existing file once the new one is validated.

    Returns:
        The largest difference between the logits of the file and of the network on random images,
        relative to the network's largest logit. :data:`BATCHES` has the batch sizes.

    Raises:
        FileExistsError, ImportError: see :func:`check_target`.
        TypeError: if `model` is not a classifier of MMPretrain.
        ValueError: for a `path`, a `size` or a network that cannot be exported.
        RuntimeError: if the difference exceeds :data:`TOLERANCE`, and also :data:`ROUNDING` times
            the network's :func:`rounding_error`. The new file is removed; with `force`, an earlier
            file stays.
    """
    path = Path(path)
    check_target(path, force)
    if min(size) < 1:
        raise ValueError(f'size: expected a height and a width from 1 on, got {size}')
    network = LogitNetwork(model, with_normalization)
    _check_norm(model, path.suffix)
    write, read = FORMATS[path.suffix]
    with torch.no_grad(), full_float32():
        # Two: an exporter takes a batch of one for a batch that is always one.
        images = next(_random_images(network, size, [2]))
        logits = network(images)
        if not isinstance(logits, Tensor) or logits.dim() != 2:
            got = getattr(logits, 'shape', type(logits).__name__)
            raise ValueError(f'model: expected a head that gives (B, classes) logits, got {got}')
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            # That a trace holds for one size of images: it is meant to.
            warnings.simplefilter('ignore', torch.jit.TracerWarning)
            draft = Path(folder, path.name)
            metadata = describe(model, size, with_normalization, outputs=logits.shape[1])
            with windows_of_any_batch():
                write(network, images, draft, json.dumps(metadata))
            run, _ = read(draft)
            difference = _validate(run, network, list(_random_images(network, size, BATCHES)))
            write_atomically(path, draft.read_bytes())
    return difference


def describe(
    model: BaseClassifier, size: tuple[int, int], with_normalization: bool, outputs: int
) -> dict:
    """Metadata of an exported file, see docs/guides/export.md.

    Args:
        model, size, with_normalization: as in :func:`export_classifier`.
        outputs: number of logits.
    """
    from mmpretrain.models import ClsHead, MultiLabelClsHead

    found = describe_preprocessing(model, input_channels(model), size, with_normalization)
    classes = (getattr(model, '_dataset_meta', None) or {}).get('classes')
    if isinstance(classes, list | tuple) and len(classes) == outputs:
        found['classes'] = list(map(str, classes))
    head = getattr(model, 'head', None)
    own = [getattr(type(head), name, None) for name in ('predict', '_get_predictions')]
    if own == [ClsHead.predict, ClsHead._get_predictions]:
        found['scores'] = dict(function='softmax')
    elif own == [MultiLabelClsHead.predict, MultiLabelClsHead._get_predictions]:
        found['scores'] = dict(function='sigmoid', thr=head.thr, topk=head.topk)
    return plain(found)


@dataclass(frozen=True)
class Exported:
    """An exported classifier.

    Attributes:
        metadata: metadata of the file, see docs/guides/export.md.
        run: function from images (B, C, H, W) to logits (B, classes), float32. It runs on the CPU,
            or on the device for which a ``.pt2`` or ``.pt`` file was written.
    """

    metadata: dict
    run: Callable[[Tensor], Tensor]

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Logits of images."""
        return self.run(images)


def read_export(path: str | Path) -> Exported:
    """Read a file that :func:`export_classifier` wrote.

    A ``.pt2`` or ``.pt`` file is a program: read only files that you trust.

    Raises:
        FileNotFoundError: if the file does not exist.
        ImportError: for an ONNX file if ONNX Runtime is not installed.
        ValueError: if the file has another format, is broken, or has no metadata.
    """
    path = Path(path)
    name = repr(str(path))
    _check_format(path, 'onnxruntime')
    if not path.is_file():
        raise FileNotFoundError(f'{name} does not exist')
    if path.suffix != '.onnx' and not zipfile.is_zipfile(path):  # PyTorch logs tracebacks of it
        raise ValueError(f'{name} is no exported file: {path.suffix} is an archive')
    try:
        run, text = FORMATS[path.suffix][1](path)
    except Exception as error:  # each reader raises its own
        reason = f'{type(error).__name__}: {str(error).strip().splitlines()[0]}'
        raise ValueError(f'{name} is no exported file, or a broken one ({reason})') from error
    if not text:
        raise ValueError(
            f'{name} does not say what its classes and images are: another program or an earlier '
            'version wrote it. Export the network again: tools/export.py CONFIG CHECKPOINT OUT'
        )
    return Exported(json.loads(text), run)


def check_target(path: Path, force: bool = False) -> None:
    """Check that an export to this path can be written and validated in this environment.

    Raises:
        ValueError: if the suffix is unknown, or this version of PyTorch cannot write the format.
        FileExistsError: if the file exists and `force` is not set.
        ImportError: if the format needs a package that is not installed.
    """
    _check_format(path, 'onnx', 'onnxruntime', *(['onnxscript'] if _has_dynamo() else []))
    name = repr(str(path))
    if path.exists() and not force:
        raise FileExistsError(
            f'path: {name} exists; name another file, or replace it: force=True, --force'
        )
    if path.suffix == '.pt2' and not hasattr(torch.export, 'Dim'):
        raise ValueError(
            f'path: {name}: PyTorch {torch.__version__} exports programs for one number of images '
            'alone; install 2.2 or later, or take .onnx or .pt'
        )


def _check_format(path, *packages):
    """Check the suffix of a path and, for ONNX, that packages are installed."""
    name = repr(str(path))
    if path.suffix not in FORMATS:
        raise ValueError(f'path: expected a name that ends in {", ".join(FORMATS)}, got {name}')
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if path.suffix == '.onnx' and missing:
        raise ImportError(f'{name}: ONNX needs {", ".join(missing)}: pip install "gcp_mm[export]"')


def rounding_error(network: nn.Module, batches: Iterable[Tensor]) -> float:
    """Largest difference of a network's logits from float64, relative to the largest logit.

    Args:
        network: module from images (B, C, H, W) to logits (B, classes), float32; not modified.
        batches: at least one batch of images, float32.
    """
    precise = copy.deepcopy(network).double()
    return _largest_difference(lambda images: precise(images.double()), network, batches)


def _validate(run, network, batches):
    """The largest difference of the logits of `run` from the network's; raise if it is too large.

    Raises:
        RuntimeError: see :func:`export_classifier`.
    """
    difference, limit = _largest_difference(run, network, batches), TOLERANCE
    if not difference <= limit:  # nor a NaN
        limit = max(limit, ROUNDING * rounding_error(network, batches))
    if not difference <= limit:
        raise RuntimeError(
            'the exported logits differ from those of the network by '
            f'{difference:.1e} of the largest, more than {limit:.0e}; nothing was written. Try '
            'another format'
        )
    return difference


def _largest_difference(run, network, batches):
    """In units of the network's largest value; infinity where shapes differ, NaN for a NaN."""
    differences = []
    for images in batches:
        value, expected = run(images).cpu(), network(images).cpu()
        if value.shape != expected.shape:
            return float('inf')
        differences.append((value - expected).abs().max() / expected.abs().max())
    return torch.stack(differences).max().item()


def _write_program(network, images, path, text):
    batch = ({0: torch.export.Dim('batch')},)
    program = torch.export.export(network, (images,), dynamic_shapes=batch)
    torch.export.save(program, str(path), extra_files={KEY: text})


def _read_program(path):
    extra = {KEY: ''}
    try:
        program = torch.export.load(str(path), extra_files=extra)
    except KeyError:  # of earlier versions of PyTorch, where there is no such file
        program = torch.export.load(str(path))
    return _on_device(program.module(), program.state_dict), extra[KEY]


def _write_onnx(network, images, path, text):
    import onnx

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
    torch.onnx.export(network, (images,), str(path), **names, **options)
    model = onnx.load(str(path))
    model.metadata_props.add(key=KEY, value=text)
    onnx.save(model, str(path))


def _read_onnx(path):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=['CPUExecutionProvider'])

    def run(images):
        return torch.from_numpy(session.run(['logits'], dict(images=images.cpu().numpy()))[0])

    return run, session.get_modelmeta().custom_metadata_map.get(KEY)


def _write_trace(network, images, path, text):
    # The trace is compared with the network afterwards, at other numbers of images.
    trace = torch.jit.trace(network, images, check_trace=False)
    torch.jit.save(trace, str(path), _extra_files={KEY: text})


def _read_trace(path):
    extra = {KEY: ''}
    where = None if torch.cuda.is_available() else 'cpu'  # it may be of a GPU
    trace = torch.jit.load(str(path), map_location=where, _extra_files=extra)
    return _on_device(trace, trace.state_dict()), extra[KEY]


def _on_device(run, state):
    """`run` for images of any device: those of a file are on the one it was written on."""
    device = next(iter(state.values())).device
    return lambda images: run(images.to(device))


FORMATS = {
    '.pt2': (_write_program, _read_program),
    '.onnx': (_write_onnx, _read_onnx),
    '.pt': (_write_trace, _read_trace),
}


def _has_dynamo():
    """Whether PyTorch has the ONNX exporter that builds on torch.export; from 2.5 on."""
    return 'dynamo' in inspect.signature(torch.onnx.export).parameters


def _random_images(network, size, batches):
    """Random images as the network takes them, the same in each call."""
    parameter = next(network.parameters())
    generator = torch.Generator().manual_seed(0)
    for batch in batches:
        images = torch.randn(batch, network.channels, *size, generator=generator)
        if network.with_normalization:
            images = (127.5 + 64 * images).clamp(0, 255)
        yield images.to(parameter)


def _check_norm(model, suffix):
    """Raise ValueError for a pooling by matrix decomposition, in a format that has none."""
    for name, module in model.named_modules():
        norm = module.norm if isinstance(module, GlobalCovariancePooling) else None
        if norm in ('eigh', 'power', 'log', 'cholesky') and suffix != '.pt2':
            reason = 'ONNX has no operator' if suffix == '.onnx' else 'a trace has no form'
            raise ValueError(
                f'model.{name}.norm={norm!r}: {reason} for its matrix decomposition; export to '
                f'.pt2, not {suffix}'
            )
