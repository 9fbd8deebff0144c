"""All checks of a config, in their order."""

from collections.abc import Callable, Iterable, Iterator

from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

from .context import Context, Finding, Opened, world_size
from .data import check_classes, check_data, check_evaluation, depends_on_files_alone
from .dataloaders import check_annotations, check_images
from .keys import check_keys
from .machine import check_cores, check_packages, check_work_dir
from .network import check_checkpoints, check_disk, check_head, check_network, check_weights
from .schedule import check_batch, check_schedule
from .trial import check_collation, check_metrics, check_step

TRAINING = (check_schedule, check_batch, check_work_dir, check_collation)
FAST = (
    check_packages,
    check_keys,
    check_head,
    check_checkpoints,
    check_data,
    check_annotations,
    check_classes,
    check_evaluation,
    check_cores,
    *TRAINING,
)
TRIAL = (check_network, check_weights, check_metrics, check_step)
LEVELS = {
    'fast': FAST,
    'disk': (check_disk,),
    'network': (*FAST, *TRIAL, check_disk),
    'data': (check_data, check_annotations),
    'images': (check_data, check_annotations, check_images),
}


def check_config(cfg: Config, split: str = 'train', **options) -> list[Finding]:
    """Run the checks of :func:`run_checks`, and return their findings as a list."""
    return list(run_checks(cfg, split, **options))


def run_checks(
    cfg: Config,
    split: str = 'train',
    *,
    level: str = 'fast',
    processes: int | None = None,
    trust: bool = False,
    workers: int | None = None,
    model: nn.Module | None = None,
    loaded: list[Opened] | None = None,
) -> Iterator[Finding]:
    """Check a config, and the packages, data and disk space that it needs.

    Args:
        cfg: the final config, with the command-line options.
        split: 'train', which includes validation, or 'test'.
        level: 'fast' runs the checks that do not build the network, as every run does before it
            writes a file. 'network' also builds the network and tries it on a batch. 'disk' checks
            the space for checkpoints of `model`. 'data' checks every list of images and annotations
            of the config, for all splits. 'images' also decodes every image.
        processes: number of processes of the run; by default that of `cfg.launcher`.
        trust: read checkpoints that hold Python objects, which executes code from the files.
        workers: number of processes that decode images; by default one for each CPU.
        model: network of the run, for 'disk'.
        loaded: list to which datasets are added whose lists are read, for
            :func:`gcp_mm.runtime.launch`.

    Yields:
        Each finding as soon as it is known. A mistake in the config is a finding with the status
        'error', not an exception.
    """
    if processes is None:
        processes = world_size(cfg.get('launcher', 'none'))
    if isinstance(cfg.get('model', {}).get('module'), dict):  # wrapped for test-time augmentation
        if split == 'train':
            text = (
                f'model.type={cfg.model.type!r} is for tests: train with model.module as the model'
            )
            yield Finding('network', 'error', f'{text}, and give --tta to tools/test.py')
            return
        cfg = Config({**cfg, 'model': cfg.model.module})
    context = Context(cfg, split, processes, trust, workers, level, model=model)
    for check in LEVELS[level]:
        if split != 'train' and check in TRAINING:
            continue
        yield from run_check(check, context)
        if check is check_packages and context.errors:
            return  # the later ones can say nothing
    if loaded is not None:
        opened = [each for datasets in context.datasets.values() for each in datasets]
        files = [each for each in opened if depends_on_files_alone(each.dataset)]
        loaded += [each for each in files if each.dataset._fully_initialized]


def run_check(check: Callable[[Context], Iterable[Finding]], context: Context) -> Iterator[Finding]:
    """Yield what a check finds, and keep the errors in the context, for later checks."""
    for finding in _guarded(check, context):
        if finding.status == 'error':
            context.errors.append(finding)
        yield finding


def _guarded(check, context) -> Iterator[Finding]:
    """What a check finds; an exception, of a class that the config names, is an error."""
    try:
        with DefaultScope.overwrite_default_scope(context.scope):
            findings = check(context)
        yield from findings
    except Exception as error:
        name = check.__name__.removeprefix('check_')
        yield Finding(name, 'error', f'{type(error).__name__}: {error}')
