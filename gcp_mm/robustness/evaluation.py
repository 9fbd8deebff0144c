"""Evaluation of a checkpoint on the benchmarks, part by part; each result is saved at once."""

from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.evaluator import Evaluator
from mmengine.runner import Runner

from ..checkpoints import load_pretrained
from ..checks import check_config, raise_errors
from ..hub import input_channels
from ..runtime import launch, only_job, show_summary, unwrap
from .errors import CORRUPTIONS, EXTRA_CORRUPTIONS, SEVERITIES
from .results import check_files, files_hash, new_results, resume_results, write_results
from .stability import PERTURBATIONS

# Settings of a training: mmengine takes all or none of them, a config such as AlexNet's has some.
# custom_hooks: a hook such as EMAHook would replace the weights.
TRAINING = (
    *('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler', 'auto_scale_lr'),
    *('val_dataloader', 'val_cfg', 'val_evaluator', 'custom_hooks', 'resume'),
)
# Folders of the parts by benchmark
FOLDERS = {
    'clean': [''],
    'imagenet-c': [f'{name}/{s}' for name in CORRUPTIONS + EXTRA_CORRUPTIONS for s in SEVERITIES],
    'imagenet-p': PERTURBATIONS,
}
FRAMES = 32  # about as many as a video has: a batch of images has room for 1/32 as many videos


def evaluate(
    cfg: Config,
    checkpoint: str | Path,
    *,
    clean: str | None = None,
    imagenet_c: str | None = None,
    imagenet_p: str | None = None,
    out: str | Path | None = None,
    crop_size: int = 224,
    resize: int | None = 256,
    skip_bad: bool = False,
    trust: bool = False,
) -> tuple[Path, dict] | None:
    """Evaluate a checkpoint on the parts of the benchmarks that the results do not hold yet.

    Args:
        cfg: config of a classifier of MMPretrain, of :func:`gcp_mm.runtime.load_config`; changed
            in place.
        checkpoint: local file of its weights.
        clean: folder of clean images, ``<class>/<image>``.
        imagenet_c: folder of ``<corruption>/<1..5>/<class>/<image>``.
        imagenet_p: folder of ``<perturbation>/<class>/<sequence>``.
        out: JSON file of the results, resumed if it exists; by default robustness.json in the work
            dir.
        crop_size: width and height of all images.
        resize: shorter edge of the clean images before the crop; None or 0 leaves them as they are.
        skip_bad: leave out and list files that are unreadable or give NaN.
        trust: read a checkpoint that holds Python objects, which executes what is in it.

    Returns:
        The file of the results, and the results; None in all but the first of several processes.

    Raises:
        BlockingIOError: if another process writes `out`.
        FileNotFoundError, ValueError: for wrong arguments, a root without a part of its benchmark,
            or results of another evaluation or of other files in `out`; before anything is written.
        TypeError: if the network does not give one vector of logits per image.
        ValueError: if it does not take images of three channels; for a file that cannot be
            evaluated, unless `skip_bad`.
    """
    roots = {'clean': clean, 'imagenet-c': imagenet_c, 'imagenet-p': imagenet_p}
    roots = {key: root for key, root in roots.items() if root}
    settings = dict(crop_size=crop_size, resize=resize)
    loader = cfg.get('test_dataloader') or {}
    batch_size, workers = loader.get('batch_size', 32), loader.get('num_workers', 2)
    folders = find_parts(roots)
    parts = {
        key: part_config(key, folder, batch_size, workers, skip_bad=skip_bad, **settings)
        for key, folder in folders.items()
    }
    set_checkpoint(cfg, checkpoint)
    cfg.test_cfg = dict(type='LogitsLoop')
    cfg.test_dataloader, cfg.test_evaluator = next(iter(parts.values()))
    raise_errors(check_config(cfg, 'test'))
    out = Path(out or Path(cfg.work_dir, 'robustness.json'))
    with only_job(cfg, out):
        results = resume_results(out, new_results(cfg, checkpoint, roots, **settings))
        check_files(out, results, folders)

        def measure(runner, key):
            if is_main_process():
                results.setdefault('files', {})[key] = files_hash(folders[key])
            found = run_part(runner, *parts[key])
            found = {name.split('/')[-1]: value for name, value in found.items()}
            (metric,) = runner.test_loop.evaluator.metrics
            return dict(found, groups=metric.groups) if metric.groups else found

        return run_missing(cfg, checkpoint, out, results, parts, measure, trust=trust)


def set_checkpoint(cfg: Config, checkpoint: str | Path) -> None:
    """Set the checkpoint to evaluate, and leave out of a config what training needs, in place."""
    for key in TRAINING:
        cfg.pop(key, None)
    cfg.load_from = str(checkpoint)


