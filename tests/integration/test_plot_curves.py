"""Tables and plots of curves and learning rates."""

import json

from PIL import Image

from tests.helpers.run_logs import validations, write_log
from tests.helpers.runs import CLS, NARROW, ROOT

TOOL = 'tools/plot_curves.py'
IMAGENET = ROOT / 'configs/imagenet/resnet18-gcp_8xb32-lradju_in1k.py'


def test_table_and_plot_of_runs(call_tool, tmp_path, capsys):
    write_log(tmp_path / 'gap', '20260101_000000', *validations(50.0, 71.0, 70.0))
    write_log(tmp_path / 'gcp', '20260101_000000', *validations(60.0, 70.0))
    write_log(tmp_path / 'bad', '20260101_000000', *validations(60.0, 69.0))
    runs = [tmp_path / name for name in ('gap', 'gcp', 'bad')]
    call_tool(TOOL, *runs, '--out', tmp_path)
    written = (tmp_path / 'curves.md').read_text()
    assert written in capsys.readouterr().out
    assert '| gap | 3 | 70 | 71 | 2 |' in written
    assert '| gcp | 2 | 70 | 70 | 2 |' in written
    assert '| bad | 2 | 69 | 69 | not reached |' in written
    report = json.loads((tmp_path / 'curves.json').read_text())
    assert [row['matching_epoch'] for row in report['table']] == [2, 2, None]
    assert Image.open(tmp_path / 'curves.png').size == (660, 480)
    call_tool(TOOL, *runs, '--names', 'a', 'b', 'c', '--out', tmp_path)
    assert '| a | 3 | 70 | 71 | 2 |' in (tmp_path / 'curves.md').read_text()


def test_plot_of_learning_rates(call_tool, tmp_path):
    call_tool(TOOL, '--lr', IMAGENET, CLS, '--out', tmp_path)
    assert Image.open(tmp_path / 'learning_rates.png').size == (900, 600)


def test_log_of_a_real_run(run_tool, call_tool, short_cls, tmp_path):
    done = run_tool(
        *('tools/train.py', CLS, '--work-dir', tmp_path / 'run', '--cfg-options', *short_cls),
        *(f'{key}={value}' for key, value in NARROW.items()),
    )
    assert done.returncode == 0, done.stdout
    call_tool(TOOL, tmp_path / 'run', '--out', tmp_path)
    report = json.loads((tmp_path / 'curves.json').read_text())
    (validated,) = report['validation']['run'].values()
    assert f'accuracy/top1: {validated:.4f}' in done.stdout
