from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = next(
    line.split("'")[1]
    for line in (ROOT / 'gcp_mm/__init__.py').read_text().splitlines()
    if line.startswith('__version__')
)

# README.md is for the repository: its links and pictures are relative.
DESCRIPTION = (
    'Global covariance pooling as a PyTorch layer, a neck of MMPretrain and backbones of '
    'MMDetection, with the networks of "What Deep CNNs Benefit from Global Covariance Pooling: An '
    'Optimization Perspective" (CVPR 2020, https://arxiv.org/abs/2003.11241).'
)

# What the tools need beside OpenMMLab's packages, which bring most of it.
TOOLS = ['torchvision', 'matplotlib', 'packaging', 'scikit-learn', 'scipy', 'tqdm']

setup(
    name='gcp_mm',
    version=VERSION,
    description='Second-order (covariance) pooling for PyTorch, MMPretrain and MMDetection',
    long_description=DESCRIPTION,
    author='gcp_mm contributors',
    license_expression='Apache-2.0',
    keywords=[
        *('global covariance pooling', 'second-order pooling', 'iSQRT-COV', 'image classification'),
        *('object detection', 'instance segmentation', 'PyTorch', 'OpenMMLab'),
    ],
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Developers',
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX :: Linux',
        'Programming Language :: C++',
        'Programming Language :: Python :: 3',
        *(f'Programming Language :: Python :: 3.{minor}' for minor in range(10, 14)),
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
        'Topic :: Scientific/Engineering :: Image Recognition',
        'Typing :: Typed',
    ],
    packages=[*find_packages(include=['gcp_mm', 'gcp_mm.*']), 'gcp_mm.configs'],
    package_dir={'gcp_mm.configs': 'configs'},  # beside the package here, in it once installed
    package_data={
        'gcp_mm': ['py.typed'],
        'gcp_mm.configs': ['*/*.py', '*/*/*.py', '*/metafile.yml'],
        'gcp_mm.ops': ['circuits.json', 'circuit_cpu.cpp'],
        'gcp_mm.robustness': ['alexnet.json', 'imagenet_wnids.txt'],
    },
    python_requires='>=3.10',
    install_requires=['torch>=2.1', 'numpy'],  # gcp_mm.ops needs no more
    extras_require={
        # MMPretrain and MMDetection. Their fork has the same import names: install one of them.
        'mm': [
            'mmcv-lite>=2.1,<2.2',
            'mmengine>=0.10.4,<1',
            'mmdet>=3.3,<3.4',
            'mmpretrain>=1.2,<1.3',
            'setuptools<81',  # mmengine imports its pkg_resources
            *TOOLS,
        ],
        'onedl': [
            'onedl-mmcv>=2.3.6,<2.4',
            'onedl-mmengine>=0.10.12,<0.11',
            'onedl-mmdetection>=3.5.1,<3.6',
            'onedl-mmpretrain>=1.3.6,<1.4',
            *TOOLS,
        ],
        'extension': ['ninja'],
        'export': ['onnx', 'onnxruntime', 'onnxscript'],  # for tools/export.py OUT.onnx
        'robustness': ['imagecorruptions-imaug'],  # for tools/make_corruptions.py
        'landscape': ['curvlinops-for-pytorch>=3.0,<3.1'],  # for tools/landscape.py
        'test': [
            *('pytest', 'pytest-xdist', 'hypothesis', 'coverage', 'import-linter'),
            *('mypy', 'ninja', 'pre-commit', 'pre-commit-hooks', 'ruff', 'timm', 'tox'),
        ],
        'docs': ['sphinx', 'myst-nb', 'furo', 'sphinx-copybutton'],  # for `make docs`
    },
)
