"""Evaluation of a checkpoint on whole benchmarks, part by part, each kept as soon as it is done."""

import hashlib
import json
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.runner import Runner

from .._io import sha256, write_atomically
from ..checkpoints import load_pretrained
from ..checks import check_config, raise_errors
from ..runtime import launch, load_config, unwrap
from .baseline import Robustness
from .errors import CORRUPTIONS, EXTRA_CORRUPTIONS, SEVERITIES
from .stability import PERTURBATIONS, VALIDATION_PERTURBATIONS

# What a config says about training, which evaluation has no use for. custom_hooks: a hook such as
# EMAHook would put other weights in place of the checkpoint's.
TRAINING = (
    *('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler', 'auto_scale_lr'),
    *('val_dataloader', 'val_cfg', 'val_evaluator', 'custom_hooks', 'resume'),
)
GENERATED = 'GENERATED.json'  # the stamp of tools/make_corruptions.py
FRAMES = 32  # about as many as a video has: a batch of images has room for 1/32 as many videos


@dataclass(frozen=True)
class Part:
    """What is evaluated at once.

    Args:
        key: its name in the results: 'clean', 'imagenet-c/fog/3' or 'imagenet-p/tilt'.
        dataset: config of its data set.
        metric: type of its metric.
    """

    key: str
    dataset: dict
    metric: str


def add_robustness_arguments(parser: ArgumentParser) -> None:
    """Add what :func:`evaluate` needs besides the common arguments and `checkpoint`."""
    parser.add_argument('--imagenet-c', metavar='ROOT', help='folder of <corruption>/<severity>/')
    parser.add_argument('--imagenet-p', metavar='ROOT', help='folder of <perturbation>/')
    parser.add_argument(
        '--clean',
        metavar='ROOT',
        help='folder of the classes of clean images, which Relative mCE needs',
    )
    parser.add_argument('--name', help='of the network in tables; by default the config')
    parser.add_argument(
        '--out',
        type=Path,
        help='JSON file of the results, resumed if it is there; by default robustness.json in the '
        'work dir',
    )
    parser.add_argument(
        '--classes',
        metavar='FILE',
        help='names of the class folders in the order of the outputs of the network, one a line; '
        "by default ImageNet's, or the folders there are",
    )
    parser.add_argument(
        '--crop-size', type=int, default=224, help='of all images; by default %(default)s'
    )
    parser.add_argument(
        '--resize',
        type=int,
        default=256,
        help='shorter edge to which the clean images are resized before they are cropped, 0 for '
        'as they are; by default %(default)s. Corrupted images are never resized',
    )
    parser.add_argument('--batch-size', type=int, help="by default the config's for testing")
    parser.add_argument(
        '--skip-bad',
        action='store_true',
        help='leave out, count and list files that are unreadable or give NaN, instead of stopping',
    )


def evaluate(args: Namespace) -> tuple[Path, dict] | None:
    """Evaluate a checkpoint on the parts of the benchmarks that the results do not hold yet.

    Args:
        args: of `add_run_arguments` and :func:`add_robustness_arguments`,
            and `checkpoint`.

    Returns:
        The file of the results, and the results; None in all but the first process of several.

    Raises:
        FileNotFoundError, ValueError: for wrong arguments, folders of another layout, or results
            of another evaluation in `args.out`; before anything is written.
        TypeError: if the config is not a classifier's.
        ValueError: for a file that cannot be evaluated, unless `args.skip_bad`.
    """
    if args.amp:
        raise ValueError('--amp: half precision makes ties of logits; leave it out')
    cfg = load_config(args.config, args.cfg_options, work_dir=args.work_dir, launcher=args.launcher)
    parts = find_parts(args)
    loader = cfg.get('test_dataloader') or {}
    batch_size = args.batch_size or loader.get('batch_size', 32)
    workers = loader.get('num_workers', 2)
    for key in TRAINING:
        cfg.pop(key, None)
    cfg.load_from = args.checkpoint
    cfg.test_cfg = dict(type='LogitsLoop')
    cfg.test_dataloader = dataloader(parts[0], batch_size, workers)
    cfg.test_evaluator = evaluator(parts[0])
    raise_errors(check_config(cfg, 'test'))
    if not Path(args.checkpoint).is_file():
        raise ValueError(
            f'checkpoint {args.checkpoint!r}: expected a local file; download it first'
        )
    out = args.out or Path(cfg.work_dir) / 'robustness.json'
    results = open_results(out, header(cfg, args))
    if args.name:
        results['name'] = args.name
    done = results['parts']
    if args.launcher == 'none' and all(part.key in done for part in parts):
        return out, results

    def run(runner):
        from mmpretrain.models import BaseClassifier  # seconds

        model = unwrap(runner.model)
        if not isinstance(model, BaseClassifier):
            raise TypeError(
                f'{args.config}: expected a classifier of MMPretrain, got {type(model).__name__}'
            )
        load_pretrained(model, args.checkpoint, trust=args.trust)
        shared = [done]  # the first process's: another machine may not see the file
        broadcast_object_list(shared)
        runner.call_hook('before_run')
        for number, part in enumerate(parts, 1):
            if part.key in shared[0]:
                continue
            runner.logger.info(f'{part.key} ({number} of {len(parts)})')
            done[part.key] = run_part(runner, part, batch_size, workers)
            if is_main_process():
                write_results(out, results)
        runner.call_hook('after_run')
        return (out, results) if is_main_process() else None

    return launch(cfg, run)


