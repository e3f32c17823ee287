"""Real models and data behind one small interface: a name in, arrays, classes and licence out."""

from __future__ import annotations

from pockengine.tasks.catalogue import load_task, task_names
from pockengine.tasks.images import image_folder
from pockengine.tasks.mini_lm import EncoderShape, MiniLM, mini_lm
from pockengine.tasks.mobilenet_v2 import MobileNetV2, mobilenet_v2
from pockengine.tasks.pictures import IMAGENET, Preprocessing, prepare_images
from pockengine.tasks.small import small_cnn, small_encoder
from pockengine.tasks.smol_lm import DecoderShape, SmolLM, smol_lm, smol_lm_tokenizer
from pockengine.tasks.task import Task, take
from pockengine.tasks.texts import text_csv
from pockengine.tasks.wordpiece import bert_vocabulary, encode_texts, word_vocabulary

__all__ = [
    "IMAGENET",
    "DecoderShape",
    "EncoderShape",
    "MiniLM",
    "MobileNetV2",
    "Preprocessing",
    "SmolLM",
    "Task",
    "bert_vocabulary",
    "encode_texts",
    "image_folder",
    "load_task",
    "mini_lm",
    "mobilenet_v2",
    "prepare_images",
    "small_cnn",
    "small_encoder",
    "smol_lm",
    "smol_lm_tokenizer",
    "take",
    "task_names",
    "text_csv",
    "word_vocabulary",
]