def run_missing(
    cfg: Config,
    checkpoint: str | Path,
    out: Path,
    results: dict,
    parts: Collection[str],
    measure: Callable[[Runner, str], dict],
    prepare: Callable[[Runner], None] = lambda runner: None,
    trust: bool = False,
) -> tuple[Path, dict] | None:
    """Evaluate the parts that results lack, and write the results after each.

    Args:
        cfg: config of a test.
        checkpoint, out, trust: as of :func:`evaluate`.
        results: of :func:`.results.resume_results`; its `parts` are added to.
        parts: names of all parts, in their order.
        measure: function of the Runner and a part that returns its numbers, in every process.
        prepare: function of the Runner that is called in every process before the first part.

    Returns:
        As :func:`evaluate`.
    """
    done = results['parts']
    if cfg.launcher == 'none' and set(parts) <= done.keys():
        return out, results

    def run(runner):
        model = unwrap(runner.model)
        if input_channels(model) != 3:
            raise ValueError(f'model: it takes {input_channels(model)} channels, the images have 3')
        load_pretrained(model, str(checkpoint), trust=trust)
        shared = [dict(done)]  # the first process's: another machine may not see the file
        broadcast_object_list(shared)
        done.clear()
        done.update(shared[0])
        runner.call_hook('before_run')
        show_summary(runner)
        prepare(runner)
        for number, key in enumerate(parts, 1):
            if key in done:
                continue
            runner.logger.info(f'{key} ({number} of {len(parts)})')
            done[key] = measure(runner, key)
            if is_main_process():
                write_results(out, results)
        runner.call_hook('after_run')
        return (out, results) if is_main_process() else None

    return launch(cfg, run)


def run_part(runner: Runner, dataloader: dict, evaluator: dict | Evaluator) -> dict:
    """Evaluate one part; returns its metrics."""
    loop = runner.test_loop
    loop.dataloader = runner.build_dataloader(dataloader)
    loop.evaluator = runner.build_evaluator(evaluator)
    loop.evaluator.dataset_meta = loop.dataloader.dataset.metainfo
    for logged in (runner.message_hub.log_scalars, runner.message_hub.runtime_info):
        for key in [key for key in logged if key.startswith('test/')]:
            del logged[key]  # of the part before, which would be logged again
    return loop.run()


def part_config(
    key: str,
    folder: Path,
    batch_size: int,
    workers: int,
    *,
    crop_size: int = 224,
    resize: int | None = None,
    skip_bad: bool = False,
) -> tuple[dict, dict]:
    """Configs of a part's dataloader and metric.

    Args:
        key, folder: name of the part and its folder, of :func:`find_parts`.
        batch_size: images per batch; of videos, each counts as 32.
        workers: number of processes that load the files.
        crop_size, resize, skip_bad: as of :func:`evaluate`.
    """
    videos = key.startswith('imagenet-p/')
    dataset = dict(
        type='ImageNetP' if videos else 'ImageNetC',
        data_root=str(folder),
        crop_size=crop_size,
        skip_bad=skip_bad,
    )
    if key == 'clean':
        dataset['resize'] = resize
    dataloader = dict(
        batch_size=max(1, batch_size // FRAMES) if videos else batch_size,
        num_workers=workers,
        dataset=dataset,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='pseudo_collate'),
    )
    metric = 'PerturbationStability' if videos else 'CorruptionError'
    return dataloader, dict(type=metric, skip_bad=skip_bad)


def find_parts(roots: Mapping[str, str]) -> dict[str, Path]:
    """Folders of the parts in the roots, by name such as 'imagenet-c/fog/1', in benchmark order.

    Args:
        roots: folder by benchmark of `FOLDERS`.

    Raises:
        FileNotFoundError: if a root is absent, or lacks a severity or its class folders.
        ValueError: if there is no root, or one holds no part.
    """
    if not roots:
        raise ValueError('nothing to evaluate: give clean, imagenet_c or imagenet_p')
    parts = {}
    for benchmark, root in roots.items():
        root = Path(root).expanduser()
        found = sorted(path.name for path in root.iterdir())
        names = [name for name in FOLDERS[benchmark] if name.split('/')[0] in ['', *found]]
        if not names:
            raise ValueError(
                f'{benchmark}: {str(root)!r} holds {", ".join(found[:5]) or "nothing"}; expected '
                f'folders such as {FOLDERS[benchmark][0]}'
            )
        for name in names:
            folder = root / name
            if not any(path.is_dir() for path in folder.glob('*')):
                raise FileNotFoundError(
                    f'{benchmark}: there are no class folders in {str(folder)!r}'
                )
            parts[f'{benchmark}/{name}'.rstrip('/')] = folder
    return parts
