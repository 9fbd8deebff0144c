"""Feature vectors of a folder of images, by a classifier of MMPretrain."""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from .feature_file import DTYPES, UnfinishedFeatures
from .image_folder import ImageFolder

# As :meth:`mmpretrain.models.ImageClassifier.extract_feat` calls them. Behind a GCP neck 'neck' is
# the D(D+1)/2 vector, and 'pre_logits', the input of the last linear layer, is the same vector.
STAGES = ('neck', 'backbone', 'pre_logits')


def feature_vectors(model: nn.Module, inputs: Tensor, stage: str = 'neck') -> Tensor:
    """The last output of a stage of a classifier, one vector for each image.

    Args:
        model: :class:`mmpretrain.models.ImageClassifier`.
        inputs: images, (B, C, H, W), normalised.
        stage: one of :data:`STAGES`. A map of several positions, such as the backbone's, is
            averaged over them: global average pooling.

    Returns:
        (B, L).

    Raises:
        TypeError: if the stage gives something else.
    """
    features = model.extract_feat(inputs, stage=stage)
    features = features[-1] if isinstance(features, tuple | list) else features
    if isinstance(features, Tensor) and features.dim() == 4:
        features = features.mean(dim=(2, 3))
    if not isinstance(features, Tensor) or features.dim() != 2:
        raise TypeError(
            f'stage={stage!r} of this {type(model).__name__} gives neither vectors nor maps; try '
            f'another of {STAGES}'
        )
    return features


@torch.no_grad()
def extract_features(
    model: nn.Module,
    folder: str | Path,
    out: str | Path,
    stage: str = 'neck',
    batch_size: int = 32,
    workers: int = 0,
    dtype: str = 'float32',
    force: bool = False,
) -> None:
    """Write the feature vectors of a folder of images, or go on where a run before stopped.

    Args:
        model: classifier of MMPretrain in evaluation mode, as :func:`gcp_mm.get_model` gives it,
            on the device to use.
        folder: of images, see :class:`ImageFolder`.
        out: file to make, ``.npz``; what it holds is described at
            :class:`gcp_mm.studies.feature_file.Features`, whose `vectors` it calls `features`.
        stage: one of :data:`STAGES`.
        batch_size: images in a pass, which is all of them that is ever in memory.
        workers: processes that read images; 0 reads them in this one.
        dtype: of the vectors in the file, 'float32' or 'float16'.
        force: replace a file that is there, and discard the beginning of other features.

    Raises:
        FileExistsError: if `out` is there and `force` is not set.
        FileNotFoundError, ValueError: for wrong arguments, another layout of the folder, an image
            that cannot be read, images of several sizes in a batch, the beginning of other
            features, or features that are not finite in `dtype`.
        TypeError: if `model` is no classifier of MMPretrain's ordinary kind.
    """
    from mmpretrain.models import ImageClassifier  # seconds, unless the model is one

    out = Path(out).expanduser()
    if out.suffix != '.npz':
        raise ValueError(f'out: expected a file name that ends in .npz, got {str(out)!r}')
    if stage not in STAGES or dtype not in DTYPES:
        raise ValueError(
            f'stage: one of {STAGES}, got {stage!r}; dtype: one of {DTYPES}, got {dtype!r}'
        )
    if out.exists() and not force:
        raise FileExistsError(f'{out} exists; name another file, or replace it with --force')
    if not isinstance(model, ImageClassifier):
        raise TypeError(
            f'model: expected a classifier (mmpretrain.ImageClassifier), got {type(model).__name__}'
        )
    if model.training:
        raise ValueError('model: expected one in evaluation mode; call model.eval() first')
    if stage == 'pre_logits' and not hasattr(model.head, 'pre_logits'):
        raise ValueError(f'stage={stage!r}: the head {type(model.head).__name__} has none')
    images = ImageFolder(folder, model._config)

    network = _digest_of_network(model)
    length = _vectors(model, [images[0]], stage).shape[1]
    made_with = dict(stage=stage, network=network, files=_digest(images.files, images.labels))
    rows = UnfinishedFeatures(out, len(images), length, dtype, made_with, force)
    rest = Subset(images, range(rows.done, len(images)))
    loader = DataLoader(rest, batch_size, num_workers=workers, collate_fn=list)
    progress = tqdm(total=len(images), initial=rows.done, desc=str(out), unit='image')
    with progress, rows.appending() as append:
        for batch in loader:
            vectors = _vectors(model, batch, stage).float().cpu().numpy()
            with np.errstate(over='ignore'):  # found by the check below
                block = vectors.astype(dtype)
            finite = np.isfinite(block).all(axis=1)
            if not finite.all():
                raise ValueError(
                    f'image {images.paths[progress.n + int(finite.argmin())]!r}: its features are '
                    f'not finite in {dtype}'
                )
            append(block)
            progress.update(len(batch))
    rows.finish(
        labels=images.labels,
        classes=np.array(images.classes),
        files=np.array(images.files),
        stage=np.array(stage),
        network=np.array(network),
    )


def _vectors(model, images, stage):
    sizes = {tuple(image.shape) for image in images}
    if len(sizes) > 1:
        raise ValueError(
            f'the test pipeline gives images of several sizes, {sorted(sizes)[:2]} among them; '
            'crop or resize them in it, or set batch_size=1 (--batch-size 1)'
        )
    data = model.data_preprocessor(dict(inputs=torch.stack(images)), training=False)
    return feature_vectors(model, data['inputs'], stage)


def _digest_of_network(model):
    """Of all that turns an image into a vector."""
    weights = (
        (name, tuple(w.shape), w.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        for name, w in sorted(model.state_dict().items())
    )
    cfg = model._config
    pipeline = cfg.test_dataloader.dataset.pipeline
    settings = json.dumps([cfg.model, pipeline], sort_keys=True, default=str)
    return _digest(settings, *(part for weight in weights for part in weight))


def _digest(*parts) -> str:
    """The first 16 hexadecimal digits of a SHA-256."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.tobytes() if isinstance(part, np.ndarray) else repr(part).encode())
    return digest.hexdigest()[:16]
