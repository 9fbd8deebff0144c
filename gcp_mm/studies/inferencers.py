"""Predictions for single images, by the inferencers of MMPretrain and MMDetection.

An image is (H, W) or (H, W, C), BGR if C is 3, as the `loader` of each class gives it: a
:class:`gcp_mm.data.LoadCheckedImage` with the settings of the test pipeline. A prediction is three
things: the image with it drawn, (H, W, 3) uint8 RGB; a record for JSON; and a figure of
:mod:`gcp_mm.studies.covariance_view`, or None.
"""

from collections.abc import Callable, Mapping

import cv2
import numpy as np
from matplotlib.figure import Figure
from mmengine.config import Config
from torch import Tensor, nn

from ..checks.dataloaders import image_loader
from ..data import LoadCheckedImage, Preprocessing
from ..hub import get_model, input_channels
from ..models import GlobalCovariancePooling
from .covariance_view import draw_covariance, view_covariance

SHORT_SIDE = 320  # pixels of a classifier's drawing, at least: its text is not legible on less


def _loader_of(cfg: Config) -> LoadCheckedImage:
    """What loads local images as the test pipeline of a config does, bad ones refused."""
    if not cfg.get('test_dataloader'):
        raise ValueError(f'{cfg.filename!r}: expected a test_dataloader, whose pipeline is used')
    return image_loader(cfg.test_dataloader.dataset.pipeline, backend_args=None)


def _drawable(image):
    """An image as (H, W, 3) uint8 RGB; of more channels than three the first, of one its gray."""
    image = image.reshape(*image.shape[:2], -1)
    if image.dtype != np.uint8:
        image = cv2.normalize(image, None, 0, 255, cv2.NORM_MINMAX, cv2.CV_8U)
    return image[..., [2, 1, 0] if image.shape[2] >= 3 else [0, 0, 0]]


def _check_channels(model, image):
    """Raise ValueError unless an image of the pipeline, (C, H, W), has the network's channels."""
    if len(image) != input_channels(model):
        raise ValueError(
            f'the network takes images of {input_channels(model)} channels, and the test pipeline '
            f'gives {len(image)}'
        )


def _record(sample, head, classes):
    """What a head says, as JSON: the class, or all classes above its threshold."""
    from mmpretrain.models import MultiLabelClsHead

    def named(labels):
        return [
            {'label': k, 'class': _name(k, classes), 'score': sample.pred_score[k].item()}
            for k in labels.tolist()
        ]

    top5 = named(sample.pred_score.topk(min(5, len(sample.pred_score))).indices)
    if isinstance(head, MultiLabelClsHead):
        return dict(labels=named(sample.pred_label), top5=top5)
    return dict(top5[0], top5=top5)


def _name(label, classes):
    return str(label) if classes is None else classes[label]


def _draw(visualizer, image, sample, classes):
    """An image with what was found, large enough for its text."""
    size = max(SHORT_SIDE, min(image.shape[:2]))
    return visualizer.visualize_cls(_drawable(image), sample, classes, draw_gt=False, resize=size)