def run_part(runner: Runner, part: Part, batch_size: int, workers: int) -> dict:
    """Evaluate one part; returns its metrics without their prefix."""
    loop = runner.test_loop
    loop.dataloader = runner.build_dataloader(dataloader(part, batch_size, workers))
    loop.evaluator = runner.build_evaluator(evaluator(part))
    loop.evaluator.dataset_meta = loop.dataloader.dataset.metainfo
    scalars = runner.message_hub.log_scalars
    for key in [key for key in scalars if key.startswith('test/')]:
        del scalars[key]  # of the part before, which would be logged again
    return {key.split('/')[-1]: value for key, value in loop.run().items()}


def dataloader(part, batch_size, workers):
    """Config of a part's dataloader; `batch_size` counts images."""
    if part.dataset['type'] == 'ImageNetP':
        batch_size = max(1, batch_size // FRAMES)
    return dict(
        batch_size=batch_size,
        num_workers=workers,
        dataset=part.dataset,
        sampler=dict(type='DefaultSampler', shuffle=False),
        collate_fn=dict(type='pseudo_collate'),
    )


def evaluator(part):
    """Config of a part's metric."""
    return dict(type=part.metric, skip_bad=part.dataset['skip_bad'])


def find_parts(args: Namespace) -> list[Part]:
    """The parts that the roots hold, in the order of the benchmarks, the clean images first.

    Raises:
        FileNotFoundError, ValueError: if a root has another layout, or lacks a severity.
        ValueError: if no root is given.
    """
    common = dict(crop_size=args.crop_size, skip_bad=args.skip_bad)
    labelled = dict(common, classes=args.classes)
    parts = []
    if args.clean:
        check_folder(args.clean, '--clean', '<root>/<wnid>/*.JPEG')
        dataset = dict(
            type='ImageNetClean', data_root=args.clean, resize=args.resize or None, **labelled
        )
        parts.append(Part('clean', dataset, 'CorruptionError'))
    if args.imagenet_c:
        layout = '<root>/<corruption>/<severity>/<wnid>/*.JPEG'
        for name in known(args.imagenet_c, '--imagenet-c', layout, CORRUPTIONS + EXTRA_CORRUPTIONS):
            for severity in SEVERITIES:
                check_folder(Path(args.imagenet_c, name, str(severity)), '--imagenet-c', layout)
                dataset = dict(
                    type='ImageNetC', data_root=args.imagenet_c, corruption=name, **labelled
                )
                key = f'imagenet-c/{name}/{severity}'
                parts.append(Part(key, dict(dataset, severity=severity), 'CorruptionError'))
    if args.imagenet_p:
        layout = '<root>/<perturbation>/<wnid>/<stem>.mp4'
        names = PERTURBATIONS + VALIDATION_PERTURBATIONS
        for name in known(args.imagenet_p, '--imagenet-p', layout, names):
            check_folder(Path(args.imagenet_p, name), '--imagenet-p', layout)
            dataset = dict(type='ImageNetP', data_root=args.imagenet_p, perturbation=name, **common)
            parts.append(Part(f'imagenet-p/{name}', dataset, 'PerturbationStability'))
    if not parts:
        raise ValueError('nothing to evaluate: give --imagenet-c, --imagenet-p or --clean')
    return parts


def known(root: str, option: str, layout: str, names: Iterable[str]) -> list[str]:
    """Which of `names` the folders in `root` are.

    Raises:
        FileNotFoundError, ValueError: if none.
    """
    folders = check_folder(root, option, layout)
    found = [name for name in names if name in folders]
    if not found:
        raise ValueError(
            f'{option}: the folders in {root!r} ({", ".join(folders[:5])}, ...) are none of '
            f'{", ".join(names)}; expected {layout}'
        )
    return found


def check_folder(folder: str | Path, option: str, layout: str) -> list[str]:
    """Names of the folders in a folder, sorted.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it holds none.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f'{option}: there is no folder {str(folder)!r}; expected {layout}')
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    if not names:
        raise ValueError(f'{option}: {str(folder)!r} holds no folders; expected {layout}')
    return names


def header(cfg: Config, args: Namespace) -> dict:
    """What the results are of, before there are any."""
    model = dict(model=cfg.model, data_preprocessor=cfg.get('data_preprocessor'))
    model = json.dumps(model, default=str, sort_keys=True)
    roots = {'clean': args.clean, 'imagenet-c': args.imagenet_c, 'imagenet-p': args.imagenet_p}
    roots = {key: Path(root).resolve() for key, root in roots.items() if root}
    return dict(
        name=args.name or Path(args.config).stem,
        config=str(args.config),
        checkpoint=str(args.checkpoint),
        # What results of two runs have to agree in to be put together
        identity=dict(
            checkpoint_sha256=sha256(args.checkpoint),
            model_sha256=hashlib.sha256(model.encode()).hexdigest(),
            classes=args.classes,
            crop_size=args.crop_size,
            resize=args.resize,
        ),
        roots={key: str(root) for key, root in roots.items()},
        regenerated=[key for key, root in roots.items() if (root / GENERATED).is_file()],
        parts={},
    )


def open_results(path: Path, fresh: dict) -> dict:
    """Results to go on from: those in a file if they are of the same evaluation, else `fresh`.

    Raises:
        ValueError: if the file holds something else; the message says in what it differs.
    """
    if not path.exists():
        return fresh
    results = read_results(path)
    for section in ('identity', 'roots'):
        old, new = results[section], fresh[section]
        for key in new:
            if key in old and old[key] != new[key]:
                raise ValueError(
                    f'{path} holds results of another evaluation: its {key} is {old[key]}, and '
                    f'not {new[key]}; name another file with --out, or remove it'
                )
    results['roots'].update(fresh['roots'])
    results['regenerated'] = sorted({*results['regenerated'], *fresh['regenerated']})
    return results


def read_results(path: str | Path) -> dict:
    """Read what :func:`evaluate` wrote.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is something else.
    """
    try:
        results = json.loads(Path(path).read_text())
    except ValueError as error:
        raise ValueError(f'{path} is no JSON file: {error}') from error
    if (
        not isinstance(results, dict)
        or not {'identity', 'roots', 'regenerated', 'parts'} <= results.keys()
    ):
        raise ValueError(f'{path} holds no results of tools/test_robustness.py')
    return results


def write_results(path: Path, results: dict) -> None:
    """Write a file that :func:`read_results` reads, and that is whole at any moment."""
    write_atomically(path, (json.dumps(results, indent=2) + '\n').encode())


def robustness_of(results: dict) -> Robustness:
    """The raw numbers in results; a corruption of which a severity is missing is left out."""
    parts = results['parts']
    errors, flips, distances = {}, {}, {}
    for name in CORRUPTIONS + EXTRA_CORRUPTIONS:
        keys = [f'imagenet-c/{name}/{severity}' for severity in SEVERITIES]
        if all(key in parts for key in keys):
            errors[name] = [parts[key]['error'] for key in keys]
    for name in PERTURBATIONS + VALIDATION_PERTURBATIONS:
        if part := parts.get(f'imagenet-p/{name}'):
            flips[name], distances[name] = part['flip_probability'], part['top5_distance']
    source = f'{results["checkpoint"]}, SHA-256 {results["identity"]["checkpoint_sha256"]}'
    return Robustness(
        name=results['name'],
        provenance=dict(checkpoint=source, **results['roots'], regenerated=results['regenerated']),
        clean_error=parts['clean']['error'] if 'clean' in parts else None,
        corruption_error=errors,
        flip_probability=flips,
        top5_distance=distances,
    )
