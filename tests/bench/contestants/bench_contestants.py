"""Contestants that are honest, that cheat, and that fail: the numpy backend, with one thing changed."""

import os
import signal
import threading

import numpy as np

from cnnkit.bench.batches import backend_learner


def make(workload, way="honest"):
    """A learner; `way` names what is wrong with it."""
    learner = backend_learner.make(workload, "numpy", "epoch", {})
    CHANGES[way](learner)
    return learner


def skips_every_second_batch(learner):
    work = learner.workload

    def train():
        order = np.concatenate(np.split(work.order, len(work.order) // work.batch_size)[::2])
        totals = learner.program.epoch(work.images, work.labels, order, work.batch_size)
        return totals.loss_sum / totals.count

    learner.train = train


def learns_from_other_labels(learner):
    work = learner.workload
    totals = []

    def train():
        totals.append(learner.program.epoch(work.images, (work.labels + 1) % 10, work.order, work.batch_size))
        return totals[-1].loss_sum / totals[-1].count

    learner.train = train


def stops_after_the_first_epoch(learner):
    honest, losses = learner.train, []

    def train():
        losses.append(losses[0] if losses else honest())
        return losses[-1]

    learner.train = train


def predicts_without_the_last_layer(learner):
    def predict():
        work, parameters = learner.workload, learner.parameters()
        scores = work.model.prefix(len(work.model.layers) - 2)
        return learner.backend.compile(scores.plan(), parameters).predict(work.images)

    learner.predict = predict


def predicts_once(learner):
    honest, results = learner.predict, []

    def predict():
        results.append(results[0] if results else honest())
        return results[-1]

    learner.predict = predict


def predicts_half(learner):
    work = learner.workload
    learner.predict = lambda: learner.program.predict(work.images[: work.count // 2])


def dies_in_the_second_epoch(learner):
    honest, begun = learner.train, []

    def train():
        begun.append(1)
        if len(begun) == 2:
            os.write(2, b"the engine's last words\n")
            os.kill(os.getpid(), signal.SIGKILL)
        return honest()

    learner.train = train


def raises_in_predict(learner):
    def predict():
        raise ValueError("there is no predicting here")

    learner.predict = predict


def needs_much_memory(learner):
    learner.kept = np.ones(300 << 20, np.uint8)


def prints(learner):
    honest = learner.train

    def train():
        print("an epoch begins")  # noqa: T201 - engines do
        os.write(1, b"in C too\n")
        return honest()

    learner.train = train


def works_in_the_background(learner):
    def spin():
        while True:
            pass

    threading.Thread(target=spin, daemon=True).start()
    learner.kept = True


CHANGES = {
    "honest": lambda learner: learner,
    "skips": skips_every_second_batch,
    "other labels": learns_from_other_labels,
    "stops": stops_after_the_first_epoch,
    "scores": predicts_without_the_last_layer,
    "predicts once": predicts_once,
    "predicts half": predicts_half,
    "dies": dies_in_the_second_epoch,
    "raises": raises_in_predict,
    "memory": needs_much_memory,
    "prints": prints,
    "background": works_in_the_background,
}
