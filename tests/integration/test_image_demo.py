"""Pictures and videos through the demo, against the frameworks on their own."""

import json
import runpy
from pathlib import Path

import cv2
import mmcv
import numpy as np
import pytest
import torch
from mmengine.dataset import Compose, default_collate
from mmengine.registry import TRANSFORMS, DefaultScope
from mmpretrain.apis import ImageClassificationInferencer
from PIL import Image
from pycocotools import mask as coco_mask

from gcp_mm import get_model
from gcp_mm.data import LoadCheckedImage
from gcp_mm.export import export_classifier
from gcp_mm.studies.inferencers import Classifier
from tests.helpers.runs import CLS, ROOT

TOOL = 'tools/image_demo.py'
GAP = 'configs/digits/resnet18_1xb64-5e_digits.py'
MASK = 'configs/digits/mask-rcnn_r18-gcp-m_fpn_4e_digits.py'
STOCK = 'mmpretrain::mobilenet_v2/mobilenet-v2_8xb32_in1k.py'


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """Checkpoint of a config, with random weights."""
    folder = tmp_path_factory.mktemp('checkpoints')

    def make(config):
        path = folder / f'{config.replace("/", "_")}.pth'
        if not path.exists():
            torch.manual_seed(0)
            model = get_model(config)
            if config != MASK and hasattr(model.head, 'fc'):
                with torch.no_grad():
                    model.head.fc.weight *= 1000  # untrained, it hardly tells pictures apart
            state = model.state_dict()
            meta = {} if config == STOCK else dict(dataset_meta=dict(classes=tuple('0123456789')))
            torch.save(dict(meta=meta, state_dict=state), path)
        return path

    return make


@pytest.fixture
def demo(call_tool, checkpoint, tmp_path):
    """Run the tool; returns what predictions.json says."""

    def run(config, *arguments, out='out'):
        call_tool(TOOL, config, checkpoint(config), *arguments, '--out-dir', tmp_path / out)
        return json.loads((tmp_path / out / 'predictions.json').read_text())['predictions']

    return run


@pytest.fixture
def pictures(digits, tmp_path):
    """A folder with pictures of the same name in its sub-folders, and other files."""
    folder = tmp_path / 'in'
    names = ('a.png', 'large.png', 'sub/a.pgm', 'sub/a.png', 'sub/deep/b.JPG')
    for number, name in enumerate(names):
        image = Image.open(sorted((digits / f'val/{number}').iterdir())[0])
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (image.resize((40, 48)) if name == 'large.png' else image).save(folder / name)
    (folder / '.cache').mkdir()
    (folder / '.cache/preview.png').write_bytes(b'no picture')
    (folder / 'notes.txt').write_text('no picture')
    return folder


@pytest.fixture
def video(digits, tmp_path):
    """Three frames, 10 in a second, of a digit that moves."""
    path = tmp_path / 'clip.AVI'
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 10, (32, 32))
    if not writer.isOpened():
        pytest.skip('OpenCV has no encoder for the test video')
    image = cv2.imread(str(sorted((digits / 'val/3').iterdir())[0]))
    for shift in (0, 6, 12):
        writer.write(np.roll(image, shift, axis=1))
    writer.release()
    return path


def expect_classes(records, images, config, weights):
    """Compare records with MMPretrain's own inferencer."""
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        results = ImageClassificationInferencer(get_model(config, weights))(images)
    assert len(records) == len(results)
    for record, result in zip(records, results, strict=True):
        assert record['label'] == result['pred_label']
        assert record['class'] == result['pred_class']
        assert record['score'] == pytest.approx(result['pred_score'], rel=1e-4)
        best = np.argsort(-result['pred_scores'])[:5]
        assert [one['label'] for one in record['top5']] == best.tolist()


