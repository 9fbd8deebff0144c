"""Exported classifiers, run by plain PyTorch or ONNX Runtime, against the networks themselves."""

import copy
import importlib.util
import inspect
import json
import re
import subprocess
import sys

import pytest
import torch
from torch import nn

from gcp_mm import export, get_model
from gcp_mm.export import (
    LogitNetwork,
    check_target,
    describe,
    export_classifier,
    read_export,
    rounding_error,
)
from tests.helpers.runs import CLS

HAS_ONNX = all(map(importlib.util.find_spec, ['onnx', 'onnxruntime', 'onnxscript']))
needs_onnx = pytest.mark.skipif(not HAS_ONNX, reason='needs gcp_mm[export]')
HAS_PROGRAM = 'dynamic_shapes' in inspect.signature(torch.export.export).parameters
needs_program = pytest.mark.skipif(not HAS_PROGRAM, reason='needs PyTorch 2.2')
FORMATS = {'.pt2': [needs_program], '.onnx': [needs_onnx], '.pt': []}
HEAD = dict(num_classes=10)
TWO_LAYERS = dict(_delete_=True, embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32)
# Small networks of the methods after the paper: one for each kind of neck and head.
LATER = {
    'resnet18-dropcov_8xb32-lradju_in1k': dict(
        neck=dict(reduction=(8,)), head=dict(HEAD, in_channels=36, topk=(1,))
    ),
    'resnet50-bcnn_1xb10-100e_cub': dict(
        backbone=dict(depth=18),
        neck=dict(in_channels=512, reduction=(8,)),
        head=dict(HEAD, in_channels=36),
    ),
    'sot-tiny_8xb128_in1k': dict(
        backbone=dict(img_size=64, arch=TWO_LAYERS),
        head=dict(HEAD, in_channels=16, num_heads=2, width=6),
    ),
    'swin-tiny-sot_16xb64_in1k': dict(
        backbone=dict(
            img_size=64,
            window_size=2,
            arch=dict(_delete_=True, embed_dims=8, depths=[1, 2, 1, 1], num_heads=[1, 2, 4, 8]),
        ),
        head=dict(HEAD, in_channels=64, num_heads=2, width=6),
    ),
    'vit-base-p16-mp_4xb64-30e_in1k': dict(
        backbone=dict(img_size=64, arch=TWO_LAYERS, frozen_stages=2),
        head=dict(HEAD, in_channels=16, hidden_channels=32),
    ),
}
NETWORKS = [
    *(f'resnet{depth}-gcp_8xb32-lrnorm_in1k' for depth in (18, 34, 50, 101)),
    *('mobilenet-v2-gcp_4xb24-lrnorm_in1k', 'shufflenet-v2-gcp_4xb256-lrnorm_in1k'),
    *LATER,
]


def slow(*values, marks=()):
    return pytest.param(*values, marks=[*marks, pytest.mark.slow])


def is_quick(name, suffix):
    """One network in each format, and the trace of the heads that are not on dense blocks."""
    return name == NETWORKS[0] or (suffix == '.pt' and name in LATER and 'sot' not in name)


FILES = [
    (pytest.param if is_quick(name, suffix) else slow)(name, suffix, marks=marks)
    for name in NETWORKS
    for suffix, marks in FORMATS.items()
]
SIZE = (64, 64)
DETECTOR = 'configs/digits/faster-rcnn_r18-gcp-m_fpn_4e_digits.py'


def load(path):
    """An exported file as a reader opens it who has neither this package nor MMPretrain.

    Returns:
        A function of images, and what the file says of itself.
    """
    import json

    import torch

    path, extra = str(path), dict(gcp_mm='')
    if path.endswith('.onnx'):
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
        extra = session.get_modelmeta().custom_metadata_map

        def run(images):
            outputs = [*map(torch.from_numpy, session.run(None, dict(images=images.numpy())))]
            return outputs if outputs[1:] else outputs[0]
    elif path.endswith('.pt2'):
        run = torch.export.load(path, extra_files=extra).module()
    else:
        run = torch.jit.load(path, _extra_files=extra)
    return run, json.loads(extra.get('gcp_mm', '{}'))


ALONE = f"""
import json, sys
import torch
{inspect.getsource(load)}
images = torch.load(sys.argv[1])
with torch.no_grad():
    torch.save([load(path)[0](images) for path in sys.argv[2:]], sys.argv[1])
print(json.dumps(list(sys.modules)))
"""


