"""What one training step of a network tells: its loss, and what it keeps in memory."""

import pytest
import torch
from gcp_mm.checks.sample import random_batch
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from torch import nn

from gcp_mm.checks.network import Trial
from gcp_mm.hub import resolve_config
from tests.helpers.runs import CLS


@pytest.fixture(scope='module')
def trial():
    cfg = resolve_config(CLS)
    trial = Trial()
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        (found,) = trial.build(cfg)
    number = sum(p.numel() for p in trial.model.parameters())
    assert found.text == f'ImageClassifier, {number / 1e6:.2f} M parameters'
    return cfg, trial


def test_activations_grow_with_the_batch(trial):
    """Twice the images take twice the memory, but for what does not depend on them."""
    cfg, trial = trial
    saved = []
    for images in (2, 4):
        trial.step(random_batch(cfg, images), 'random images')
        assert trial.images == images
        saved.append(trial.saved)
    assert saved[1] == pytest.approx(2 * saved[0], rel=0.02)


def test_loss_that_is_not_finite(trial):
    cfg, trial = trial
    trial.model.head.fc.weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r'^the loss of 2 images is not finite: loss nan'):
        trial.step(random_batch(cfg, 2), '2 images')


def test_a_module_that_asks_how_far_the_training_is():
    """YOLOX changes the size of its images by it."""

    class Preprocessor(nn.Module):
        def forward(self, data, training):
            assert MessageHub.get_current_instance().get_info('iter') + 1 == 1
            return data

    class Network(BaseModel):
        def forward(self, inputs, data_samples=None, mode='loss'):
            return dict(loss=inputs.mean())

    trial = Trial()
    trial.model = Network(data_preprocessor=Preprocessor())
    MessageHub.get_current_instance().runtime_info.pop('iter', None)
    (found,) = trial.step(dict(inputs=torch.ones(2, 3)), 'ones')
    assert found.text == 'of ones: loss 1'