@pytest.mark.parametrize('config', [CLS, STOCK])
def test_folder_is_classified_and_mirrored(demo, checkpoint, pictures, tmp_path, config):
    records = demo(config, pictures)
    names = ['a.png', 'large.png', 'sub/a.pgm', 'sub/a.png', 'sub/deep/b.JPG']
    assert [record['input'] for record in records] == [str(pictures / name) for name in names]
    expect_classes(records, [record['input'] for record in records], config, checkpoint(config))
    if config == CLS:  # the other is random, and as unsure of all pictures
        assert np.diff(sorted(record['score'] for record in records)).min() > 1e-3
    assert [record['drawing'] for record in records] == [f'vis/{name}.png' for name in names]
    written = sorted(path for path in (tmp_path / 'out').rglob('*') if path.is_file())
    drawings = [tmp_path / 'out' / record['drawing'] for record in records]
    assert written == sorted([tmp_path / 'out/predictions.json', *drawings])
    for number in (0, 3):
        plain = mmcv.imresize(cv2.imread(records[number]['input']), (320, 320))
        changed = (cv2.imread(str(drawings[number])) != plain).any(2)
        assert changed[:30, :150].mean() > 0.3  # the label
        assert not changed[60:].any()


def test_covariance_explains_the_prediction(demo, checkpoint, pictures, tmp_path):
    records = demo(CLS, pictures / 'sub/a.pgm', pictures / 'large.png', '--covariance')
    model = get_model(CLS, checkpoint(CLS))
    for record in records:
        image = torch.tensor(cv2.imread(record['input'])).permute(2, 0, 1)[None]
        image = model.data_preprocessor(dict(inputs=image))['inputs']
        with torch.no_grad():
            (vector,) = model.extract_feat(image)
            logits = model.head((vector,))[0]
        covariance = record['covariance']
        first, second = logits.topk(2).indices.tolist()
        assert (covariance['label'], covariance['runner_up']) == (first, second)
        assert record['label'] == first
        assert covariance['logit'] == pytest.approx(logits[first].item(), rel=1e-4)
        adds = model.head.fc.weight[first] * vector[0]
        best = [pair['contribution'] for pair in covariance['pairs']]
        np.testing.assert_allclose(best, adds.detach().topk(10).values, rtol=1e-4)
        assert Image.open(tmp_path / 'out' / covariance['picture']).size == (1300, 760)
    drawn = [record['covariance']['picture'] for record in records]
    assert drawn == ['covariance/sub/a.pgm.png', 'covariance/large.png.png']


def test_objects_are_drawn_and_recorded(demo, checkpoint, scenes, tmp_path):
    pytest.importorskip('mmdet')
    from mmdet.apis import inference_detector

    files = sorted((scenes / 'val').iterdir())
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = get_model(MASK, checkpoint(MASK))
        expected = [inference_detector(model, str(file)).pred_instances for file in files]
    # Untrained, it is as sure of a hundred objects: the threshold leaves the first five.
    threshold = expected[0].scores[4:6].mean().item()
    records = demo(MASK, scenes / 'val', '--score-thr', threshold)
    assert [record['input'] for record in records] == [str(file) for file in files]
    assert len(records[0]['objects']) == 5
    for record, instances in zip(records, expected, strict=True):
        objects = record['objects']
        instances = instances[instances.scores > threshold]
        labels = instances.labels.tolist()
        assert [one['label'] for one in objects] == labels
        assert [one['class'] for one in objects] == [str(label) for label in labels]
        np.testing.assert_allclose([one['score'] for one in objects], instances.scores, rtol=1e-4)
        np.testing.assert_allclose([one['bbox'] for one in objects], instances.bboxes, atol=1e-2)
        masks = [coco_mask.decode(one['mask']).astype(bool) for one in objects]
        for mask, other in zip(masks, instances.masks.numpy(), strict=True):
            assert (mask != other).mean() < 0.01
    nothing = demo(MASK, scenes / 'val', '--score-thr', 1, out='nothing')
    assert [record['objects'] for record in nothing] == [[], []]
    drawn, plain = (
        cv2.imread(str(tmp_path / out / records[0]['drawing'])) for out in ('out', 'nothing')
    )
    np.testing.assert_array_equal(plain, cv2.imread(str(files[0])))
    for one in records[0]['objects']:
        left, top, right, bottom = np.array(one['bbox']).round().astype(int)
        assert (drawn != plain).any(2)[top : bottom + 1, left : right + 1].mean() > 0.5


