"""Feature vectors of a folder of images, by a classifier of MMPretrain, and their evaluation.

The vectors are a NumPy array on the disk, ``x.npy``, written batch by batch and read as a memory
map, so that they may be larger than the memory. Beside it ``x.json`` has the labels and names of
the images. Until it is complete the array is ``x.partial.npy``.

They are evaluated as they are, by a linear classifier and by retrieval. Both only need the cosines
between the vectors, so that the length of a vector hardly matters to the cost. Linear SVMs on
vectors of norm 1 are the usual evaluation of bilinear and covariance pooling on fine-grained
classes: Lin, RoyChowdhury and Maji, Bilinear CNN Models for Fine-grained Visual Recognition, ICCV
2015, with C = 1.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import default_collate
from mmengine.registry import DATASETS, DefaultScope
from numpy.lib.format import write_array_header_1_0
from sklearn.metrics import label_ranking_average_precision_score
from sklearn.model_selection import GridSearchCV, StratifiedShuffleSplit
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import SVC
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from .._io import read_json, write_atomically
from .._lock import locked
from ..checks.dataloaders import load_named
from ..data import IMAGE_SUFFIXES

# As :meth:`mmpretrain.models.ImageClassifier.extract_feat` calls them. Behind a GCP neck 'neck' is
# the D(D+1)/2 vector, and 'pre_logits', the input of the last linear layer, is the same vector.
STAGES = ('neck', 'backbone', 'pre_logits')
TOPK = (1, 2, 4, 8)


@dataclass(frozen=True)
class Features:
    """Feature vectors of a folder of images, each of one class.

    Args:
        vectors: (N, L) float32, on the disk.
        labels: N indices into `classes`.
        classes: names of the K class folders, in alphabetical order.
        files: paths of the N images below their folder.
        stage: of the network, one of :data:`STAGES`.
        network: hash of the weights, the model's config and the test pipeline.
    """

    vectors: np.ndarray
    labels: list[int]
    classes: list[str]
    files: list[str]
    stage: str
    network: str


def read_features(path: str | Path) -> Features:
    """Open the features that :func:`extract_features` wrote.

    Args:
        path: of the ``.npy`` file.

    Raises:
        FileNotFoundError: if it or the ``.json`` file beside it does not exist.
        ValueError: if they are not of :func:`extract_features`, or not of one extraction.
    """
    path = Path(path)
    if path.suffix != '.npy':
        raise ValueError(f'{path}: expected a .npy file of tools/extract_features.py')
    try:
        vectors = np.load(path, mmap_mode='r', allow_pickle=False)  # no larger than the file
    except ValueError as error:
        raise ValueError(f'{path}: {error}; extract the features again') from error
    fields = dict(labels=list, classes=list, files=list, stage=str, network=str)
    description = read_json(path.with_suffix('.json'), **fields)
    if vectors.ndim != 2 or vectors.dtype != np.float32:
        raise ValueError(
            f'{path}: expected (N, L) of float32, got {vectors.dtype} of shape {vectors.shape}; '
            'extract the features again'
        )
    if not len(vectors) == len(description['labels']) == len(description['files']):
        raise ValueError(
            f'{path}: {len(vectors)} vectors beside {len(description["labels"])} labels; extract '
            'the features again'
        )
    labels = range(len(description['classes']))
    if not all(type(label) is int and label in labels for label in description['labels']):
        raise ValueError(f'{path.with_suffix(".json")}: expected labels in {labels}')
    return Features(vectors, **{key: description[key] for key in fields})


def image_folder(folder: str | Path, cfg: Config) -> Dataset:
    """The images ``<folder>/<class>/.../<image>``, sent through the test pipeline of a config.

    Returns:
        An :class:`mmpretrain.datasets.CustomDataset`, that raises for damaged images.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if the config has no test pipeline, or there is no class folder with an image,
            or one without.
    """
    if not cfg.get('test_dataloader'):
        raise ValueError(f'{cfg.filename}: expected a test_dataloader, whose pipeline is used')
    # With checks: OpenCV makes an image of half a JPEG.
    pipeline = load_named(cfg.test_dataloader.dataset.pipeline)
    dataset = dict(type='CustomDataset', data_root=str(folder), pipeline=pipeline, test_mode=True)
    dataset['extensions'] = IMAGE_SUFFIXES
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        try:
            images = DATASETS.build(dataset)
        except RuntimeError as error:  # CustomDataset's, of a folder without images
            raise ValueError(f'folder: expected {folder}/<class>/<image>: {error}') from error
    used = set(images.get_gt_labels())
    empty = [name for label, name in enumerate(images.CLASSES) if label not in used]
    if empty:
        raise ValueError(f'{folder}: no image in the class folders {empty}; remove them')
    return images


@torch.no_grad()
def extract_features(
    model: nn.Module,
    folder: str | Path,
    out: str | Path,
    stage: str = 'neck',
    batch_size: int = 32,
    workers: int = 0,
    force: bool = False,
) -> None:
    """Write the feature vectors of a folder of images, in float32.

    Args:
        model: classifier of MMPretrain, as :func:`gcp_mm.get_model` gives it, on the device to
            use; is put in evaluation mode.
        folder: of images, see :func:`image_folder`.
        out: ``.npy`` file to write, for :func:`read_features`.
        stage: one of :data:`STAGES`.
        batch_size: images in a forward pass; of one size.
        workers: processes that read images; 0 reads them in this one.
        force: overwrite the file.

    Raises:
        BlockingIOError: if another process writes `out`.
        FileExistsError: if `out` exists and `force` is not set.
        FileNotFoundError, ValueError: for wrong arguments, a folder without images, a
            damaged image, images of several sizes in a batch, or features that are not finite or
            of several lengths.
        OSError: if the disk is full.
        TypeError: if `model` is not an :class:`mmpretrain.models.ImageClassifier`.
    """
    from mmpretrain.models import ImageClassifier  # seconds, unless the model is one

    out, folder = Path(out).expanduser(), Path(folder).expanduser()
    if out.suffix != '.npy':
        raise ValueError(f'out: expected a file name that ends in .npy, got {str(out)!r}')
    if stage not in STAGES:
        raise ValueError(f'stage: expected one of {STAGES}, got {stage!r}')
    if not isinstance(model, ImageClassifier):
        raise TypeError(f'model: expected an ImageClassifier, got a {type(model).__name__}')
    with locked(out):
        for path in (out, out.with_suffix('.json')):
            if path.exists() and not force:
                raise FileExistsError(f'{path} exists; name another file, or use --force')
        images = image_folder(folder, model._config)
        _extract(model.eval(), images, out, stage, batch_size, workers)


def _extract(model, images, out, stage, batch_size, workers):
    infos = [images.get_data_info(i) for i in range(len(images))]
    description = dict(
        labels=[int(info['gt_label']) for info in infos],
        classes=list(images.CLASSES),
        files=[Path(info['img_path']).relative_to(images.img_prefix).as_posix() for info in infos],
        stage=stage,
        network=_network_hash(model),
    )
    loader = DataLoader(images, batch_size, num_workers=workers, collate_fn=_collate)
    part, done = out.with_suffix('.partial.npy'), 0
    try:
        with part.open('wb') as file:
            for batch in tqdm(loader, desc=str(out), unit='batch'):
                inputs = model.data_preprocessor(batch, training=False)['inputs']
                block = _vectors(model.extract_feat(inputs, stage=stage)).float().cpu().numpy()
                finite = np.isfinite(block).all(axis=1)
                if not finite.all():
                    image = description['files'][done + int(finite.argmin())]
                    raise ValueError(f'image {image!r}: its features are not finite in float32')
                if not done:
                    shape = len(images), block.shape[1]
                    header = dict(descr=block.dtype.str, fortran_order=False, shape=shape)
                    write_array_header_1_0(file, header)
                if block.shape[1] != shape[1]:
                    raise ValueError(
                        f'stage: it gives vectors of {shape[1]} and {block.shape[1]} numbers; '
                        f'try another of {STAGES}, or a test pipeline that gives images of one size'
                    )
                file.write(block.tobytes())
                done += len(block)
            file.flush()
            os.fsync(file.fileno())
        out.unlink(missing_ok=True)  # old vectors never lie beside new labels
        write_atomically(out.with_suffix('.json'), json.dumps(description).encode())
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)


def _collate(samples):
    shapes = sorted({tuple(sample['inputs'].shape) for sample in samples})
    if len(shapes) > 1:
        raise ValueError(
            f'batch_size: the test pipeline gives images of {shapes[0]} and {shapes[-1]}, which do '
            'not go into one batch; set batch_size=1 (--batch-size 1)'
        )
    return default_collate(samples)


def _vectors(features):
    """The last output of a stage, (B, L); of a feature map the mean over its positions."""
    features = features[-1] if isinstance(features, tuple | list) else features
    if features.dim() == 4:
        features = features.mean(dim=(2, 3))
    if features.dim() != 2:
        raise ValueError(
            f'stage: it gives {tuple(features.shape)}, neither vectors nor maps; try another of '
            f'{STAGES}'
        )
    return features


def _network_hash(model):
    """Hash of all that turns an image into a vector."""
    weights = {
        name: hashlib.sha256(weight.cpu().contiguous().numpy()).hexdigest()
        for name, weight in model.state_dict().items()
    }
    content = [model._config.model, model._config.test_dataloader.dataset.pipeline, weights]
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_comparable(train: Features, test: Features) -> None:
    """Raise ValueError unless the vectors are of one network, stage and set of classes."""
    for name in ('stage', 'network', 'classes'):
        if getattr(train, name) != getattr(test, name):
            raise ValueError(
                f'train and test differ in their {name}: {getattr(train, name)!r:.40} and '
                f'{getattr(test, name)!r:.40}; extract both with one config, checkpoint and stage, '
                'from folders of the same classes'
            )


def linear_svm(
    train_cosines: np.ndarray,
    train_labels: Sequence[int],
    test_cosines: np.ndarray,
    test_labels: Sequence[int],
    candidates: Sequence[float] = (0.1, 1, 10, 100),
) -> tuple[float, float]:
    """Top-1 accuracy of one-vs-rest linear SVMs on vectors of norm 1.

    Args:
        train_cosines: (N, N), between the training vectors.
        train_labels: N labels.
        test_cosines: (M, N), between the test and the training vectors.
        test_labels: M labels.
        candidates: for C, the weight of the hinge losses. Of several, the one that is best on a
            fifth of the training vectors after training on the others; the smaller of equals.

    Returns:
        Accuracy in percent, and C.

    Raises:
        ValueError: of scikit-learn, if the vectors are too few to choose C.
    """
    svm = OneVsRestClassifier(SVC(kernel='precomputed', C=min(candidates)))
    if len(candidates) > 1:
        fifth = StratifiedShuffleSplit(n_splits=1, test_size=0.2, random_state=0)
        svm = GridSearchCV(svm, dict(estimator__C=sorted(candidates)), cv=fifth)
    svm.fit(train_cosines.astype(np.float64), train_labels)  # libsvm would convert it each time
    best = svm.best_params_['estimator__C'] if len(candidates) > 1 else candidates[0]
    return 100 * svm.score(test_cosines.astype(np.float64), test_labels), best


def retrieval(
    similarities: np.ndarray,
    query_labels: Sequence[int],
    gallery_labels: Sequence[int],
    same: bool = False,
) -> dict[str, float]:
    """Recall at k and mean average precision of the gallery, ranked for each query.

    Of equal similarities those of other labels come first.

    Args:
        similarities: (Q, G) cosines, of each query to each vector of the gallery.
        query_labels: Q labels. Relevant to a query is what has its label.
        gallery_labels: G labels.
        same: whether the gallery is the queries, and each is ranked without itself.

    Returns:
        'recall@<k>', the share of queries with a relevant vector among the first k, for each k of
        :data:`TOPK`, and 'mAP', over whole rankings; in percent.

    Raises:
        ValueError: if the gallery holds nothing relevant to some query.
    """
    relevant = np.equal.outer(query_labels, gallery_labels)
    if same:
        np.fill_diagonal(relevant, False)
        similarities = np.where(np.eye(len(relevant), dtype=bool), -2, similarities)  # last
    lonely = ~relevant.any(axis=1)
    if lonely.any():
        query = int(lonely.argmax())
        raise ValueError(
            f'nothing in the gallery is relevant to query {query}, of label {query_labels[query]}; '
            'leave out classes of a single image'
        )
    best = np.where(relevant, similarities, -2).max(axis=1, keepdims=True)
    ahead = (~relevant & (similarities >= best)).sum(axis=1)
    found = {f'recall@{k}': 100 * float((ahead < k).mean()) for k in TOPK}
    return found | dict(
        mAP=100 * float(label_ranking_average_precision_score(relevant, similarities))
    )
