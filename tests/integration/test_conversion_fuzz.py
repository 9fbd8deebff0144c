"""The converter on inputs that nobody planned: it converts rightly, or names the file and why."""

import functools
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gcp_mm.checkpoints import convert_checkpoint, read_checkpoint
from tests.helpers.foreign_networks import build, trainer_state

# The smallest network of each kind
SOURCES = {
    'resnet': lambda: build('resnet18', 'gcp', d=8).state_dict(),
    'trainer': lambda: trainer_state(build('resnet18', 'gap')),
    'mobilenet': lambda: build('mobilenet_v2', 'gap').state_dict(),
    'shufflenet': lambda: build('shufflenet_v2', 'gcp', d=8).state_dict(),
}
fuzz = functools.partial(settings, deadline=None, derandomize=True)


@functools.cache
def source(kind):
    """Weights by their foreign names, each of one number of its own, which makes small files."""
    state = SOURCES[kind]()
    return {
        key: torch.tensor(i).to(value.dtype).expand(value.shape)
        for i, (key, value) in enumerate(state.items())
    }


@functools.cache
def names(kind):
    """{our name: the foreign one}; that this is right, test_conversion proves by the scores."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'a.pth')
        torch.save(source(kind), path)
        ours = read_checkpoint(convert_checkpoint(path, Path(folder, 'b.pth')))['state_dict']
    foreign = {int(value.flatten()[0]): key for key, value in source(kind).items()}
    return {key: foreign[int(value.flatten()[0])] for key, value in ours.items()}


def of_type(dtype):
    return lambda value: value.to(dtype)


STRANGE = {
    'float64': of_type(torch.float64),
    'bfloat16': of_type(torch.bfloat16),
    'integers': of_type(torch.int32),
    'bool': of_type(torch.bool),
    'complex': of_type(torch.complex64),
    'sparse': lambda value: value.clone().to_sparse(),
    'meta': lambda value: value.to('meta'),
    'empty': lambda value: value.new_zeros(0),
    'scalar': lambda value: value.new_zeros(()),
    'transposed': lambda value: value.clone().mT if value.ndim > 1 else value,
    'flat': lambda value: value.clone().flatten(),
    'one more': lambda value: torch.cat([value, value[:1]]) if value.ndim else value,
    'parameter': lambda value: torch.nn.Parameter(value.clone(), value.is_floating_point()),
    'number': lambda value: 1.0,
    'none': lambda value: None,
    'list': lambda value: value.flatten()[:4].tolist(),
    'nested': lambda value: {'weight': value},
}


LETTERS = st.text('abcwx.019_', max_size=12)


@st.composite
def changed(draw, kind):
    """Weights with a few changes, and their names before them."""
    state = dict(source(kind))
    for _ in range(draw(st.sampled_from([0, 1, 1, 2, 3]))):
        keys = sorted(state, key=str)
        if not keys:
            break
        key = draw(st.sampled_from(keys))
        change = draw(st.sampled_from(['rename', 'drop', 'extra', 'copy', 'swap', 'key', *STRANGE]))
        if change == 'rename':
            state[draw(LETTERS)] = state.pop(key)
        elif change == 'drop':
            del state[key]
        elif change == 'extra':
            state[f'{key}{draw(LETTERS)}'] = torch.zeros(3)
        elif change == 'copy':
            prefix = draw(st.sampled_from(['module.', 'backbone.', 'features.', '']))
            state[f'{prefix}{key}'] = state[key]
        elif change == 'swap':
            other = draw(st.sampled_from(keys))
            state[key], state[other] = state[other], state[key]
        elif change == 'key':
            name = draw(st.sampled_from([0, None, ('conv1', 'weight'), b'conv1.weight']))
            state[name] = state[key]
        elif isinstance(state[key], torch.Tensor):
            state[key] = STRANGE[change](state[key])
    return state


@st.composite
def wrapped(draw, state):
    """What a trainer may write around the weights."""
    prefix = draw(st.sampled_from(['', '', 'module.', 'module.', 'module.module.']))
    if prefix and all(isinstance(key, str) for key in state):
        state = {prefix + key: value for key, value in state.items()}
    kind = draw(st.sampled_from(['plain', 'plain', 'state_dict', 'state_dict', 'meta', 'other']))
    if kind == 'plain':
        return state
    if kind == 'other':
        return draw(st.sampled_from([[state], (), None, 3, 'x', torch.zeros(2), {'net': state}]))
    meta = st.sampled_from([None, {}, [], {'vector_layout': 3}, {'vector_layout': None}])
    return dict(state_dict=state, **({'meta': draw(meta)} if kind == 'meta' else {}))


@pytest.mark.slow
@pytest.mark.parametrize('kind', SOURCES)
def test_any_change_of_a_checkpoint(kind):
    @fuzz(max_examples=80)
    @given(st.data())
    def check(data):
        state = data.draw(changed(kind))
        content = data.draw(wrapped(state))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, 'source.pth')
            torch.save(content, path)
            before = path.read_bytes()
            target = refusal(convert, path)
            converted.append(not isinstance(target, str))
            if isinstance(target, str):
                assert str(path) in target
                assert [file.name for file in Path(folder).iterdir()] == ['source.pth']
            else:
                assert sorted(Path(folder).iterdir()) == sorted([path, target])
                check_weights(read_checkpoint(target)['state_dict'], state, kind)
            assert path.read_bytes() == before

    converted = []
    check()
    assert 5 < sum(converted) < len(converted) - 5  # both ways are taken


def check_weights(ours, state, kind):
    """Every tensor of ours is the one with its foreign name, dense and of its kind of number."""
    foreign = names(kind)
    assert ours.keys() == foreign.keys()
    assert len(state) == len([key for key in foreign if foreign[key] in state])
    for key, value in ours.items():
        original = source(kind)[foreign[key]]
        assert value.shape == original.shape
        assert value.layout == torch.strided
        assert value.is_floating_point() == original.is_floating_point()
        if foreign[key] in state:
            assert torch.equal(value, state[foreign[key]])
        else:
            assert key.endswith('num_batches_tracked')
            assert value == 0


def refusal(function, path):
    """What a function gives, or the words of its ValueError; no other error is expected."""
    try:
        return function(path)
    except ValueError as error:
        return str(error)


def convert(path):
    return convert_checkpoint(path, path.with_name('ours.pth'))