@pytest.mark.slow
def test_video_is_drawn_frame_for_frame(demo, checkpoint, video, tmp_path):
    records = demo(CLS, video, '--covariance')
    with mmcv.VideoReader(str(video)) as frames:
        expect_classes(records, list(frames), CLS, checkpoint(CLS))
    assert [record['frame'] for record in records] == [0, 1, 2]
    assert {record['drawing'] for record in records} == {'vis/clip.AVI.mp4'}
    with mmcv.VideoReader(str(tmp_path / 'out/vis/clip.AVI.mp4')) as drawn:
        assert (len(drawn), drawn.fps, drawn.resolution) == (3, 10, (320, 320))
        images = [image.astype(float) for image in drawn]
    with mmcv.VideoReader(str(video)) as plain:
        for image, frame in zip(images, plain, strict=True):
            difference = abs(image - mmcv.imresize(frame, (320, 320))).mean(2)
            assert difference[60:].mean() < 10 < difference[:20, :100].mean()
    pictures = sorted((tmp_path / 'out/covariance/clip.AVI').iterdir())
    assert [path.name for path in pictures] == [f'{number:06d}.png' for number in range(3)]


def test_bad_files_are_reported_and_the_others_drawn(demo, pictures, video, tmp_path, monkeypatch):
    whole = (pictures / 'sub/deep/b.JPG').read_bytes()
    contents = {
        'empty.png': b'',
        'half.jpg': whole[: len(whole) // 2],
        'page.jpg': b'<html>not found</html>',
        'none.mp4': b'no video' * 100,
    }
    for name, content in contents.items():
        (pictures / 'sub' / name).write_bytes(content)
    monkeypatch.setattr(cv2, 'VideoWriter_fourcc', lambda *_: -7)  # no such encoder
    with pytest.raises(SystemExit, match=r'6 of 11 files failed: .*notes\.txt'):
        demo(CLS, pictures, pictures / 'notes.txt', video)
    found = json.loads((tmp_path / 'out/predictions.json').read_text())
    assert len(found['predictions']) == 5
    assert {path.split('/')[-1] for path in found['failed']} == {*contents, 'notes.txt', 'clip.AVI'}
    assert 'no encoder' in found['failed'][str(video)]


@pytest.mark.parametrize(
    ('config', 'arguments', 'error', 'message'),
    [
        (CLS, ['{}/nowhere.png'], FileNotFoundError, "nowhere.png' does not exist"),
        (CLS, ['{}/.cache'], ValueError, 'no picture or video is in .*cache'),
        (GAP, ['{}', '--covariance'], ValueError, 'GlobalCovariancePooling .*GlobalAveragePooling'),
        (MASK, ['{}', '--covariance'], ValueError, '--covariance is for classifiers'),
    ],
)
def test_wrong_arguments_are_refused(demo, pictures, tmp_path, config, arguments, error, message):
    (pictures / '.cache/preview.png').unlink()
    with pytest.raises(error, match=message):
        demo(config, *(argument.format(pictures) for argument in arguments))
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(('config', 'other'), [(CLS, GAP), (MASK, CLS)])
def test_checkpoint_of_another_network_is_refused(
    call_tool, checkpoint, pictures, tmp_path, config, other
):
    with pytest.raises(ValueError, match='neck'):
        call_tool(TOOL, config, checkpoint(other), pictures, '--out-dir', tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_results_are_not_written_over_unasked(demo, pictures):
    first = demo(CLS, pictures / 'a.png')
    with pytest.raises(ValueError, match=r"out' is not empty; .* --force"):
        demo(CLS, pictures / 'a.png')
    assert demo(CLS, pictures / 'a.png', '--force') == first


@pytest.mark.parametrize(
    'name',
    [
        *('inside.pt', 'outside.pt'),
        pytest.param('inside.pt2', marks=pytest.mark.slow),
        pytest.param('inside.onnx', marks=pytest.mark.slow),
    ],
)
def test_exported_file_gives_what_the_network_gives(
    demo, other, call_tool, checkpoint, pictures, tmp_path, name
):
    """Pictures of several sizes, resized and cropped; classes that the network was trained with."""
    if name.endswith('onnx'):
        pytest.importorskip('onnxscript')
    steps = [
        dict(type='ResizeEdge', scale=36, backend='pillow'),
        dict(type='CenterCrop', crop_size=32),
    ]
    pipeline = [dict(type='LoadImageFromFile'), *steps, dict(type='PackInputs')]
    loader = dict(dataset=dict(pipeline=pipeline))
    norm = dict(mean=[100, 120, 140], std=[60, 50, 40], to_rgb=False)
    config = other(test_dataloader=loader, data_preprocessor=norm)
    expected = demo(config, pictures)
    path = tmp_path / name
    export_classifier(
        get_model(config, checkpoint(config)), path, (32, 32), with_normalization='inside' in name
    )
    call_tool(TOOL, path, pictures / 'a.png', pictures, '--out-dir', tmp_path / 'exported')
    found = json.loads((tmp_path / 'exported/predictions.json').read_text())
    assert found['exported'] == str(path)
    for one, right in zip(found['predictions'], expected, strict=True):
        assert one['score'] == pytest.approx(right['score'], abs=1e-5)
        assert {**one, 'score': 0, 'top5': 0} == {**right, 'score': 0, 'top5': 0}
        for each, that in zip(one['top5'], right['top5'], strict=True):
            assert each['class'] == that['class']
            assert each['score'] == pytest.approx(that['score'], abs=1e-5)
        drawn, plain = (
            cv2.imread(str(tmp_path / out / one['drawing'])) for out in ('exported', 'out')
        )
        np.testing.assert_array_equal(drawn, plain)


@pytest.fixture
def exported(tmp_path):
    """A network of random weights in a file."""
    path = tmp_path / 'network.pt'
    export_classifier(get_model(GAP), path, (32, 32))
    return path


def test_exported_file_of_several_labels(demo, other, call_tool, checkpoint, pictures, tmp_path):
    config = other(model=dict(head=dict(MANY, thr=0.5)))
    expected = demo(config, pictures / 'a.png')
    export_classifier(get_model(config, checkpoint(config)), tmp_path / 'network.pt', (32, 32))
    call_tool(TOOL, tmp_path / 'network.pt', pictures / 'a.png', '--out-dir', tmp_path / 'exported')
    found = json.loads((tmp_path / 'exported/predictions.json').read_text())['predictions']
    for key in ('labels', 'top5'):
        assert [one['label'] for one in found[0][key]] == [one['label'] for one in expected[0][key]]


def test_exported_file_takes_pictures_of_its_size(exported, call_tool, pictures, tmp_path):
    with pytest.raises(SystemExit, match='1 of 2 files failed'):
        call_tool(
            *(TOOL, exported, pictures / 'a.png', pictures / 'large.png'),
            *('--out-dir', tmp_path / 'out'),
        )
    found = json.loads((tmp_path / 'out/predictions.json').read_text())
    assert 'gives 3x48x40' in found['failed'][str(pictures / 'large.png')]
    assert found['predictions'][0]['class'].isdecimal()


@pytest.mark.parametrize(
    'option', [['--covariance'], ['--device', 'cpu'], ['--cfg-options', 'model.neck.reduction=[8]']]
)
def test_exported_file_refuses_what_it_cannot_do(call_tool, pictures, tmp_path, option):
    with pytest.raises(ValueError, match=rf'{option[0]}: .*network\.pt.*CONFIG CHECKPOINT'):
        call_tool(TOOL, tmp_path / 'network.pt', pictures, '--out-dir', tmp_path / 'out', *option)


def test_exported_file_that_says_too_little(call_tool, pictures, tmp_path):
    model = get_model(GAP)
    del model._config
    export_classifier(model, tmp_path / 'network.pt', (32, 32))
    with pytest.raises(ValueError, match=r"network\.pt.*'pipeline'.*CONFIG CHECKPOINT"):
        call_tool(TOOL, tmp_path / 'network.pt', pictures, '--out-dir', tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize(
    ('words', 'message'),
    [
        ((CLS, 'checkpoint.pth'), 'expected CONFIG CHECKPOINT INPUT'),
        (('checkpoint.pth', 'a.png'), 'expected CONFIG CHECKPOINT INPUT'),
        ((CLS, 'network.onnx', 'a.png'), f'network.onnx holds its network: leave out {CLS}'),
    ],
)
def test_a_word_too_few_or_too_many_is_told(call_tool, words, message, capsys):
    with pytest.raises(SystemExit):
        call_tool(TOOL, *words, '--out-dir', 'out')
    assert message in capsys.readouterr().err


def test_options_may_stand_between(demo, checkpoint, call_tool, pictures, tmp_path):
    first, second = pictures / 'a.png', pictures / 'large.png'
    expected = demo(CLS, first, second)
    call_tool(TOOL, CLS, '--out-dir', tmp_path / 'other', checkpoint(CLS), first, '--force', second)
    found = json.loads((tmp_path / 'other/predictions.json').read_text())
    assert found['predictions'] == expected


@pytest.fixture
def other(checkpoint, tmp_path):
    """Config of the digits' network with other settings, and its checkpoint."""

    def make(**settings):
        path = tmp_path / 'config.py'
        lines = [f'{name} = {value!r}' for name, value in settings.items()]
        path.write_text('\n'.join([f'_base_ = {str(ROOT / CLS)!r}', *lines]))
        return str(path)

    return make


def expected_predictions(config, weights, files):
    """What the network says of images that its test pipeline loads."""
    model = get_model(config, weights)
    steps = model._config.test_dataloader.dataset.pipeline
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        pipeline = Compose([TRANSFORMS.build(step) for step in steps])
        batch = default_collate([pipeline(dict(img_path=str(file))) for file in files])
        with torch.no_grad():
            return model.test_step(batch)


@pytest.mark.parametrize('covariance', [[], ['--covariance']])
def test_network_of_one_channel(demo, other, checkpoint, pictures, tmp_path, covariance):
    """Of gray pictures it is given what the test pipeline loads, and of colors their gray."""
    colors = np.random.default_rng(0).integers(256, size=(32, 32, 3), dtype=np.uint8)
    cv2.imwrite(str(pictures / 'colors.jpg'), colors)
    loader = dict(type='LoadImageFromFile', color_type='grayscale')
    pipeline = [loader, dict(type='PackInputs')]
    config = other(
        model=dict(backbone=dict(in_channels=1)),
        data_preprocessor=dict(mean=[120], std=[60], to_rgb=False),
        test_dataloader=dict(dataset=dict(pipeline=pipeline)),
    )
    files = [pictures / name for name in ('a.png', 'colors.jpg')]
    records = demo(config, *files, *covariance)
    expected = expected_predictions(config, checkpoint(config), files)
    for record, sample in zip(records, expected, strict=True):
        assert record['label'] == sample.pred_label.item()
        assert record['score'] == pytest.approx(sample.pred_score.max().item(), rel=1e-5)
        assert ('covariance' in record) == bool(covariance)
        drawn = cv2.imread(str(tmp_path / 'out' / record['drawing']))
        assert (drawn[60:, :, 0] == drawn[60:, :, 1]).all()  # gray


def test_gray_frames_of_a_video(video):
    read = runpy.run_path(str(ROOT / TOOL))['read_frames']
    gray = read(video, LoadCheckedImage(color_type='grayscale'))
    for (_, image), (_, frame) in zip(gray, read(video, LoadCheckedImage()), strict=True):
        np.testing.assert_array_equal(image, cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY))


@pytest.mark.parametrize('channels', [1, 5])
def test_pictures_of_other_channels_fail(demo, other, pictures, tmp_path, channels):
    norm = dict(mean=[120] * channels, std=[60] * channels, to_rgb=False)
    config = other(model=dict(backbone=dict(in_channels=channels)), data_preprocessor=norm)
    with pytest.raises(SystemExit, match='1 of 1 files failed'):
        demo(config, pictures / 'a.png')
    failed = json.loads((tmp_path / 'out/predictions.json').read_text())['failed']
    assert f'{channels} channels, and the test pipeline gives 3' in failed[str(pictures / 'a.png')]


def test_pictures_of_five_channels(demo, other, checkpoint, tmp_path):
    """As a TIFF has them."""
    tifffile = pytest.importorskip('tifffile')
    path = tmp_path / 'a.tiff'
    image = np.random.default_rng(0).integers(256, size=(32, 32, 5), dtype=np.uint8)
    tifffile.imwrite(path, image, photometric='minisblack')
    loader = dict(type='LoadImageFromFile', color_type='unchanged', imdecode_backend='tifffile')
    config = other(
        model=dict(backbone=dict(in_channels=5)),
        data_preprocessor=dict(mean=[120] * 5, std=[60] * 5, to_rgb=False),
        test_dataloader=dict(dataset=dict(pipeline=[loader, dict(type='PackInputs')])),
    )
    (record,) = demo(config, path)
    (sample,) = expected_predictions(config, checkpoint(config), [path])
    assert record['score'] == pytest.approx(sample.pred_score.max().item(), rel=1e-5)
    drawn = cv2.imread(str(tmp_path / 'out' / record['drawing']))
    np.testing.assert_array_equal(drawn[60:], cv2.resize(image[..., :3], (320, 320))[60:])


MANY = dict(type='MultiLabelLinearClsHead', num_classes=10, in_channels=8256, _delete_=True)
ONE = dict(type='LinearClsHead', num_classes=3, in_channels=8256)


@pytest.mark.parametrize('thr', [0.2, 0.5, 1])
def test_several_labels(demo, other, checkpoint, pictures, thr):
    config = other(model=dict(head=dict(MANY, thr=thr)))
    (record,) = demo(config, pictures / 'a.png', '--covariance')
    (sample,) = expected_predictions(config, checkpoint(config), [pictures / 'a.png'])
    assert [one['label'] for one in record['labels']] == sample.pred_label.tolist()
    scores = sample.pred_score[sample.pred_label].tolist()
    assert [one['score'] for one in record['labels']] == pytest.approx(scores, rel=1e-4)
    assert [one['class'] for one in record['labels']] == list(map(str, sample.pred_label.tolist()))
    assert record['top5'][0]['label'] == sample.pred_score.argmax()
    assert not record.keys() & {'label', 'class', 'score'}
    assert record['covariance']['label'] == record['top5'][0]['label']


def test_several_tasks_are_refused(demo, other, pictures):
    tasks = dict(type='MultiTaskHead', task_heads=dict(a=ONE), _delete_=True)
    with pytest.raises(TypeError, match=r'model: .*MultiTaskHead.*get_model'):
        demo(other(model=dict(head=tasks)), pictures / 'a.png')


def test_pretraining_is_no_classifier():
    with pytest.raises(TypeError, match='Linear'):
        Classifier(torch.nn.Linear(1, 1))


def test_full_disk_leaves_no_picture(demo, pictures, tmp_path, monkeypatch):
    imencode = cv2.imencode

    def full(*arguments):
        monkeypatch.setattr('os.fsync', raises)
        return imencode(*arguments)

    def raises(_):
        monkeypatch.undo()
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(cv2, 'imencode', full)
    with pytest.raises(SystemExit, match='1 of 2 files failed'):
        demo(CLS, pictures / 'a.png', pictures / 'large.png')
    assert [path.name for path in (tmp_path / 'out/vis').iterdir()] == ['large.png.png']


def test_video_cut_short_gets_no_name(demo, video, tmp_path, monkeypatch):
    class Writer:  # as on a full disk
        def __init__(self, path, *_):
            self.path = Path(path)

        def isOpened(self):  # noqa: N802 - as OpenCV names it
            return True

        def write(self, _):
            self.path.write_bytes(b'cut short')

        def release(self):
            pass

    monkeypatch.setattr(cv2, 'VideoWriter', Writer)
    with pytest.raises(SystemExit, match='1 of 1 files failed'):
        demo(CLS, video)
    found = json.loads((tmp_path / 'out/predictions.json').read_text())
    assert found['predictions'] == []
    assert 'make room' in found['failed'][str(video)]
    assert not list((tmp_path / 'out/vis').iterdir())


def test_names_are_printed_without_control_characters(demo, pictures, capsys):
    path = pictures / 'a\x1b[31m\n.png'
    path.write_bytes(b'')
    with pytest.raises(SystemExit, match=r"failed: '.*a\\x1b\[31m\\n\.png'"):
        demo(CLS, path)
    said = capsys.readouterr()
    assert '\x1b[31m' not in said.out + said.err


def test_inputs_are_found_below_the_folder_they_share(pictures, capsys):
    find = runpy.run_path(str(ROOT / TOOL))['find_inputs']
    found = find([pictures / 'sub', pictures / 'sub/deep', pictures / 'a.png'])
    names = ['sub/a.pgm', 'sub/a.png', 'sub/deep/b.JPG', 'a.png']
    assert [path.as_posix() for path in found.values()] == names
    assert [path.name for path in find([pictures / 'a.png']).values()] == ['a.png']
    capsys.readouterr()
    assert len(find([pictures])) == 5
    assert '1 .txt' in capsys.readouterr().err


def test_a_video_that_ends_early_is_reported(video):
    video.write_bytes(video.read_bytes()[:-600])
    frames = runpy.run_path(str(ROOT / TOOL))['read_frames'](video, LoadCheckedImage())
    with pytest.raises(ValueError, match=r'\b[12] of 3 frames'):
        list(frames)
