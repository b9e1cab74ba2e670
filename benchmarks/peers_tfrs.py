"""TensorFlow Recommenders' side of `benchmarks/peers`, run by that command in an environment of its own.

    python peers_tfrs.py PAIRS.npz

A line of JSON on standard input asks for one turn: {"way": "fit", "read": "lookups", "optimiser": "adam", "size": 1024,
"pairs": 32768}. The CPU seconds that it took are the line that comes back. The first line says the versions.

The model is that of TensorFlow Recommenders' tutorial on basic retrieval, without metrics. `lookups` reads texts
through StringLookup, as there; `codes` reads numbers, as the other side does. `fit` is Keras' loop over a cached
tf.data pipeline, as there; `graph` is a loop that is compiled as a whole, without Keras' callbacks.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import version

os.environ |= {"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs

DIM = 64
OPTIMISERS = {
    "adam": lambda: tf.keras.optimizers.Adam(0.001),
    "adagrad": lambda: tf.keras.optimizers.Adagrad(0.1),
}


def tower(names: np.ndarray, read: str) -> tf.keras.Model:
    """A table; in front of it, with `lookups`, the way from a text to its row."""
    lookup = [tf.keras.layers.StringLookup(vocabulary=names, mask_token=None)] if read == "lookups" else []
    return tf.keras.Sequential([*lookup, tf.keras.layers.Embedding(len(names) + 1, DIM)])


class Retrieval(tfrs.Model):
    """The tutorial's model."""

    def __init__(self, users: np.ndarray, items: np.ndarray, read: str) -> None:
        super().__init__()
        self.user, self.item = tower(users, read), tower(items, read)
        self.task = tfrs.tasks.Retrieval()

    def compute_loss(self, features: dict, training: bool = False) -> tf.Tensor:
        return self.task(self.user(features["user"]), self.item(features["item"]), compute_metrics=False)


def turns(events: dict[str, np.ndarray], way: str, read: str, optimiser: str, size: int, pairs: int) -> Callable:
    """What one turn does, compiled at its first call."""
    column = {name: rows.astype(str) if read == "lookups" else rows for name, rows in events.items()}
    model = Retrieval(*(np.unique(rows.astype(str)) for rows in events.values()), read)
    batches = tf.data.Dataset.from_tensor_slices({name: rows[:pairs] for name, rows in column.items()})
    batches = batches.shuffle(100_000).batch(size, drop_remainder=True).cache()
    alone = tf.data.Options()
    alone.threading.private_threadpool_size = 1
    batches = batches.with_options(alone)
    model.compile(optimizer=OPTIMISERS[optimiser]())
    if way == "fit":
        return lambda: model.fit(batches, verbose=0)
    model.train_step(next(iter(batches)))  # makes the variables, which a graph may not
    model.optimizer.build(model.trainable_variables)

    @tf.function
    def epoch() -> None:
        for batch in batches:
            with tf.GradientTape() as tape:
                loss = model.compute_loss(batch, training=True)
            gradients = tape.gradient(loss, model.trainable_variables)
            model.optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))

    return epoch


def main() -> None:
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    with np.load(sys.argv[1]) as file:
        events = {name: file[name] for name in ("user", "item")}
    packages = ("tensorflow", "tf_keras", "tensorflow-recommenders")
    print(json.dumps({name: version(name) for name in packages}), flush=True)
    known: dict[str, Callable] = {}
    for line in sys.stdin:
        if line not in known:
            known[line] = turns(events, **json.loads(line))
        began = time.process_time()
        known[line]()
        print(time.process_time() - began, flush=True)


if __name__ == "__main__":
    main()