def random_network(name, size=SIZE, **kwargs):
    """Random weights, and batch normalization whose statistics keep images apart."""
    torch.manual_seed(0)
    model = get_model(name, **kwargs)
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.2)
        norm.momentum = 1
    with torch.no_grad():
        model.train().extract_feat(torch.randn(8, 3, *size))
        for norm in norms:
            norm.running_mean.add_(torch.randn_like(norm.running_mean) * 0.1)
            norm.running_var.mul_(torch.empty_like(norm.running_var).uniform_(0.8, 1.25))
    return model.eval()


@pytest.fixture(scope='module')
def network(request):
    settings = LATER.get(request.param) or dict(head=dict(HEAD, topk=(1,)))
    return random_network(request.param, **settings)


@pytest.fixture(scope='module')
def small():
    """The digits' network with 8 channels to pool, at 32x32: a map of 2x2 positions."""
    return random_network(CLS, (32, 32), neck=dict(reduction=(8,)), head=dict(in_channels=36))


@pytest.fixture
def copied(small):
    """A copy of the digits' network, to be changed."""
    return copy.deepcopy(small)


@torch.no_grad()
def limit(network, batches):
    """Each runtime sums in its own order, which a deep network of random weights amplifies."""
    return max(1e-4, 4 * rounding_error(network, batches))


@torch.no_grad()
def assert_same_logits(run, network, batches):
    """Up to float32's rounding, where images are further apart than that."""
    expected = [network(images) for images in batches]
    scale = max(logits.abs().max().item() for logits in expected)
    for images, right in zip(batches, expected, strict=True):
        torch.testing.assert_close(run(images), right, rtol=0, atol=limit(network, batches) * scale)
    logits = torch.cat(expected)
    assert (logits - logits.mean(0)).abs().max() > 0.02 * scale  # or any constant would pass


@pytest.mark.parametrize(('network', 'suffix'), FILES, indirect=['network'])
def test_file_gives_the_logits_of_the_network(network, suffix, tmp_path):
    path = tmp_path / f'network{suffix}'
    batches = [torch.randn(batch, 3, *SIZE) for batch in (1, 3)]
    assert 0 <= export_classifier(network, path, SIZE) < limit(network, batches)
    assert list(tmp_path.iterdir()) == [path]
    (run, metadata), exported = load(path), read_export(path)
    assert_same_logits(run, network, batches)
    assert_same_logits(exported, network, batches)
    assert exported.metadata == metadata == describe(network, SIZE, False, outputs=10)


@pytest.mark.slow
def test_files_run_without_this_package(small, tmp_path):
    """At more positions than channels, where the pooling computes otherwise than above."""
    suffixes = ['.pt', *(['.pt2'] if HAS_PROGRAM else []), *(['.onnx'] if HAS_ONNX else [])]
    paths = [tmp_path / f'network{suffix}' for suffix in suffixes]
    for path in paths:
        export_classifier(small, path, (64, 96))
    images = torch.randn(4, 3, 64, 96)
    torch.save(images, tmp_path / 'tensors')
    command = [sys.executable, '-c', ALONE, tmp_path / 'tensors', *paths]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    imported = {name.split('.')[0] for name in json.loads(done.stdout)}
    assert not imported & {'gcp_mm', 'mmcv', 'mmengine', 'mmpretrain'}
    for logits in torch.load(tmp_path / 'tensors'):
        assert_same_logits(lambda _, logits=logits: logits, small, [images])


@pytest.mark.parametrize('to_rgb', [False, True])
@pytest.mark.parametrize('channels', [1, 3, 5])
def test_normalization_is_that_of_the_data_preprocessor(channels, to_rgb, tmp_path):
    """A file with it takes RGB, where the network was trained on BGR too."""
    mean, std = [100.0 + 20 * i for i in range(channels)], [50.0 + 9 * i for i in range(channels)]
    model = get_model(
        'resnet18_1xb64-5e_digits',
        backbone=dict(in_channels=channels),
        data_preprocessor=dict(mean=mean, std=std, to_rgb=to_rgb),
    )
    path = tmp_path / 'network.pt'
    export_classifier(model, path, (32, 32), with_normalization=True)
    images = torch.randint(256, (3, channels, 32, 32)).float()
    given = images.flip(1) if channels == 3 else images
    with torch.no_grad():
        expected = model(**model.data_preprocessor(dict(inputs=images)), mode='tensor')
        torch.testing.assert_close(load(path)[0](given), expected, rtol=0, atol=1e-4)


