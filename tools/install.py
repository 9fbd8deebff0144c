"""Set up a virtual environment with gcp_mm and one family of OpenMMLab packages.

    python3 tools/install.py --family onedl --venv .venv-onedl

mmcv has compiled operators and few prebuilt wheels. In order, this takes a wheel built by an
earlier run, one that pip can find (PIP_FIND_LINKS, PIP_EXTRA_INDEX_URL and, for OpenMMLab's own
mmcv, its download page), or builds one from source and keeps it under
${XDG_CACHE_HOME:-~/.cache}/gcp_mm/wheels. Only the standard library is used.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import venv
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NEWEST_PYTHON = {'onedl': (3, 12), 'openmmlab': (3, 11)}
MMCV = {'onedl': 'onedl-mmcv', 'openmmlab': 'mmcv'}
# The installed mmcv.ops load, and run on the GPU if there is one.
CHECK_MMCV = """
import torch
from mmcv.ops import get_compiling_cuda_version, nms
if {cuda} and get_compiling_cuda_version() == 'not available':
    raise SystemExit('this mmcv was compiled without CUDA')
"""
LOOKUP_LIMIT = 20  # seconds
# From 77 on it reads the fork's metadata; up to 80 it has pkg_resources, which both mmcv import.
SETUPTOOLS = 'setuptools>=77,<81'


def say(text):
    print(f'[install] {text}', flush=True)


class Installer:
    def __init__(self, family, target):
        self.family = family
        self.target = target
        self.python = target / 'bin/python'
        self.constraints = ROOT / 'requirements' / f'{family}.txt'
        pins = dict(re.findall(r'^([\w-]+)==(\S+)', self.constraints.read_text(), re.M))
        self.mmcv = f'{MMCV[family]}=={pins[MMCV[family]]}'
        self.others = [name for name in pins if 'mm' in name and name != MMCV[family]]

    def run(self):
        self.check_machine()
        say(f'virtual environment {self.target} with the {self.family} family')
        venv.create(self.target, with_pip=True, clear=True)
        say('PyTorch (a few GB on Linux, where PyPI has the CUDA build: some minutes)')
        self.pip(
            *('install', SETUPTOOLS, 'wheel', 'ninja', 'psutil', 'torch', 'torchvision'), show=True
        )
        say(f'{", ".join(self.others)}')
        self.pip('install', *self.others, show=True)
        self.install_mmcv()
        say('gcp_mm')
        self.pip('install', '--no-build-isolation', '-e', f'{ROOT}[{self.family},robustness,test]')
        self.call('-c', 'import gcp_mm, mmdet.models, mmpretrain.models')
        say('done')

    def check_machine(self):
        target = self.target
        if target.exists() and any(target.iterdir()) and not (target / 'pyvenv.cfg').is_file():
            raise SystemExit(
                f'[install] {target} exists and is no virtual environment; name another folder'
            )
        header = Path(sysconfig.get_paths()['include']) / 'Python.h'
        missing = [
            what
            for what, there in (
                ('the modules venv and ensurepip (python3-venv)', find_spec('ensurepip')),
                ('a C++ compiler (g++)', shutil.which(os.environ.get('CXX', 'g++'))),
                ("Python's headers (python3-dev)", header.is_file()),
            )
            if not there
        ]
        if missing:
            raise SystemExit(f'[install] this needs {", ".join(missing)}')

    def install_mmcv(self):
        self.torch = self.ask(
            'import torch; print(torch.__version__.split("+")[0], torch.version.cuda or "cpu",'
            ' int(torch.cuda.is_available()))'
        ).split()
        has_gpu, has_nvcc = self.torch[2] == '1', self.find_nvcc() is not None
        self.cuda = has_gpu and has_nvcc
        cache = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache')
        kind = f'torch{self.torch[0]}-{f"cu{self.torch[1]}" if self.cuda else "cpu"}'
        kept = cache / 'gcp_mm/wheels' / kind

        # A wheel says nothing of the PyTorch it was compiled against, so each is tried out.
        if self.try_wheel(
            f'a wheel in {kept} or PIP_FIND_LINKS', '--no-index', '--find-links', kept
        ):
            return
        if self.try_wheel('a prebuilt wheel', *self.wheel_page()):
            return
        if has_gpu and not has_nvcc:
            say('WARNING: there is a GPU but no nvcc: building for the CPU only, so detection')
            say('will not run on the GPU. Install the CUDA toolkit and run this again.')
        self.build_wheel(kept)
        self.pip('install', '--no-index', '--no-deps', '--find-links', kept, self.mmcv)
        self.call('-c', CHECK_MMCV.format(cuda=self.cuda))

    def try_wheel(self, what, *where):
        """Install mmcv from a wheel found at `where` if there is one that works."""
        say(f'{self.mmcv}: looking for {what}')
        attempt = self.pip(
            *('install', '--only-binary', ':all:', '--no-deps', '--retries', '0', '--timeout'),
            *('15', *where, self.mmcv),
            check=False,
        )
        if attempt.returncode != 0:
            say(f'{self.mmcv}: there is none')
            return False
        works = self.call('-c', CHECK_MMCV.format(cuda=self.cuda), check=False)
        if works.returncode == 0:
            say(f'{self.mmcv}: found one that works')
            return True
        reason = (works.stderr.strip().splitlines() or ['no message'])[-1]
        say(f'{self.mmcv}: the wheel found does not work here ({reason})')
        self.pip('uninstall', '-y', MMCV[self.family])
        return False

    def wheel_page(self):
        """pip's option for OpenMMLab's page of wheels, if this machine has a way to it."""
        if self.family != 'openmmlab':
            return ()
        version, cuda = self.torch[0], self.torch[1]
        kind = 'cpu' if cuda == 'cpu' else f'cu{cuda.replace(".", "")}'
        page = (
            f'https://download.openmmlab.com/mmcv/dist/{kind}/'
            f'torch{".".join(version.split(".")[:2])}/index.html'
        )
        # In a process of its own: a name look-up that hangs heeds no time-out in this one.
        probe = f'import urllib.request; urllib.request.urlopen({page!r}, timeout={LOOKUP_LIMIT})'
        try:
            reached = self.call('-c', probe, check=False, timeout=LOOKUP_LIMIT).returncode == 0
        except subprocess.TimeoutExpired:
            reached = False
        return ('--find-links', page) if reached else ()

    def build_wheel(self, kept):
        kept.mkdir(parents=True, exist_ok=True)
        log = self.target / 'mmcv-build.log'
        ops = 'CUDA and CPU' if self.cuda else 'CPU'
        say(f'{self.mmcv}: building it from source with {ops} operators; on 2 cores this takes')
        say(f'20-45 minutes. The wheel is kept in {kept}; the log is {log}')
        env = {
            **os.environ,
            'MMCV_WITH_OPS': '1',
            'FORCE_CUDA': str(int(self.cuda)),
            'MAX_JOBS': os.environ.get('MAX_JOBS', str(os.cpu_count())),
        }
        if not self.cuda:
            env['CUDA_VISIBLE_DEVICES'] = ''
        command = [
            *(self.python, '-m', 'pip', 'wheel', '-v', '--no-deps', '--no-build-isolation'),
            *('--no-binary', MMCV[self.family], '--wheel-dir', kept, self.mmcv),
        ]
        with log.open('w') as out:
            build = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=env)
            self.watch(build, log)
        if build.returncode != 0:
            print(*log.read_text().splitlines()[-30:], sep='\n')
            raise SystemExit(f'[install] building {self.mmcv} failed; the whole log is {log}')

    def watch(self, build, log):
        """Say once a minute how many files ninja has compiled."""
        start, told = time.monotonic(), 0
        while build.poll() is None:
            time.sleep(1)
            minutes = int(time.monotonic() - start) // 60
            if minutes > told:
                told = minutes
                steps = re.findall(r'\[(\d+/\d+)\]', log.read_text(errors='replace'))
                say(f'{self.mmcv}: {minutes} min, {steps[-1] if steps else 0} files compiled')

    def find_nvcc(self):
        home = os.environ.get('CUDA_HOME')
        return shutil.which('nvcc', path=f'{home}/bin' if home else None)

    def pip(self, *args, check=True, show=False):
        """Run pip; `show` lets its progress through."""
        return self.call(
            *('-m', 'pip', '--disable-pip-version-check', *(() if show else ('--quiet',)), *args),
            *(('--constraint', self.constraints) if args[0] == 'install' else ()),
            check=check,
            show=show,
        )

    def ask(self, code):
        return self.call('-c', code).stdout

    def call(self, *args, check=True, show=False, timeout=None):
        """Run the environment's Python; with `check`, stop at an error and show its output."""
        done = subprocess.run(
            [self.python, *args],
            capture_output=not show,
            text=True,
            timeout=timeout,
        )
        if check and done.returncode != 0:
            shown = ' '.join(str(arg) for arg in args)
            print(done.stdout or '', done.stderr or '', sep='\n')
            raise SystemExit(f'[install] this failed, with the output above: python {shown}')
        return done


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--family', choices=tuple(MMCV), default='onedl')
    parser.add_argument('--venv', type=Path, required=True, help='where; replaced if it exists')
    args = parser.parse_args()
    newest = NEWEST_PYTHON[args.family]
    if not (3, 10) <= sys.version_info[:2] <= newest:
        raise SystemExit(
            f'[install] the {args.family} family needs Python 3.10 to {newest[0]}.{newest[1]}, '
            f'and this is {sys.version.split()[0]}; name another: make PYTHON=python3.11 ...'
        )
    Installer(args.family, args.venv.resolve()).run()


if __name__ == '__main__':
    main()
