"""mmengine's own reading of files, such that none of them runs code."""

from typing import IO, Any, NoReturn

import yaml
from mmengine.fileio import register_handler
from mmengine.fileio.handlers import PickleHandler, YamlHandler
from mmengine.runner import CheckpointLoader

from .reading import read_checkpoint

# libyaml's parser, which mmengine uses too: each `mmpretrain::` base reads 85 YAML files.
_SafeLoader: Any = getattr(yaml, 'CSafeLoader', yaml.SafeLoader)


class _Loader(_SafeLoader):
    """Of plain values and tuples, which YAML's writer makes a tag of."""

    def construct_tuple(self, node: yaml.SequenceNode) -> tuple:
        return tuple(self.construct_sequence(node, deep=True))


_Loader.add_constructor('tag:yaml.org,2002:python/tuple', _Loader.construct_tuple)


class _SafeYamlHandler(YamlHandler):
    def load_from_fileobj(self, file: IO, **kwargs: Any) -> Any:
        return super().load_from_fileobj(file, **{**kwargs, 'Loader': _Loader})


class _RefusingPickleHandler(PickleHandler):
    def load_from_fileobj(self, file: IO, **kwargs: Any) -> NoReturn:
        raise ValueError(
            'a file to be read is a pickle, which can execute code as it is read: save its content '
            'as JSON or, if you trust where it comes from, give --trust'
        )


def install_safe_readers(trust: bool = False) -> None:
    """Replace mmengine's readers of files by readers that do not run code, in this process.

    mmengine's Runner then loads and resumes checkpoints with
    :func:`gcp_mm.checkpoints.read_checkpoint`, for paths and addresses. Other pickles, such as
    annotations in a ``.pkl``, are refused, and YAML is read as plain values. Some datasets read
    pickles without mmengine's readers: docs/guides/weights.md lists them.

    Args:
        trust: whether the files may run code, see :func:`gcp_mm.checkpoints.read_checkpoint`.
    """

    def load(filename: str, map_location: Any = None) -> Any:
        return read_checkpoint(filename, map_location, trust)

    for prefix in list(CheckpointLoader._schemes):  # its own readers of some fall back to pickle
        CheckpointLoader.register_scheme(prefix, load, force=True)
    register_handler(['yaml', 'yml'])(YamlHandler if trust else _SafeYamlHandler)
    register_handler(['pickle', 'pkl'])(PickleHandler if trust else _RefusingPickleHandler)