def test_file_says_what_its_classes_and_images_are(copied, tmp_path):
    copied._dataset_meta = dict(classes=tuple('abcdefghé3'))
    path = tmp_path / 'network.pt'
    export_classifier(copied, path, (32, 48), with_normalization=True)
    said = read_export(path).metadata
    assert said['classes'] == list('abcdefghé3')
    assert (said['channels'], said['size'], said['channel_order']) == (3, [32, 48], 'RGB')
    assert said['normalization'] == dict(mean=[127.5] * 3, std=[127.5] * 3, inside=True)
    assert [step['type'] for step in said['pipeline']] == ['LoadImageFromFile']
    assert said['scores'] == dict(function='softmax')


def test_what_is_unknown_is_left_out(copied):
    """Names for other outputs, and all of a network without a config and with a head of its own."""
    copied._dataset_meta = dict(classes=('a', 'b'))
    assert 'classes' not in describe(copied, (32, 32), False, outputs=10)
    del copied._dataset_meta, copied._config

    class Other(type(copied.head)):
        def predict(self, feats, data_samples=None):
            raise NotImplementedError

    copied.head = Other(num_classes=10, in_channels=36)
    said = describe(copied, (32, 32), False, outputs=10)
    assert not said.keys() & {'classes', 'pipeline', 'scores'}


@pytest.mark.parametrize(
    ('name', 'error', 'words'),
    [
        ('silent.pt', ValueError, r'silent\.pt.*tools/export\.py'),
        ('broken.pt', ValueError, 'broken.pt. is no exported file'),
        ('broken.pt2', ValueError, 'broken.pt2. is no exported file'),
        pytest.param(
            *('broken.onnx', ValueError, 'broken.onnx. is no exported file'), marks=needs_onnx
        ),
        ('network.pth', ValueError, 'ends in .pt2, .onnx, .pt, got .*network.pth'),
        ('gone.pt', FileNotFoundError, r'gone\.pt'),
    ],
)
def test_files_that_are_no_exports_are_refused(tmp_path, name, error, words):
    if 'silent' in name:
        torch.jit.trace(nn.Linear(2, 2), torch.zeros(2, 2)).save(tmp_path / name)
    elif 'broken' in name:
        (tmp_path / name).write_bytes(b'<html>')
    with pytest.raises(error, match=words):
        read_export(tmp_path / name)


