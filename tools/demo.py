"""The main job end to end on real handwritten digits: `make demo`.

Pretrains ResNet-18 with global average and with global covariance pooling, fine-tunes Faster and
Mask R-CNN from the latter, evaluates all four and writes work_dirs/demo/report.md. Every step is
the command a user would type; a second run resumes or skips what is done.
"""

import io
import json
from pathlib import Path

from arguments import run, run_script

from mmengine.runner import find_latest_checkpoint
from PIL import Image
from torchvision.transforms.functional import to_tensor
from torchvision.utils import save_image

from gcp_mm._io import markdown_table, write_atomically
from gcp_mm.hub import resolve_config
from gcp_mm.studies.curves import first_reaching, plot_curves, validation_curve

ROOT = Path(__file__).resolve().parent.parent
WORK_DIRS = Path('work_dirs')
REPORT = WORK_DIRS / 'demo'
GAP = 'resnet18_1xb64-5e_digits'
GCP = 'resnet18-gcp_1xb64-5e_digits'
FASTER = 'faster-rcnn_r18-gcp-m_fpn_4e_digits'
MASK = 'mask-rcnn_r18-gcp-m_fpn_4e_digits'
NAMES = {
    GAP: 'ResNet-18, GAP',
    GCP: 'ResNet-18, GCP',
    FASTER: 'Faster R-CNN, GCP_M',
    MASK: 'Mask R-CNN, GCP_M',
}


def say(text):
    print(f'\n[demo] {text}', flush=True)


def call(*command):
    say(' '.join(['python', *map(str, command)]))
    run_script(*command)


def config_file(name):
    return Path('configs/digits') / f'{name}.py'


def final_checkpoint(name):
    """Where the last epoch's checkpoint of a config goes."""
    epochs = resolve_config(config_file(name)).train_cfg.max_epochs
    return WORK_DIRS / name / f'epoch_{epochs}.pth'


def train(name):
    # The name of the latest checkpoint is written when that checkpoint is complete.
    latest = find_latest_checkpoint(WORK_DIRS / name)
    if latest and Path(latest).name == final_checkpoint(name).name:
        say(f'{NAMES[name]}: {final_checkpoint(name)} is there already')
    else:
        call('tools/train.py', config_file(name), '--resume')


def evaluate(name):
    """Metrics of the final checkpoint, by tools/test.py; for detectors also pictures."""
    metrics = REPORT / f'{name}.json'
    checkpoint = final_checkpoint(name)
    if metrics.is_file() and metrics.stat().st_mtime > checkpoint.stat().st_mtime:
        say(f'{NAMES[name]}: {metrics} is there already')
    else:
        draw = ('--show-dir', REPORT / name) if 'rcnn' in name else ()
        call('tools/test.py', config_file(name), checkpoint, '--out', metrics, *draw)
    return json.loads(metrics.read_text())


def contact_sheet(folder, path, count=6, columns=2):
    """Put the first pictures of a folder side by side."""
    pictures = [to_tensor(Image.open(file)) for file in sorted(folder.glob('*.png'))[:count]]
    file = io.BytesIO()
    save_image(pictures, file, nrow=columns, padding=0, format='png')
    write_atomically(path, file.getvalue())


def table_of_classifiers(metrics, curves):
    """Top-1 accuracy after each epoch; an epoch whose validation was interrupted has none."""
    epochs = sorted(curves[GAP].keys() | curves[GCP].keys())
    values = {e: [curves[name].get(e, float('nan')) for name in (GAP, GCP)] for e in epochs}
    values['evaluated'] = [metrics[name]['accuracy/top1'] for name in (GAP, GCP)]
    rows = [[epoch, *(f'{value:.2f}' for value in row)] for epoch, row in values.items()]
    return markdown_table(['top-1 (%) after epoch', NAMES[GAP], NAMES[GCP]], rows)


def table_of_detectors(metrics):
    """AP of boxes and of masks; Faster R-CNN has no masks."""
    keys = [f'coco/{kind}_{ap}' for kind in ('bbox', 'segm') for ap in ('mAP', 'mAP_50')]
    return markdown_table(
        ['detector, from the GCP checkpoint', 'box AP', 'box AP50', 'mask AP', 'mask AP50'],
        [
            [NAMES[name], *(f'{metrics[name][k]:.3f}' if k in metrics[name] else '' for k in keys)]
            for name in (FASTER, MASK)
        ],
    )


def report(metrics):
    curves = {name: validation_curve(WORK_DIRS / name) for name in (GAP, GCP)}
    for name in (FASTER, MASK):
        contact_sheet(REPORT / name, REPORT / f'{name}.png')
    final_gap = metrics[GAP]['accuracy/top1']
    plot_curves(
        REPORT / 'accuracy.png',
        {'validation digits': {NAMES[name]: [curve] for name, curve in curves.items()}},
        'top-1 accuracy (%)',
        target=("GAP's final", final_gap),
    )
    reached = first_reaching(curves[GCP], final_gap)
    verdict = f'in epoch {reached}' if reached else 'not within this schedule'
    parts = [
        '# Global covariance pooling on real digits',
        f'GCP reaches the final accuracy of GAP ({final_gap:.2f} %, epoch '
        f'{first_reaching(curves[GAP], final_gap)}) **{verdict}**, with the same seed and '
        'schedule.',
        table_of_classifiers(metrics, curves),
        '![accuracy by epoch](accuracy.png)',
        table_of_detectors(metrics),
        'Truth on the left of each pair, detections on the right.',
        *(f'{NAMES[name]}:\n\n![{NAMES[name]}]({name}.png)' for name in (FASTER, MASK)),
    ]
    text = '\n\n'.join(parts)
    write_atomically(REPORT / 'report.md', f'{text}\n'.encode())
    print(text)
    say(f'the report is {REPORT / "report.md"}')


def main():
    if Path.cwd() != ROOT:
        raise SystemExit(f'run this in the root of the project: cd {ROOT}')
    call('tools/make_digits.py')
    for name in NAMES:
        train(name)
    REPORT.mkdir(parents=True, exist_ok=True)
    report({name: evaluate(name) for name in NAMES})


if __name__ == '__main__':
    run(main)
