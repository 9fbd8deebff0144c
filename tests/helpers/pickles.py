"""Pickles that do more than say what their values are."""

import math
import os
import struct


class Creates:
    """Pickled, a call that creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


class Built:
    """Pickled, a call and, with a third argument, the state of what it gives."""

    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


def random_program(random, names):
    """A program of pickle that calls, makes and changes what `names` say, at random.

    The values are such as these functions take, with one of another kind now and then.
    """
    text = lambda word: b'X' + struct.pack('<I', len(word)) + word.encode()  # noqa: E731
    number = lambda n: b'J' + struct.pack('<i', n)  # noqa: E731
    name = lambda: b'c' + random.choice(names).replace('/', '\n').encode() + b'\n'  # noqa: E731

    def tuple_of(*parts):
        return b'(' + b''.join(parts) + b't'

    def value(depth=0):
        flat = [
            lambda: number(random.choice((0, 1, 2, 3, 8, -1, 2**31 - 1))),
            lambda: text(random.choice(('f8', 'i4', 'O', 'V8', '<', '|', 'latin1', 'a', 'mean'))),
            lambda: random.choice((b'N', b'\x88', b'\x89', b']', b'}', b')', b'U\x08' + b'A' * 8)),
            lambda: b'G' + struct.pack('>d', random.choice((0.5, math.nan))),
            lambda: b'\x8a\x09' + b'\xff' * 8 + b'\x00',
            name,
        ]
        deep = [
            lambda: tuple_of(*(value(depth + 1) for _ in range(random.randrange(4)))),
            lambda: b']' + value(depth + 1) + random.choice((b'a', b'(' + value(depth + 1) + b'e')),
            lambda: value(depth + 1) + value(depth + 1) + value(depth + 1) + b's',
            lambda: b'}(' + value(depth + 1) + value(depth + 1) + b'u',
            lambda: name() + tuple_of(*(value(2) for _ in range(random.randrange(7)))) + b'R',
            lambda: name() + b')\x81' + state() + b'b',
            lambda: kind(), array, history, tensor,
            lambda: array() + state() + b'b',
            lambda: kind() + state() + b'b',
        ]  # fmt: skip
        return random.choice(flat if depth > 1 else flat + 2 * deep)()

    def maybe(part):
        return value(1) if random.random() < 0.05 else part

    def kind():
        letter = random.choice(('f8', 'f4', 'i8', 'b1', 'O', 'V8'))
        made = b'cnumpy\ndtype\n' + tuple_of(maybe(text(letter)), b'\x89', b'\x88') + b'R'
        rest = [maybe(part) for part in (b'N', b'N', b'N', number(-1), number(-1), number(0))]
        return made + tuple_of(number(3), maybe(text('<')), *rest) + b'b'

    def raw():
        word = 'A' * random.choice((0, 8, 16))
        return b'c_codecs\nencode\n' + tuple_of(text(word), maybe(text('latin1'))) + b'R'

    def array():
        made = b'cnumpy.core.multiarray\n_reconstruct\n'
        made += tuple_of(maybe(b'cnumpy\nndarray\n'), tuple_of(number(0)), raw()) + b'R'
        shape = tuple_of(number(random.choice((0, 1, 2, -1))))
        return made + tuple_of(number(1), maybe(shape), maybe(kind()), b'\x89', maybe(raw())) + b'b'

    def history():
        state = text('max_length') + maybe(number(9)) + text('_log_history') + maybe(array())
        state += text('_count_history') + maybe(array())
        made = b'cmmengine.logging.history_buffer\nHistoryBuffer\n)\x81'
        return made + maybe(b'}(' + state + b'u') + b'b'

    def tensor():
        count = number(random.choice((0, 2, 4, 2**30)))
        storage = tuple_of(
            text('storage'), maybe(b'ctorch\nFloatStorage\n'), text('0'), text('cpu'), maybe(count)
        )
        size = tuple_of(number(random.choice((0, 2, 3, 2**30))))
        stride = tuple_of(number(random.choice((0, 1, 2, -1))))
        parts = [maybe(storage + b'Q'), number(0), maybe(size), maybe(stride), b'\x89', maybe(b'N')]
        return b'ctorch._utils\n_rebuild_tensor_v2\n' + tuple_of(*parts) + b'R'

    def state():
        return random.choice((array, kind, history, lambda: value(2)))()

    return b'\x80\x02' + value() + b'.'
