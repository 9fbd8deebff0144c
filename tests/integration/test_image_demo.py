"""Pictures and videos through the demo, against the frameworks on their own."""

import json
import runpy

import cv2
import mmcv
import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from mmpretrain.apis import ImageClassificationInferencer
from PIL import Image
from pycocotools import mask as coco_mask

from gcp_mm import get_model
from gcp_mm.data import LoadCheckedImage
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
        path = folder / f'{config.split("/")[-1]}.pth'
        if not path.exists():
            torch.manual_seed(0)
            model = get_model(config)
            if config != MASK:
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


def test_inputs_are_found_below_the_folder_they_share(pictures):
    find = runpy.run_path(str(ROOT / TOOL))['find_inputs']
    found = find([pictures / 'sub', pictures / 'sub/deep', pictures / 'a.png'])
    names = ['sub/a.pgm', 'sub/a.png', 'sub/deep/b.JPG', 'a.png']
    assert [path.as_posix() for path in found.values()] == names
    assert [path.name for path in find([pictures / 'a.png']).values()] == ['a.png']


def test_a_video_that_ends_early_is_reported(video):
    video.write_bytes(video.read_bytes()[:-600])
    frames = runpy.run_path(str(ROOT / TOOL))['read_frames'](video, LoadCheckedImage())
    with pytest.raises(ValueError, match=r'\b[12] of 3 frames'):
        list(frames)
