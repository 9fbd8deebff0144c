"""tools/test_robustness.py on detectors, of scenes of digits."""

import json
import shutil

import pytest
import torch
from mmengine.registry import MODELS, init_default_scope

from gcp_mm.data.digit_scenes import write_scenes
from gcp_mm.robustness.results import read_baseline
from tests.helpers.runs import ROOT, config_of

TOOL = 'tools/test_robustness.py'
SHORT = ('--corruptions', 'gaussian_noise', 'fog', '--severities', 1, 3)
PARTS = ['clean', 'gaussian_noise/1', 'gaussian_noise/3', 'fog/1', 'fog/3']
CONFIG = """
_base_ = '{base}'
custom_imports = dict(imports=['gcp_mm', 'tests.helpers.threshold_detector'])
model = dict(
    _delete_=True, type='ThresholdDetector', data_preprocessor=dict(type='DetDataPreprocessor')
)
"""


@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    """Three images: of two processes' samples one is a repetition."""
    root = tmp_path_factory.mktemp('data') / 'scenes'
    write_scenes(root, scene_size=96, train_scenes=1, val_scenes=3)
    return root


@pytest.fixture(scope='module')
def network(tmp_path_factory):
    """Config and checkpoint of a detector that finds boxes and masks without training."""
    folder = tmp_path_factory.mktemp('network')
    base = ROOT / 'configs/digits/mask-rcnn_r18_fpn_4e_digits.py'
    (folder / 'net.py').write_text(CONFIG.format(base=base))
    torch.save(dict(state_dict=dict(threshold=torch.tensor(150.0))), folder / 'net.pth')
    return folder / 'net.py', folder / 'net.pth'


def options(scenes):
    return [
        *('--cfg-options', f'test_dataloader.dataset.data_root={scenes}'),
        f'test_evaluator.ann_file={scenes}/annotations/instances_val.json',
        *('test_dataloader.num_workers=0', 'test_dataloader.persistent_workers=False'),
    ]


@pytest.fixture
def evaluate(call_tool, network, scenes):
    """Run the tool in this process; returns what is in the file of results."""

    def run(work_dir, *words, network=network, scenes=scenes):
        call_tool(TOOL, *network, '--work-dir', work_dir, *words, *options(scenes))
        return json.loads((work_dir / 'robustness.json').read_text())

    return run


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
    return tmp_path_factory.mktemp('finished')


@pytest.fixture
def evaluated(evaluate, finished):
    """Work dir of a finished evaluation; the first test that asks for it runs it."""
    evaluate(finished, *SHORT)
    return finished


def test_clean_metrics_are_those_of_the_test_tool(
    evaluated, call_tool, network, scenes, tmp_path, capsys
):
    file = tmp_path / 'metrics.json'
    call_tool('tools/test.py', *network, '--work-dir', tmp_path, '--out', file, *options(scenes))
    metrics = json.loads(file.read_text())
    results = json.loads((evaluated / 'robustness.json').read_text())
    assert results['parts']['clean'] == {k: v for k, v in metrics.items() if 'copypaste' not in k}
    assert list(results['parts']) == PARTS
    assert results['images'] == 3
    for metric in ('coco/bbox_mAP', 'coco/segm_mAP'):
        values = [part[metric] for part in results['parts'].values()]
        assert values[0] > 0.2
        assert len({*values}) > 3  # each corruption is another
    page = (evaluated / 'robustness.md').read_text()
    assert '# Robustness of net' in page
    assert f'| coco/segm_mAP | {results["parts"]["clean"]["coco/segm_mAP"]:.3f} | - | - |' in page


def test_corrupted_metrics_are_those_of_the_test_tool(
    evaluated, call_tool, network, scenes, tmp_path
):
    """With the transform in the config's pipeline, and two workers."""
    config, file = tmp_path / 'noise.py', tmp_path / 'metrics.json'
    config.write_text(
        f"""
_base_ = {str(network[0])!r}
load, *rest = _base_.test_dataloader.dataset.pipeline
noise = dict(type='CorruptImage', corruption='gaussian_noise', severity=3)
test_dataloader = dict(dataset=dict(pipeline=[load, noise, *rest]))
"""
    )
    call_tool(
        *('tools/test.py', config, network[1], '--work-dir', tmp_path, '--out', file),
        *(*options(scenes), 'test_dataloader.num_workers=2', 'test_dataloader.batch_size=1'),
    )
    metrics = json.loads(file.read_text())
    results = json.loads((evaluated / 'robustness.json').read_text())
    assert results['parts']['gaussian_noise/3'].items() <= metrics.items()


def test_stopped_run_continues_with_what_is_missing(evaluate, evaluated, tmp_path, monkeypatch):
    from gcp_mm.robustness import detectors, evaluation

    measured, run_part = [], detectors.run_part

    def record(runner, dataloader, evaluator):
        step = dataloader['dataset'].pipeline.transforms[1]
        measured.append(getattr(step, 'severity', None))
        return run_part(runner, dataloader, evaluator)

    def stop(path, results):
        write(path, results)
        if len(results['parts']) == 3:
            raise KeyboardInterrupt

    write = evaluation.write_results
    monkeypatch.setattr(evaluation, 'write_results', stop)
    monkeypatch.setattr(detectors, 'run_part', record)
    with pytest.raises(KeyboardInterrupt):
        evaluate(tmp_path, *SHORT)
    monkeypatch.setattr(evaluation, 'write_results', write)
    evaluate(tmp_path, *SHORT)
    assert measured == [None, 1, 3, 1, 3]
    for name in ('robustness.json', 'robustness.md'):
        assert (tmp_path / name).read_bytes() == (evaluated / name).read_bytes()
    monkeypatch.setattr(detectors, 'run_part', lambda *_: pytest.fail('measured again'))
    evaluate(tmp_path, *SHORT)


