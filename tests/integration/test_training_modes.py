"""A training step of a GCP classifier, compiled, in other precisions and formats, with hooks."""

import contextlib

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from torch._dynamo.backends.registry import lookup_backend

from gcp_mm import get_model
from gcp_mm.ops import global_covariance_pooling
from gcp_mm.runtime import launch
from tests.helpers.runs import CLS, ROOT, config_of


def classifier(**backbone):
    """ResNet-18 of a quarter of the width, with 16 channels to pool, the same each time."""
    torch.manual_seed(0)
    return get_model(
        str(ROOT / CLS),
        backbone=dict(stem_channels=16, base_channels=16, **backbone),
        neck=dict(in_channels=128, reduction=(16,)),
        head=dict(in_channels=136),
    ).train()


def train_step(model, around=contextlib.nullcontext):
    """Train for one step of SGD at rate 1; returns the loss and the gradients it went along."""
    from mmpretrain.structures import DataSample

    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (8, 3, 32, 32), dtype=torch.uint8, generator=generator)
    data = dict(inputs=images, data_samples=[DataSample().set_gt_label(i) for i in range(8)])
    optim_wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=1))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with around():
        loss = model.train_step(data, optim_wrapper)['loss']
    gradients = {name: before[name] - p.detach() for name, p in model.named_parameters()}
    for name, gradient in gradients.items():
        assert gradient.any(), f'{name} did not move'
    return loss, gradients


def assert_same_step(step, expected, rtol, gradient_rtol):
    """Tolerances of the loss and, in norm, of each gradient."""
    (loss, gradients), (right_loss, right_gradients) = step, expected
    torch.testing.assert_close(loss, right_loss, rtol=rtol, atol=0)
    for name, right in right_gradients.items():
        error = (gradients[name] - right).norm() / right.norm()
        assert error <= gradient_rtol, f'{name}: {error}'


@pytest.fixture(scope='module')
def plain_step():
    return train_step(classifier())


@pytest.mark.slow
@pytest.mark.parametrize('backend', ['aot_eager', 'inductor'])
def test_compiled(plain_step, backend):
    compiled = []

    def record(graph, inputs):
        compiled.extend(str(node.target) for node in graph.graph.nodes)
        return lookup_backend(backend)(graph, inputs)

    torch._dynamo.reset()
    model = classifier()
    # As mmengine's Runner does for `compile` in a config.
    model.train_step = torch.compile(model.train_step, backend=record)
    assert_same_step(train_step(model), plain_step, 1e-5, 1e-4)
    # What was compiled has the pooling in it, down to the vector of the triangle.
    assert sum('index_select' in name for name in compiled) == 1


def test_channels_last(plain_step):
    formats = []
    model = classifier().to(memory_format=torch.channels_last)
    model.neck.reduction.register_forward_hook(
        lambda module, inputs, x: formats.append(
            x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
        )
    )
    step = train_step(model)
    assert formats == [True]
    assert_same_step(step, plain_step, 1e-5, 1e-4)


def test_mixed_precision(plain_step):
    seen = []
    model = classifier()
    model.neck.reduction.register_forward_hook(lambda module, inputs, x: seen.append(x.detach()))
    model.neck.register_forward_hook(lambda module, inputs, vectors: seen.append(vectors[0]))
    step = train_step(model, lambda: torch.autocast('cpu', dtype=torch.bfloat16))
    features, vectors = seen
    assert features.dtype == torch.bfloat16
    assert vectors.dtype == torch.float32
    # Half precision anywhere in the pooling would be off by 1e-3.
    expected = global_covariance_pooling(features.double()).float()
    torch.testing.assert_close(vectors, expected, rtol=1e-4, atol=1e-5)
    (loss, gradients), (right_loss, right_gradients) = step, plain_step
    torch.testing.assert_close(loss, right_loss, rtol=0.01, atol=0)
    for name, gradient in gradients.items():
        assert gradient.isfinite().all()
        right = right_gradients[name]
        assert torch.cosine_similarity(gradient.flatten(), right.flatten(), 0) > 0.5, name


def test_checkpointing_of_the_backbone_changes_nothing(plain_step):
    """Activations computed again in the backward, for memory."""
    calls = []
    model = classifier(with_cp=True)
    model.backbone.layer4[0].conv1.register_forward_hook(lambda *_: calls.append(1))
    step = train_step(model)
    assert len(calls) == 2
    assert_same_step(step, plain_step, 0, 0)


class WatchWeights(Hook):
    """Weights after each iteration of training, and those that are validated."""

    def __init__(self):
        self.trained, self.validated = [], []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.trained.append(weights(runner.model))

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.validated.append(weights(runner.model))


def weights(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def test_average_of_the_weights_is_validated_and_saved(short_cls, tmp_path, monkeypatch):
    monkeypatch.setenv('LOCAL_RANK', '0')
    cfg = config_of(ROOT / CLS, *short_cls, work_dir=str(tmp_path))
    cfg.experiment_name = tmp_path.name
    cfg.pop('param_scheduler')  # which has the second of two steps at rate 0
    cfg.custom_hooks.append(dict(type='EMAHook', momentum=0.25))
    watch = WatchWeights()

    def train(runner):
        runner.register_hook(watch)
        return weights(runner.train())

    left = launch(cfg, train)
    saved = torch.load(tmp_path / 'epoch_1.pth', weights_only=False)['state_dict']
    (first, second), averages = watch.trained, [*watch.validated, saved]
    assert len(averages) > 1
    for name in first:
        assert not torch.equal(first[name], second[name]), name
        torch.testing.assert_close(left[name], second[name], rtol=0, atol=0)
        for average in averages:
            torch.testing.assert_close(average[name], 0.75 * first[name] + 0.25 * second[name])