class Classifier:
    """Classifies images by :class:`mmpretrain.ImageClassificationInferencer`.

    Args:
        model: classifier, see :func:`gcp_mm.get_model`.
        covariance: whether to draw what decided each class.

    Raises:
        TypeError: if `model` is no classifier, or one of several tasks.
        ValueError: if its config has no test pipeline; for `covariance` without global covariance
            pooling and a linear head.
    """

    def __init__(self, model: nn.Module, covariance: bool = False):
        from mmpretrain.apis import ImageClassificationInferencer
        from mmpretrain.models import BaseClassifier, MultiTaskHead
        from mmpretrain.visualization import UniversalVisualizer

        if not isinstance(model, BaseClassifier):
            raise TypeError(f'model: expected a classifier, got {type(model).__name__}')
        neck, head = getattr(model, 'neck', None), getattr(model, 'head', None)
        if isinstance(head, MultiTaskHead):
            raise TypeError(
                'model: expected a head of one task, got MultiTaskHead; for the logits of each '
                'task call the model of gcp_mm.get_model'
            )
        if covariance and not (
            isinstance(neck, GlobalCovariancePooling)
            and neck.class_tokens is None
            and isinstance(getattr(head, 'fc', None), nn.Linear)
        ):
            raise ValueError(
                'covariance: expected the neck GlobalCovariancePooling of maps and a linear head, '
                f'got {type(neck).__name__} and {type(head).__name__}'
            )
        self.model, self.covariance = model, covariance
        self.loader = _loader_of(model._config)
        self.inferencer = ImageClassificationInferencer(model)
        self.visualizer = UniversalVisualizer()

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, dict, Figure | None]:
        """Classify an image."""
        (data,) = self.inferencer.preprocess([self.loader.convert(image)])
        _check_channels(self.model, data['inputs'][0])
        head, classes = getattr(self.model, 'head', None), self.inferencer.classes
        (sample,) = self.inferencer.forward(data)
        record, figure = _record(sample, head, classes), None
        drawing = _draw(self.visualizer, image, sample, classes)
        if self.covariance:
            figure, record['covariance'] = self._explain(data, record['top5'][0]['score'])
        return drawing, record, figure

    def _explain(self, data, score):
        inputs = self.model.data_preprocessor(data)['inputs']
        (features,) = self.model.extract_feat(inputs, stage='backbone')
        maps, (vector,) = self.model.neck.reduction(features)[0], self.model.neck(features)
        view = view_covariance(vector, self.model.head.fc.weight, self.model.head.fc.bias)
        picture = _drawable(data['inputs'][0].permute(1, 2, 0).numpy())
        classes = self.inferencer.classes
        names = _name(view['label'], classes), _name(view['runner_up'], classes)
        figure = draw_covariance(view, picture, maps, names, score)
        return figure, {key: value for key, value in view.items() if key != 'root'}


class ExportedClassifier:
    """Classifies images by an exported file, with the results of :class:`Classifier`.

    Args:
        run: images (1, C, H, W) to logits (1, classes).
        metadata: of the file, see docs/guides/export.md.

    Raises:
        ValueError: if the metadata do not say how images are prepared, or what logits mean.
    """

    def __init__(self, run: Callable[[Tensor], Tensor], metadata: Mapping):
        from mmpretrain.models import ClsHead, MultiLabelClsHead
        from mmpretrain.visualization import UniversalVisualizer

        self.run, self.prepare, self.classes = run, Preprocessing(metadata), metadata.get('classes')
        self.loader = self.prepare.loader
        if 'scores' not in metadata:
            raise ValueError("it does not say 'scores'")
        options = dict(metadata['scores'])
        heads = dict(softmax=ClsHead, sigmoid=MultiLabelClsHead)
        self.head = heads[options.pop('function')](**options)
        self.visualizer = UniversalVisualizer()

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, dict, None]:
        """Classify an image."""
        (sample,) = self.head.predict((self.run(self.prepare(image)),))
        record = _record(sample, self.head, self.classes)
        return _draw(self.visualizer, image, sample, self.classes), record, None


class Detector:
    """Detects objects by :class:`mmdet.apis.DetInferencer`.

    Args:
        cfg, checkpoint, device, trust: as of :func:`gcp_mm.get_model`.
        score_thr: objects with this score or a lower one are left out.

    Raises:
        ValueError: if the config has no test pipeline; for an image, if the network gives no
            objects.
    """

    def __init__(
        self, cfg: Config, checkpoint: str, device: str, trust: bool = False, score_thr: float = 0.3
    ):
        from mmdet.apis import DetInferencer  # takes seconds: not for classifiers

        class Inferencer(DetInferencer):
            # Its own loading takes weights that fit in part, and executes what is in the file.
            def _init_model(self, cfg, weights, device):
                return get_model(cfg, weights, device, trust)

        self.loader = _loader_of(cfg)
        self.inferencer = Inferencer(cfg, checkpoint, device, show_progress=False)
        self.score_thr = score_thr

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, dict, None]:
        """Detect objects in an image."""
        ((_, data),) = self.inferencer.preprocess([image])
        _check_channels(self.inferencer.model, data['inputs'][0])
        (sample,) = self.inferencer.forward(data)
        if 'pred_instances' not in sample or 'pred_panoptic_seg' in sample:
            raise ValueError(f'expected a network that gives objects alone, got {sample.keys()}')
        objects = sample.pred_instances
        sample.pred_instances = objects[objects.scores > self.score_thr]
        (drawing,) = self.inferencer.visualize(
            [_drawable(image)], [sample], return_vis=True, pred_score_thr=self.score_thr
        )
        found = self.inferencer.pred2dict(sample)
        names = self.inferencer.model.dataset_meta['classes']
        found['classes'] = [names[label] for label in found['labels']]
        return drawing, dict(objects=found), None