@pytest.mark.slow
def test_two_processes_give_the_same(evaluated, run_tool, network, scenes, tmp_path):
    config, checkpoint = network
    done = run_tool(
        *('tools/dist_test_robustness.sh', config, checkpoint, 2, '--work-dir', tmp_path),
        *(*SHORT, '--skip-bad', *options(scenes)),
    )
    assert done.returncode == 0, done.stdout
    assert 'fog/3 (5 of 5)' in done.stdout
    for name in ('robustness.json', 'robustness.md'):
        assert (tmp_path / name).read_text() == (evaluated / name).read_text()


def replace_image(root):
    shutil.copy(root / 'val/00001.png', root / 'val/00000.png')


def drop_annotation(root):
    path = root / 'annotations/instances_val.json'
    content = json.loads(path.read_text())
    del content['annotations'][0]
    path.write_text(json.dumps(content))


@pytest.mark.parametrize('change', [replace_image, drop_annotation])
def test_results_of_other_data_are_refused(evaluate, scenes, tmp_path, change):
    scenes = shutil.copytree(scenes, tmp_path / 'scenes')
    short = ('--corruptions', 'fog', '--severities', 1)
    found = evaluate(tmp_path / 'w', *short, scenes=scenes)
    change(scenes)
    with pytest.raises(ValueError, match=r"made with .'images_sha256'"):
        evaluate(tmp_path / 'w', *short, scenes=scenes)
    assert json.loads((tmp_path / 'w/robustness.json').read_text()) == found


def test_results_of_other_settings_are_refused(
    evaluate, evaluated, call_tool, network, scenes, monkeypatch
):
    """Images are padded to the largest of their batch; other packages corrupt otherwise."""
    other = (*SHORT, *options(scenes), 'test_dataloader.batch_size=2')
    with pytest.raises(ValueError, match=r"made with .'test_sha256'"):
        call_tool(TOOL, *network, '--work-dir', evaluated, *other)
    monkeypatch.setattr('gcp_mm.robustness.detectors.versions', lambda: dict(numpy='0'))
    with pytest.raises(ValueError, match=r"made with .'packages'"):
        evaluate(evaluated, *SHORT)


def test_bad_images_stop_the_run_or_are_left_out(evaluate, scenes, tmp_path):
    """Without them the metrics are those of annotations that lack them."""
    scenes = shutil.copytree(scenes, tmp_path / 'scenes')
    image = scenes / 'val/00001.png'
    image.write_bytes(image.read_bytes()[:-300])
    short = ('--corruptions', 'gaussian_noise', '--severities', 1)
    with pytest.raises(ValueError, match=f'{image}.*truncated'):
        evaluate(tmp_path / 'w', *short, scenes=scenes)
    found = evaluate(tmp_path / 'w', *short, '--skip-bad', scenes=scenes)
    assert found['images'] == 2
    assert [each['file'] for each in found['skipped']] == [str(image)]
    page = (tmp_path / 'w/robustness.md').read_text()
    assert f'## 1 images left out\n\n- {image}: truncated' in page
    path = scenes / 'annotations/instances_val.json'
    content = json.loads(path.read_text())
    for key, name in (('images', 'id'), ('annotations', 'image_id')):
        content[key] = [each for each in content[key] if each[name] != 1]
    path.write_text(json.dumps(content))
    assert evaluate(tmp_path / 'v', *short, scenes=scenes)['parts'] == found['parts']


def test_detector_that_finds_nothing(evaluate, network, tmp_path):
    """On clean images it is an error; under a corruption, an AP of 0."""
    blind = tmp_path / 'blind.pth'
    torch.save(dict(state_dict=dict(threshold=torch.tensor(255.0))), blind)
    with pytest.raises(ValueError, match=r'test_evaluator: .* no metric on the clean images'):
        evaluate(tmp_path / 'w', *SHORT, network=(network[0], blind))
    words = ('--corruptions', 'contrast', '--severities', 5)
    found = evaluate(tmp_path / 'v', *words)['parts']
    assert found['contrast/5'] == dict.fromkeys(found['clean'], 0.0)


def test_detectors_are_not_compared(evaluated, call_tool, tmp_path):
    path = evaluated / 'robustness.json'
    with pytest.raises(ValueError, match=r"'net' is a detector.*\.md"):
        call_tool('tools/compare_robustness.py', path, '--out', tmp_path / 'compared')
    with pytest.raises(ValueError, match="'net' is a detector"):
        read_baseline([path])


@pytest.mark.slow
def test_mask_rcnn(evaluate, scenes, tmp_path):
    """A detector of MMDetection, of random weights, that has boxes and masks to be evaluated."""
    name = 'configs/digits/mask-rcnn_r18-gcp-m_fpn_4e_digits.py'
    cfg = config_of(ROOT / name)
    init_default_scope('mmdet')
    torch.manual_seed(0)
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()), tmp_path / 'net.pth')
    config = tmp_path / 'all.py'
    config.write_text(
        f'_base_ = {str(ROOT / name)!r}\nmodel = dict(test_cfg=dict(rcnn=dict(score_thr=0.0)))\n'
    )
    found = evaluate(tmp_path, *SHORT, network=(config, tmp_path / 'net.pth'))
    assert list(found['parts']) == PARTS
    assert {'coco/bbox_mAP', 'coco/segm_mAP'} < found['parts']['clean'].keys()