def test_missing_packages_of_onnx(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    for function in (read_export, check_target):
        with pytest.raises(ImportError, match=r'onnxruntime.*gcp_mm\[export\]'):
            function(tmp_path / 'network.onnx')


@needs_program
@pytest.mark.parametrize('norm', ['eigh', *(slow(norm) for norm in ('power', 'log', 'cholesky'))])
@pytest.mark.parametrize('size', [32, slow(64)])  # by the Gram matrix, by the covariance
def test_decomposition_is_exported_where_the_format_has_it(copied, norm, size, tmp_path):
    copied.neck.norm = norm
    path, images = tmp_path / 'network.pt2', torch.randn(3, 3, size, size)
    export_classifier(copied, path, (size, size))
    assert_same_logits(load(path)[0], copied, [images])
    for suffix, word in (('.onnx', 'ONNX'), ('.pt', 'trace')):
        with pytest.raises(ValueError, match=rf"model.neck.norm='{norm}': .*{word}.*not {suffix}"):
            export_classifier(copied, tmp_path / f'network{suffix}', (size, size))


@pytest.mark.parametrize('error', [2e-4, float('nan')])
def test_a_file_that_differs_is_not_left(small, copied, error, tmp_path, monkeypatch):
    """A writer that writes the logits of another network."""

    def write(_, images, path, text):
        export._write_trace(LogitNetwork(copied), images, path, text)

    with torch.no_grad():
        images = torch.randn(100, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        copied.head.fc.bias.add_(error * 2 * small(images).abs().max())
    monkeypatch.setitem(export.FORMATS, '.pt', (write, export.FORMATS['.pt'][1]))
    path = tmp_path / 'network.pt'
    with pytest.raises(RuntimeError, match='differ from those of the network by'):
        export_classifier(small, path, (32, 32))
    assert not list(tmp_path.iterdir())
    path.write_text('earlier')
    with pytest.raises(RuntimeError, match='differ from those of the network by'):
        export_classifier(small, path, (32, 32), force=True)
    assert [file.read_text() for file in tmp_path.iterdir()] == ['earlier']


def test_target_is_checked(tmp_path):
    with pytest.raises(ValueError, match=r'ends in .pt2, .onnx, .pt, got .*network.pth'):
        check_target(tmp_path / 'network.pth')
    (tmp_path / 'network.pt').touch()
    with pytest.raises(FileExistsError, match='--force'):
        check_target(tmp_path / 'network.pt')
    check_target(tmp_path / 'network.pt', force=True)


def test_networks_are_checked(copied, tmp_path):
    path = tmp_path / 'network.pt'
    with pytest.raises(TypeError, match='expected a classifier of MMPretrain, got Linear'):
        export_classifier(nn.Linear(2, 2), path, (32, 32))
    with pytest.raises(ValueError, match=r'size: .*got \(0, 32\)'):
        export_classifier(copied, path, (0, 32))
    copied.head = None
    with pytest.raises(ValueError, match=r'model: .*got tuple'):
        export_classifier(copied, path, (32, 32))
    del copied.data_preprocessor.mean
    with pytest.raises(ValueError, match='has no mean'):
        export_classifier(copied, path, (32, 32), with_normalization=True)
    assert not list(tmp_path.iterdir())


def test_tool(small, call_tool, tmp_path, capsys):
    options = ('--cfg-options', 'model.neck.reduction=[8]', 'model.head.in_channels=36')
    checkpoint, out = tmp_path / 'checkpoint.pth', tmp_path / 'network.pt'
    torch.save(dict(state_dict=small.state_dict()), checkpoint)
    call_tool('tools/export.py', CLS, checkpoint, out, '--size', 32, 48, *options)
    said = capsys.readouterr().out
    assert '(batch, 3, 32, 48), float32, normalized' in said
    assert re.search(r'says .*normalization, pipeline, scores', said)
    assert_same_logits(load(out)[0], small, [torch.randn(3, 3, 32, 48)])
    with pytest.raises(ValueError, match=r'is of a detector.*docs/guides/export.md'):
        call_tool('tools/export.py', DETECTOR, checkpoint, tmp_path / 'detector.pt')


class BackboneAndFPN(nn.Module):
    """As docs/guides/export.md has it."""

    def __init__(self, detector):
        super().__init__()
        self.detector = detector

    def forward(self, images):
        return self.detector.extract_feat(images)


@pytest.mark.slow
def test_backbone_and_fpn_of_a_detector(tmp_path):
    """What docs/guides/export.md says of them, at another number of images of another size."""
    pytest.importorskip('mmdet')
    detector = random_network(DETECTOR)
    with pytest.raises(TypeError, match=r'FasterRCNN.*docs/guides/export.md'):
        export_classifier(detector, tmp_path / 'detector.pt', (128, 192))
    network, images = BackboneAndFPN(detector).eval(), torch.randn(2, 3, 128, 192)
    runs = [torch.jit.trace(network, images)]
    if HAS_PROGRAM:
        batch, height, width = (torch.export.Dim(name) for name in ('batch', 'height', 'width'))
        shapes = ({0: batch, 2: 64 * height, 3: 64 * width},)
        runs.append(torch.export.export(network, (images,), dynamic_shapes=shapes).module())
    if HAS_ONNX and export._has_dynamo():
        names = dict(input_names=['images'], dynamic_shapes=shapes)
        torch.onnx.export(network, (images,), tmp_path / 'backbone.onnx', dynamo=True, **names)
        runs.append(load(tmp_path / 'backbone.onnx')[0])
    images = torch.randn(3, 3, 320, 128)
    with torch.no_grad():
        expected = network(images)
        for run in runs:
            for value, right in zip(run(images), expected, strict=True):
                torch.testing.assert_close(value, right, rtol=0, atol=1e-4 * right.abs().max())


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize('suffix', [pytest.param(s, marks=m) for s, m in FORMATS.items()])
def test_file_for_a_gpu(copied, suffix, tmp_path):
    network = copied.cuda()
    export_classifier(network, tmp_path / f'network{suffix}', (64, 96))
    run, _ = load(tmp_path / f'network{suffix}')
    on_device = run if suffix != '.onnx' else lambda images: run(images.cpu()).cuda()
    assert_same_logits(on_device, network, [torch.randn(3, 3, 64, 96).cuda()])
