"""Predictions for single images, by the inferencers of MMPretrain and MMDetection.

A prediction is three things: the image with it drawn, (H, W, 3) uint8 RGB; a record for JSON; and a
figure of :mod:`gcp_mm.studies.covariance_view`, or None.
"""

from dataclasses import asdict

import numpy as np
from matplotlib.figure import Figure
from mmengine.config import Config
from torch import nn

from ..hub import get_model
from ..models import GlobalCovariancePooling
from .covariance_view import draw_covariance, view_covariance

SHORT_SIDE = 320  # pixels of a classifier's drawing, at least: its text is not legible on less
# Keys of :meth:`mmdet.apis.DetInferencer.pred2dict`, and those of a single object
SINGULAR = dict(labels='label', scores='score', bboxes='bbox', masks='mask')


class Classifier:
    """Classifies images by :class:`mmpretrain.ImageClassificationInferencer`.

    Args:
        model: classifier, see :func:`gcp_mm.get_model`.
        covariance: whether to draw what decided each class.

    Raises:
        ValueError: for `covariance` without global covariance pooling and a linear head.
    """

    def __init__(self, model: nn.Module, covariance: bool = False):
        from mmpretrain.apis import ImageClassificationInferencer
        from mmpretrain.visualization import UniversalVisualizer

        neck, fc = getattr(model, 'neck', None), getattr(model.head, 'fc', None)
        if covariance and not (
            isinstance(neck, GlobalCovariancePooling) and isinstance(fc, nn.Linear)
        ):
            raise ValueError(
                'covariance: expected the neck GlobalCovariancePooling and a linear head, got '
                f'{type(neck).__name__} and {type(model.head).__name__}'
            )
        self.model, self.covariance = model, covariance
        self.inferencer = ImageClassificationInferencer(model)
        self.visualizer = UniversalVisualizer()

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, dict, Figure | None]:
        """Classify an image, (H, W, 3) uint8 BGR."""
        (data,) = self.inferencer.preprocess([image])
        (sample,) = self.inferencer.forward(data)
        drawing = self.visualizer.visualize_cls(
            image[..., ::-1],
            sample,
            self.inferencer.classes,
            draw_gt=False,
            resize=max(SHORT_SIDE, min(image.shape[:2])),
        )
        scores, labels = sample.pred_score.topk(min(5, len(sample.pred_score)))
        top5 = [
            {'label': label, 'class': self._name(label), 'score': score}
            for label, score in zip(labels.tolist(), scores.tolist(), strict=True)
        ]
        record, figure = dict(top5[0], top5=top5), None
        if self.covariance:
            figure, record['covariance'] = self._explain(data, top5[0]['score'])
        return drawing, record, figure

    def _explain(self, data, score):
        inputs = self.model.data_preprocessor(data)['inputs']
        (features,) = self.model.extract_feat(inputs, stage='backbone')
        maps, (vector,) = self.model.neck.reduction(features)[0], self.model.neck(features)
        view = view_covariance(vector, self.model.head.fc.weight, self.model.head.fc.bias)
        picture = data['inputs'][0].permute(1, 2, 0).flip(2).numpy()  # BGR, as pipelines load it
        names = self._name(view.label), self._name(view.runner_up)
        record = asdict(view) | dict(order=view.order.tolist())
        del record['root']
        return draw_covariance(view, picture, maps, names, score), record

    def _name(self, label):
        return str(label) if self.inferencer.classes is None else self.inferencer.classes[label]


class Detector:
    """Detects objects by :class:`mmdet.apis.DetInferencer`.

    Args:
        cfg, checkpoint, device, trust: as of :func:`gcp_mm.get_model`.
        score_thr: objects with this score or a lower one are left out.
    """

    def __init__(
        self, cfg: Config, checkpoint: str, device: str, trust: bool = False, score_thr: float = 0.3
    ):
        from mmdet.apis import DetInferencer  # takes seconds: not for classifiers

        class Inferencer(DetInferencer):
            # Its own loading takes weights that fit in part, and executes what is in the file.
            def _init_model(self, cfg, weights, device):
                return get_model(cfg, weights, device, trust)

        self.inferencer = Inferencer(cfg, checkpoint, device, show_progress=False)
        self.score_thr = score_thr

    def __call__(self, image: np.ndarray) -> tuple[np.ndarray, dict, None]:
        """Detect objects in an image, (H, W, 3) uint8 BGR."""
        ((_, data),) = self.inferencer.preprocess([image])
        (sample,) = self.inferencer.forward(data)
        objects = sample.pred_instances
        sample.pred_instances = objects[objects.scores > self.score_thr]
        (drawing,) = self.inferencer.visualize(
            [image[..., ::-1]], [sample], return_vis=True, pred_score_thr=self.score_thr
        )
        found = self.inferencer.pred2dict(sample)
        found = {SINGULAR[key]: values for key, values in found.items()}
        names = self.inferencer.model.dataset_meta['classes']
        found['class'] = [names[label] for label in found['label']]
        objects = [dict(zip(found, one, strict=True)) for one in zip(*found.values(), strict=True)]
        return drawing, dict(objects=objects), None
