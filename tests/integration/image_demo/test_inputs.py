"""Pictures and videos through the demo, against the frameworks on their own."""

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import cv2
import mmcv
import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from PIL import Image
from pycocotools import mask as coco_mask

from gcp_mm import get_model
from gcp_mm.data import LoadCheckedImage
from tests.helpers.predictions import expect_classes
from tests.helpers.runs import CLS, ROOT

TOOL = 'tools/image_demo.py'
MASK = 'configs/digits/mask-rcnn_r18-gcp-m_fpn_4e_digits.py'
STOCK = 'mmpretrain::mobilenet_v2/mobilenet-v2_8xb32_in1k.py'


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


@pytest.mark.parametrize('config', [CLS, STOCK])
def test_folder_is_classified_and_mirrored(predict, checkpoint, pictures, tmp_path, config):
    records = predict(config, pictures)
    names = ['a.png', 'large.png', 'sub/a.pgm', 'sub/a.png', 'sub/deep/b.JPG']
    assert [record['input'] for record in records] == [str(pictures / name) for name in names]
    expect_classes(records, [pictures / name for name in names], config, checkpoint(config))
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


def test_covariance_explains_the_prediction(predict, checkpoint, pictures, tmp_path):
    records = predict(CLS, pictures / 'sub/a.pgm', pictures / 'large.png', '--covariance')
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


def test_objects_are_drawn_and_recorded(predict, checkpoint, scenes, tmp_path):
    pytest.importorskip('mmdet')
    from mmdet.apis import inference_detector

    files = sorted((scenes / 'val').iterdir())
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = get_model(MASK, checkpoint(MASK))
        expected = [inference_detector(model, str(file)).pred_instances for file in files]
    # Untrained, it is as sure of a hundred objects: the threshold leaves the first five.
    threshold = expected[0].scores[4:6].mean().item()
    records = predict(MASK, scenes / 'val', '--score-thr', threshold)
    assert [record['input'] for record in records] == [str(file) for file in files]
    assert len(records[0]['objects']['labels']) == 5
    for record, instances in zip(records, expected, strict=True):
        objects = record['objects']
        instances = instances[instances.scores > threshold]
        labels = instances.labels.tolist()
        assert objects['labels'] == labels
        assert objects['classes'] == [str(label) for label in labels]
        np.testing.assert_allclose(objects['scores'], instances.scores, rtol=1e-4)
        np.testing.assert_allclose(objects['bboxes'], instances.bboxes, atol=1e-2)
        masks = [coco_mask.decode(mask).astype(bool) for mask in objects['masks']]
        for mask, other in zip(masks, instances.masks.numpy(), strict=True):
            assert (mask != other).mean() < 0.01
    nothing = predict(MASK, scenes / 'val', '--score-thr', 1, out='nothing')
    keys = ('labels', 'scores', 'bboxes', 'masks', 'classes')
    assert [record['objects'] for record in nothing] == [{key: [] for key in keys}] * 2
    drawn, plain = (
        cv2.imread(str(tmp_path / out / records[0]['drawing'])) for out in ('out', 'nothing')
    )
    np.testing.assert_array_equal(plain, cv2.imread(str(files[0])))
    for box in records[0]['objects']['bboxes']:
        left, top, right, bottom = np.array(box).round().astype(int)
        assert (drawn != plain).any(2)[top : bottom + 1, left : right + 1].mean() > 0.5


@pytest.mark.slow
def test_video_is_drawn_frame_for_frame(predict, checkpoint, video, tmp_path):
    records = predict(CLS, video, '--covariance')
    frames = [tmp_path / f'{number}.png' for number in range(3)]
    for path, frame in zip(frames, mmcv.VideoReader(str(video)), strict=True):
        cv2.imwrite(str(path), frame)
    expect_classes(records, frames, CLS, checkpoint(CLS))
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


def test_bad_files_are_reported_and_the_others_drawn(demo, pictures, video, monkeypatch):
    whole = (pictures / 'sub/deep/b.JPG').read_bytes()
    contents = {
        'empty.png': b'',
        'half.jpg': whole[: len(whole) // 2],
        'page.jpg': b'<html>not found</html>',
        'none.mp4': b'no video' * 100,
        'raw.png': cv2.imencode('.png', np.full((9, 9), 199, np.uint16))[1].tobytes(),
    }
    for name, content in contents.items():
        (pictures / 'sub' / name).write_bytes(content)
    monkeypatch.setattr(cv2, 'VideoWriter_fourcc', lambda *_: -7)  # no such encoder
    fails = r'7 of 12 files failed: .*notes\.txt'
    found = demo(CLS, pictures, pictures / 'notes.txt', video, fails=fails)
    assert len(found['predictions']) == 5
    assert {path.split('/')[-1] for path in found['failed']} == {*contents, 'notes.txt', 'clip.AVI'}
    assert 'no encoder' in found['failed'][str(video)]
    assert 'uint16 up to 199' in found['failed'][str(pictures / 'sub/raw.png')]


def test_detector_with_the_checkpoint_of_a_classifier(call_tool, checkpoint, pictures, tmp_path):
    with pytest.raises(ValueError, match='neck'):
        call_tool(TOOL, MASK, checkpoint(CLS), pictures, '--out-dir', tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_results_are_not_written_over_unasked(demo, pictures):
    first = demo(CLS, pictures / 'a.png')
    with pytest.raises(ValueError, match=r"out' is not empty; .* --force"):
        demo(CLS, pictures / 'a.png')
    assert demo(CLS, pictures / 'a.png', '--force') == first


def test_options_may_stand_between(demo, checkpoint, call_tool, pictures, tmp_path):
    first, second = pictures / 'a.png', pictures / 'large.png'
    expected = demo(CLS, first, second)
    call_tool(TOOL, CLS, '--out-dir', tmp_path / 'other', checkpoint(CLS), first, '--force', second)
    found = json.loads((tmp_path / 'other/predictions.json').read_text())
    assert found['predictions'] == expected['predictions']


def test_gray_frames_of_a_video(video):
    read = runpy.run_path(str(ROOT / TOOL))['read_frames']
    gray = read(video, LoadCheckedImage(color_type='grayscale'))
    for (_, image), (_, frame) in zip(gray, read(video, LoadCheckedImage()), strict=True):
        np.testing.assert_array_equal(image, cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY))


def test_full_disk_leaves_no_picture(demo, pictures, tmp_path, monkeypatch):
    def full(_):
        monkeypatch.undo()
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('os.fsync', full)
    demo(CLS, pictures / 'a.png', pictures / 'large.png', fails='1 of 2 files failed')
    assert [path.name for path in (tmp_path / 'out/vis').iterdir()] == ['large.png.png']


def test_video_cut_short_gets_no_name(demo, video, tmp_path, monkeypatch):
    def full(path, *_):
        Path(path).write_bytes(b'cut short')
        return SimpleNamespace(isOpened=lambda: True, write=lambda _: None, release=lambda: None)

    monkeypatch.setattr(cv2, 'VideoWriter', full)
    found = demo(CLS, video, fails='1 of 1 files failed')
    assert found['predictions'] == []
    assert 'make room' in found['failed'][str(video)]
    assert not list((tmp_path / 'out/vis').iterdir())


def test_names_are_printed_without_control_characters(demo, pictures, capsys):
    path = pictures / 'a\x1b[31m\n.png'
    path.write_bytes(b'')
    demo(CLS, path, fails=r"failed: '.*a\\x1b\[31m\\n\.png'")
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
